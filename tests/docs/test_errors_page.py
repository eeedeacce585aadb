"""docs/errors.md quotes texts that the code can print; the list of all messages has all of them."""

import ast
import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / 'docs/errors.md').read_text(encoding='utf-8')
LISTING = runpy.run_path(str(ROOT / 'docs/site/all_messages.py'))
QUOTES = re.findall(r'^\| `([^|]+?)` \|', PAGE, re.MULTILINE)


def texts_of_the_code():
    """All strings of the code, with their computed parts as braces, those of one call joined."""
    texts = set()
    for folder in LISTING['FOLDERS']:
        for path in (ROOT / folder).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if isinstance(node, ast.expr):
                    texts.add(' '.join(LISTING['text_of'](node).split()))
                if isinstance(node, ast.Call) and ast.unparse(node.func) == 'print':
                    words = [LISTING['text_of'](a) or '{}' for a in node.args]
                    texts.add(' '.join(' '.join(words).split()))
    return texts


@pytest.fixture(scope='module')
def texts():
    """Strings of the code that are long enough to be part of a message."""
    return [text for text in texts_of_the_code() if len(re.sub(r'{\w*}', '', text)) > 8]


def literals(quote):
    """Pieces of a quoted message that the code must contain as they are."""
    return [piece for piece in quote.split('...') if re.search(r'\w{2}', piece)]


@pytest.mark.parametrize('quote', QUOTES)
def test_every_quoted_text_is_one_of_the_code(quote, texts):
    plain = quote.removeprefix('configs/').replace("'solution'", '...')
    pieces = literals(plain)
    assert pieces, quote
    pattern = '.*'.join(map(re.escape, pieces))
    sources = [text for text in texts if re.search(pattern, text)]
    if not sources:  # two texts of the code, joined where the message is printed
        halves = [p.strip(' ;:') for p in re.split(r';', '...'.join(pieces))]
        sources = all(
            any(re.search('.*'.join(map(re.escape, literals(half))), text) for text in texts)
            for half in halves
            if literals(half)
        )
    assert sources, quote


def test_the_list_has_every_text_of_an_error_with_its_place():
    messages = LISTING['messages']()
    assert len(messages) > 500
    page = LISTING['page']()
    for message in messages:
        assert f'`{message.place}`' in page
    known = {(m.place, m.text) for m in messages}
    text = 'no such variant; there are '
    assert any(place == 'configs/derive.py' and text in words for place, words in known)


def test_names_are_filled_in_where_the_text_has_computed_parts():
    (call,) = ast.parse("f'{a.b} of {len(rows)} at {x[0]!r} by {f(y)}'").body
    words = LISTING['text_of'](call.value)
    assert words == '{b} of {number of rows} at {x} by {y}'


def test_every_table_has_a_remedy_in_each_row():
    rows = re.findall(r'^\| `.*', PAGE, re.MULTILINE)
    assert len(rows) == len(QUOTES) > 50
    for row in rows:
        cells = [cell.strip() for cell in re.sub(r'`[^`]*`', 'x', row).strip('|').split('|')]
        assert len(cells) == 3 and all(cells), row
