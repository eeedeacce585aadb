"""CoSC: programs run where the model writes them, outputs are read and never trained."""

import dataclasses

import pytest

from elenchus.configs.methods import cosc
from elenchus.data.tools.answer import Answer
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.sampling.test_tools import texts_of
from tests.support.tool_cases import chat_of, sample

ROUNDS = (
    'She has 3 red pens and buys twice as many.\n```python\nprint(3 * 2)\n```',
    'Verification: 6 is what she buys, not what she has.\nConclusion: wrong.\n'
    '```python\nprint(3 + 3 * 2)\n```',
    'Verification: 9 is the sum of both.\nConclusion: right.\n#### 9</s>',
)


def tools_of(variant):
    return build.build(RunSettings, cosc.get_config(variant)).sampling.tools


def test_a_program_is_corrected_after_its_output_and_only_the_players_words_are_trained():
    settings = dataclasses.replace(tools_of('qwen3_0p6b_gsm8k'), modules=())
    chat = chat_of('qwen2.5')
    turn, _, question = sample(chat, ROUNDS, settings=settings)
    outputs, trained, text = texts_of(chat, turn, question)
    assert outputs == ['\n```output\n6\n```\n', '\n```output\n9\n```\n']
    assert trained == ''.join(ROUNDS).removesuffix('</s>')
    assert text.endswith('#### 9') and chat.is_finished(turn)


def test_rounds_end():
    settings, chat = tools_of('qwen3_0p6b_gsm8k'), chat_of('qwen2.5')
    calls = []

    def answer(programs):
        calls.extend(programs)
        return [Answer('1')] * len(programs)

    parts = ['```python\n1\n```'] * 5 + ['so</s>']
    turn, _, _ = sample(chat, parts, settings=settings, answer=answer)
    assert len(calls) == 3 and [t.outcome for t in turn.tools][3:] == ['refused'] * 2


@pytest.mark.parametrize(
    ('text', 'digit'), [('7-4', '3'), ('7+9', '6'), ('1-4', '7'), ('0+0', '0'), ('5-5', '0')]
)
def test_the_labs_calculator_is_modulo_ten(text, digit):
    assert cosc.last_digit(text) == digit


def test_on_the_lab_arithmetic_slips_disappear():
    """Whatever a model would write behind `=`, the value is the calculator's."""
    chat = chat_of('elenchus')
    parts = (' ben : eve 7 + 9 =', ' ; ben 6\n ada : ben 6 - 8 =', ' ; ada 8\n #### 8</s>')
    turn, _, question = sample(chat, parts, settings=tools_of('default'), limit=60)
    values, trained, text = texts_of(chat, turn, question)
    assert [value.strip() for value in values] == ['6', '8']
    wanted = 'ben : eve 7 + 9 = 6 ; ben 6 ada : ben 6 - 8 = 8 ; ada 8 #### 8'
    assert ' '.join(text.split()) == wanted
    assert '= ;' in trained


def test_without_the_method_there_are_no_tools():
    base = build.build(RunSettings, cosc.method.lab.get_config('default')).sampling
    assert base.tools.use == () and not base.pauses
