"""When Thinking Fails: two forms of an answer, and the gates between them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.evaluations import when_thinking_fails
from elenchus.sampling.metrics import measures
from tests.support import method_cases

NAME = 'elenchus.configs.evaluations.when_thinking_fails:gates'


def figures(worked, direct, levels=None):
    """Figures of one attempt at each question in each form."""
    levels = levels or [1] * len(worked)
    forms = []
    for right in (worked, direct):
        groups = method_cases.groups(*[[{'correct': ok}] for ok in right])
        forms.append(
            [
                dataclasses.replace(g, problem=dataclasses.replace(g.problem, level=level))
                for g, level in zip(groups, levels, strict=True)
            ]
        )
    conditions = {'answer_only': forms[1]}
    return measures.measure([NAME], forms[0], str, conditions=conditions)['own_measures']['gates']


def test_gates_by_hand():
    # Reasoning spoils level 1 and makes level 2: a gate that knows the level is always right.
    assert figures([0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 2, 2]) == {
        'worked': 0.5,
        'answer only': 0.5,
        'reasoning loses': 0.5,
        'gate that knows the outcome': 1.0,
        'gate by level': 1.0,
    }
    # One level: each half is answered in the form that was better on the other half.
    values = figures([0, 1, 0, 1], [1, 0, 1, 0])
    assert values['gate that knows the outcome'] == 1.0 and values['gate by level'] == 0.0
    # An unknown level, and a draw, are worked out.
    assert figures([1, 0], [0, 1], [1, 2])['gate by level'] == 0.5
    assert figures([1, 1, 0], [1, 1, 0])['gate by level'] == pytest.approx(2 / 3)


ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 3)), min_size=1, max_size=12)


@given(ROWS)
def test_no_gate_beats_the_one_that_knows(rows):
    worked, direct, levels = (list(column) for column in zip(*rows, strict=True))
    values = figures(worked, direct, levels)
    best = values['gate that knows the outcome']
    assert best >= max(values['worked'], values['answer only'], values['gate by level'])
    same = figures(worked, worked, levels)
    assert same['gate by level'] == same['worked'] and same['reasoning loses'] == 0.0
    swapped = figures(direct, worked, levels)
    assert swapped['gate that knows the outcome'] == best


def test_the_guide_asks_for_the_answer_alone():
    problem = method_cases.PROBLEM
    assert when_thinking_fails.answer_only(problem) == '####'
    text = when_thinking_fails.answer_only(dataclasses.replace(problem, source='gsm8k'))
    assert 'without reasoning' in text and problem.answer not in text


def test_other_measures_do_not_get_the_conditions(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('def mine(groups, read):\n    return {"count": len(groups)}\n')
    groups = method_cases.groups([{'correct': True}])
    conditions = {'answer_only': groups}
    both = measures.measure([f'{path}:mine', NAME], groups, str, conditions=conditions)
    assert both['own_measures']['mine'] == {'count': 1.0}
    assert set(both['own_measures']) == {'mine', 'gates'}
