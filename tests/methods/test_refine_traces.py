"""ReFIne: order of sections, references, and a proper score."""

import pytest

from elenchus.configs.methods import refine_traces
from tests.support import method_cases

WHOLE = (
    '<understanding>u</understanding><facts>f</facts><plan>p</plan>'
    '<think>By the facts and the plan it is 4.</think> 4. Confidence: 9/10'
)


def reward(text, correct):
    (value,) = refine_traces.traces(method_cases.turns({'correct': correct}, texts=[text]))
    return value


def test_worked_values():
    assert reward(WHOLE, True) == pytest.approx((1 + 1 + 2 / 3 + 0.99) / 4)
    assert reward(WHOLE, False) == pytest.approx((0 + 1 + 2 / 3 + 0.19) / 4)
    assert reward('4', True) == pytest.approx((1 + 0 + 0 - 0.25) / 4)


@pytest.mark.parametrize(
    'text',
    [
        WHOLE.replace('<plan>p</plan>', ''),
        WHOLE.replace('<facts>f</facts>', '') + '<facts>f</facts>',
        WHOLE + '<plan>again</plan>',
    ],
)
def test_sections_that_miss_or_change_places_are_not_in_order(text):
    assert refine_traces.in_order(text) == 0.0


@pytest.mark.parametrize('chance', [0.1, 0.4, 0.7])
def test_the_best_confidence_is_the_true_probability(chance):
    def expected(tenths):
        text = f'Confidence: {tenths}/10'
        right, wrong = (refine_traces.honesty(text, correct) for correct in (1.0, 0.0))
        return chance * right + (1 - chance) * wrong

    assert max(range(11), key=expected) == round(10 * chance)
