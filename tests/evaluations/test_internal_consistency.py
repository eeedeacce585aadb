"""Agreement of responses: entropy at its two ends, and by hand."""

import math

import pytest

from elenchus.configs.evaluations import internal_consistency
from tests.support import method_cases


@pytest.mark.parametrize(
    ('answers', 'value'),
    [
        (['7'] * 4, 0.0), (['1', '2', '3', '4'], 1.0), ([None, None], 1.0), (['7'], 0.0),
        (['1', '1', '2', '2'], 0.5), (['1', None], 1.0),
    ],
)  # fmt: skip
def test_entropy(answers, value):
    assert internal_consistency.entropy(answers) == pytest.approx(value)


def test_surer_questions_are_compared_with_the_others():
    sure = [{'answer': '1', 'correct': True}] * 2
    unsure = [{'answer': '1', 'correct': True}, {'answer': '2', 'correct': False}]
    figures = internal_consistency.agreement(method_cases.groups(unsure, sure), str)
    assert figures == {
        'entropy': 0.5, 'accuracy of the surer half': 1.0, 'accuracy of the other half': 0.5,
    }  # fmt: skip
    assert not any(map(math.isnan, figures.values()))
