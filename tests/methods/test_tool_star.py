"""Tool-Star: the reward of form, answer and several tools, against the authors' rule."""

import dataclasses

import pytest

from elenchus.configs.methods import tool_star
from elenchus.data.records import ToolTurn
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.sampling.test_tools import texts_of
from tests.support import method_cases
from tests.support.tool_cases import chat_of, sample

ANSWER = '<answer>It is \\boxed{12}.</answer>'
CALL = '<python>1</python><result>1</result>'
FORMS = {
    f'<think>so</think>{ANSWER}': True,
    f'<think>so</think>{CALL}<think>then</think>{ANSWER}': True,
    f'<think>so</think><calculator>1+1</calculator>\n<result>\n2\n</result>\n{ANSWER}': True,
    ANSWER: False,  # no thoughts
    f'<think>so{ANSWER}': False,
    f'<think>so</think>{ANSWER}{ANSWER}': False,
    '<think>so</think><answer>12</answer>': False,  # no box
    '<think>so</think>\\boxed{12}<answer></answer>': False,
    '<think>so</think></answer>\\boxed{1}<answer>': False,
    f'<think>so</think><python>1</python>{ANSWER}': False,  # no result
    f'<think>so</think><python>1{ANSWER}': False,
    f'<think>so</think>1</python><result>1</result>{ANSWER}': False,
    '': False,
}


@pytest.mark.parametrize('text', FORMS)
def test_the_form(text):
    assert tool_star.has_form(text) is FORMS[text]


def rewards(texts, correct, kinds):
    group = method_cases.turns(*({'correct': c} for c in correct), texts=texts)
    group = [
        judged._replace(
            turn=dataclasses.replace(
                judged.turn, tools=tuple(ToolTurn(*kind, i, i + 1) for i, kind in enumerate(k))
            )
        )
        for judged, k in zip(group, kinds, strict=True)
    ]
    return tool_star.hierarchical(group)


def test_several_tools_are_worth_a_tenth_of_a_right_answer():
    good = f'<think>so</think>{ANSWER}'
    python, calculator = ('python', 'answered'), ('calculator', 'answered')
    kinds = [
        (python, calculator),
        (python, python),
        (),
        (python, calculator),
        (python, calculator),
        (python, ('calculator', 'refused')),
    ]
    texts = [good, good, good, good, 'no form', good]
    correct = [True, True, True, False, True, True]
    assert rewards(texts, correct, kinds) == [1.1, 1.0, 1.0, 0.0, -1.0, 1.0]


def test_two_tools_answer_in_one_turn():
    settings = build.build(RunSettings, tool_star.get_config('qwen3_0p6b_gsm8k')).sampling.tools
    settings = dataclasses.replace(settings, modules=())
    chat = chat_of('qwen2.5')
    parts = [
        '<think>The primes.</think><python>sum(p for p in (2, 3, 5, 7))</python>',
        '<think>Less five.</think><calculator>17 - 5</calculator>',
        '<think>So.</think><answer>\\boxed{12}</answer></s>',
    ]
    turn, _, question = sample(chat, parts, settings=settings)
    answers, trained, text = texts_of(chat, turn, question)
    assert answers == ['<result>\n17\n</result>\n', '<result>\n12\n</result>\n']
    assert trained == ''.join(parts).removesuffix('</s>') and tool_star.has_form(text)
    assert [tool.name for tool in turn.tools] == ['python', 'calculator']


def test_on_the_lab_the_answer_is_rewarded():
    settings = build.build(RunSettings, tool_star.get_config('default'))
    assert settings.reinforce.rewards.correct == 1.0 and settings.sampling.tools.form == 'equation'
    assert rewards(['ben 3'] * 2, [True, False], [(), ()]) == [-1.0, -1.0]
