"""What a chat writes: texts of a model as data, verdicts in colour, the answer."""

import dataclasses
import io
import types

import pytest

from elenchus.data.records import Episode
from elenchus.data.text import chat as chats
from elenchus.data.text import tokenizer as tokenizers
from elenchus.train.benchmarks import chat_session
from tests.support import shipped_configs
from tests.train.benchmarks.test_benchmarks import bench_of


def test_control_characters_of_a_model_are_data():
    hostile = 'a\x1b[31m\x07\u202e\u200b\x9b\r\n\tb'
    written = chat_session.shown(hostile)
    assert written == 'a\\x1b[31m\\x07\\u202e\\u200b\\x9b\\x0d\n\tb'


@pytest.mark.parametrize(
    ('line', 'colour'),
    [
        ('Correctness of the step: Wrong', chat_session.RED),
        ('Correctness of the step: **Correct**', chat_session.GREEN),
        ('eve 3 - 3 = 0 ; correct', chat_session.GREEN),
        ('answer : wrong', chat_session.RED),
        ('Incorrect is what it is: Incorrect', chat_session.RED),
        ('This is wrong.', ''),
    ],
)
def test_verdicts_are_coloured_and_other_words_are_not(line, colour):
    written = chat_session.coloured(line)
    assert written.count(chat_session.PLAIN) == bool(colour)
    assert colour in written
    assert written.replace(chat_session.PLAIN, '').replace(colour or 'x', '') == line


def test_a_stream_writes_every_character_once():
    chat = chats.Chat(tokenizers.lab_tokenizer())
    tokens = chat.text_turn('attempt', 'ben : eve 7 - 4 = 3 ; ben 3\n #### 3').tokens
    for colour in (None, chat_session.coloured):
        out = io.StringIO()
        stream = chat_session.Stream(out, chat, colour)
        for end in range(1, len(tokens)):
            stream.show(tokens[:end])
        stream.show(tokens, is_last=True)
        assert out.getvalue() == chat.tokenizer.decode(tokens[:-1])


@pytest.mark.parametrize(('marker', 'shown'), [('hashes', '4'), ('boxed', 'none')])
def test_the_answer_of_a_chat_stands_after_a_mark_of_the_config(marker, shown):
    bench, out = bench_of(shipped_configs.ROOT / 'data/lab/checkpoint'), io.StringIO()
    data = bench.settings.data
    data = dataclasses.replace(data, answer=dataclasses.replace(data.answer, markers=(marker,)))
    bench = dataclasses.replace(bench, settings=dataclasses.replace(bench.settings, data=data))
    turn = bench.chat.text_turn('attempt', 'ben 3\n #### 4')
    session = types.SimpleNamespace(bench=bench, out=out, num_questions=0, _bold=str)
    answered = Episode('q', 0, (*bench.chat.question_turns('ben ?'), turn))
    chat_session.Session._tell_answer(session, answered)
    assert out.getvalue() == f'[answer: {shown}]\n'
