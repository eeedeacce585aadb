"""RL on incorrect synthetic data: a step's weight is what it changes."""

import numpy as np
import pytest

from elenchus.configs.methods import rl_incorrect
from elenchus.data import records
from elenchus.train import response_weights

WEIGHTING = rl_incorrect.CHANGES['improve.weighting']


def weights(values, *, success_rate):
    steps = tuple(records.Step(i, value) for i, value in enumerate(values, 1))
    turn = records.Turn('attempt', (6,), (5,) * len(values), steps=steps)
    return response_weights.response_weights(turn, weighting=WEIGHTING, success_rate=success_rate)


def test_the_first_pit_is_unlearnt_and_the_steps_before_it_are_learnt():
    values = weights([0.6, 0.8, 0.1, 0.1], success_rate=0.5)
    assert values == pytest.approx([0.1, 0.2, -0.7, 0.0])


@pytest.mark.parametrize('values', [[0.2, 0.9, 1.0], [0.5], [0.9, 0.1, 0.0, 0.3]])
def test_the_weights_of_a_response_telescope(values):
    assert np.sum(weights(values, success_rate=0.4)) == pytest.approx(values[-1] - 0.4)


def test_wrong_responses_are_trained_on_too():
    assert response_weights.WEIGHTINGS[WEIGHTING].trains_wrong
    assert response_weights.WEIGHTINGS[WEIGHTING].reads_scores
