"""TraceCodegen: a wrong sample teaches up to its first wrong line."""

import numpy as np
import pytest

from elenchus.configs.methods import trace_codegen
from elenchus.train import response_weights
from tests.support.method_cases import written

WEIGHTING = trace_codegen.CHANGES['improve.weighting']


@pytest.mark.parametrize(
    ('facts', 'known'),
    [
        ({'correct': True}, 6),
        ({'correct': False, 'first_error': 2}, 5),
        ({'correct': False, 'first_error': 0}, 0),
        ({'correct': True, 'first_error': 1}, 2),  # right by chance
        ({'correct': False}, 0),  # lines are not judged
    ],
)
def test_the_weight_ends_at_the_first_wrong_line(facts, known):
    turn = written('attempt', range(6), scores=(None,) * 3, ends=(2, 5, 6), **facts)
    weights = response_weights.response_weights(turn, weighting=WEIGHTING, success_rate=0.5)
    assert (weights[:known] == 1).all() and np.isnan(weights[known:]).all()


def test_wrong_responses_are_trained_on_and_no_score_is_read():
    weighting = response_weights.WEIGHTINGS[WEIGHTING]
    assert weighting.trains_wrong and not hasattr(weighting, 'reads_scores')
