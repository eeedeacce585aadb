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


def strings_of(tree):
    """Yields the strings below a node, with computed parts in braces; no docstrings."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == 'print'
        ):
            yield ' '.join(LISTING['text_of'](word) or '{}' for word in node.args)
        text = LISTING['text_of'](node) if isinstance(node, ast.expr) else ''
        if text:
            yield text
        else:
            yield from strings_of(node)


@pytest.fixture(scope='module')
def texts():
    """Strings of the code that may be part of a message."""
    strings = {
        ' '.join(text.split()) for tree in LISTING['trees']().values() for text in strings_of(tree)
    }
    return [text for text in strings if re.search(r'\w.*\w', text)]


def pattern_of(quote):
    """Regular expression of a quoted text: the code has its pieces, in their order."""
    pieces = [piece for piece in quote.split('...') if re.search(r'\w{2}', piece)]
    assert pieces, quote
    return '.*'.join(map(re.escape, pieces))


@pytest.mark.parametrize('quote', QUOTES)
def test_every_quoted_text_is_one_of_the_code(quote, texts):
    """A text that the code joins from two is quoted with three dots behind a semicolon or dot."""
    if any(map(re.compile(pattern_of(quote)).search, texts)):
        return
    parts = [
        part for part in re.split(r'; ', quote) if re.search(r'\w{2}', part.replace('...', ''))
    ]
    assert len(parts) > 1, quote
    for part in parts:
        assert any(map(re.compile(pattern_of(part)).search, texts)), part


@pytest.mark.slow
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
