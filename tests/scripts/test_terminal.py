"""Text of records, problems and files is data on the terminal: no markup and no escape acts."""

import io
import re

import hypothesis
import pytest
import rich.console
from hypothesis import strategies as st

from elenchus.data.critiques import file_summary, record_files
from elenchus.data.text import tokenizer
from elenchus.data.text.chat import Chat
from elenchus.data.text.printable import printable
from elenchus.train.config import cli
from elenchus.train.metrics import progress
from elenchus.train.report import token_listing

ACTS = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')
PAYLOADS = (
    '[/x]',
    '[link=http://evil/]see[/link]',
    '[blink]owned[/]',
    '[bold red]x',
    '\\[x]',
    ':warning:',
    '\x1b]0;owned\x07\x1b[2J',
    '\x1b]8;;http://evil/\x1b\\see\x1b]8;;\x1b\\',
    '\x9b2J\x90q\x9c',
    'a\rb\bc\x0bd\x0c\x00',
    'user\u202etxt.exe\u2066\u200f',
    '\u2028line\u2029',
    'half \ud83d\udc00',
    'tag \U000e0041\U000e007f',
)


def shown(text):
    """What a terminal should show of a text."""
    return printable(text)


def records_with(text):
    whole = text.encode('utf-8', 'ignore').decode()  # JSON of half characters is refused
    return record_files.from_fields(
        {'question': whole, 'response': 'a\n#### 1', 'critique': 'c', 'kind': whole}
    )


def on_terminal(table):
    """What is written to a terminal, and what is written to a file."""
    written = []
    for is_terminal in (True, False):
        file = io.StringIO()
        console = rich.console.Console(file=file, force_terminal=is_terminal, width=200)
        console.print(table)
        written.append(file.getvalue())
    return written


@pytest.mark.parametrize('payload', PAYLOADS)
def test_a_data_card_shows_the_text_of_records_and_names(tmp_path, payload):
    record = records_with(payload)
    name = record.question.replace('/', '|').replace('\0', '').replace('\n', '')
    path = tmp_path / f'{name}.jsonl'
    record_files.write_jsonl(path, [record])
    terminal, plain = on_terminal(file_summary.compare_files([str(path)], problem_paths=[]))
    assert not ACTS.search(plain)
    assert not ACTS.search(re.sub('\x1b\\[[0-9;]*m', '', terminal))  # rich's own colours
    *_, kind = shown(record.kind).split('\n')
    assert f'{kind}: 1 (100.0 %)' in plain


@pytest.mark.parametrize('payload', PAYLOADS)
@pytest.mark.parametrize('is_terminal', [True, False])
def test_progress_shows_descriptions_and_values(payload, is_terminal):
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=is_terminal, width=200)
    with progress.Progress(3, unit='steps', description=payload, console=console) as bar:
        bar.advance(3, worst=payload)
    text = re.sub('\x1b\\[[0-9;?]*[a-zA-Z]', '', file.getvalue())  # rich's colours and cursor
    assert not ACTS.search(text.replace('\r', '')) and shown(payload) in text


@pytest.fixture(scope='module')
def chat():
    texts = [*(p.encode('utf-8', 'ignore').decode() for p in PAYLOADS), 'a b c d e #### 1']
    return Chat(
        tokenizer.SentencePieceTokenizer.from_bytes(
            tokenizer.train_tokenizer(texts, vocab_size=400, model_type='bpe')
        )
    )


@pytest.mark.parametrize('payload', PAYLOADS)
def test_tokens_are_listed_without_characters_that_act(chat, payload):
    listed = token_listing.list_tokens(chat, records_with(payload), 'critique')
    assert not ACTS.search(listed)


@pytest.mark.parametrize('payload', PAYLOADS)
def test_an_error_is_one_line_of_printable_text(payload, capsys):
    with pytest.raises(SystemExit):
        cli._fail(f'a.jsonl:1: field {payload} is wrong')
    line = capsys.readouterr().err
    assert line.count('\n') == 1 and not ACTS.search(line) and len(line) < 5000


def test_a_long_error_is_cut(capsys):
    with pytest.raises(SystemExit):
        cli._fail('x' * 100_000)
    assert len(capsys.readouterr().err) < 5000


@hypothesis.given(st.text())
def test_printable_text_keeps_all_letters_and_is_stable(text):
    safe = printable(text)
    assert not ACTS.search(safe) and printable(safe) == safe
    safe.encode()
    if not ACTS.search(text) and text.isprintable():
        assert safe == text


@pytest.mark.parametrize(
    'text', ['שלום', 'مرحبا', 'क्ष\u200d', '👩\u200d🔬', 'a\tb\nc', 'é\u0301', '汉字']
)
def test_letters_of_all_scripts_stay(text):
    assert printable(text) == text
