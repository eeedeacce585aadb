"""Weights of the tokens of a response in self-training."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train.stages import improve

shares = st.floats(0, 1, width=32)


def make_episode(tokens=(1,), problem='p', **outcome):
    turn = records.Turn('attempt', (6,), tuple(tokens), step_ends=(len(tokens),))
    return records.Episode(problem, 1, (turn,), outcome)


def test_weights_are_one_or_the_critics_scores():
    turn = records.Turn('attempt', (6,), (5, 9, 5, 1), step_ends=(2, 4), step_scores=(0.9, 0.2))
    weights = {
        weighting: improve.response_weights(turn, make_episode(score=0.4), weighting=weighting)
        for weighting in ('keep', 'score', 'steps')
    }
    np.testing.assert_allclose(weights['keep'], np.ones(4))
    np.testing.assert_allclose(weights['score'], np.full(4, 0.4))
    np.testing.assert_allclose(weights['steps'], [0.9, 0.9, 0.2, 0.2])


def test_a_response_without_a_score_weighs_nothing():
    turn = make_episode().turns[0]
    assert not improve.response_weights(turn, make_episode(score=None), weighting='score').any()


@given(solved=shares, scores=st.lists(shares, min_size=1, max_size=6))
def test_the_advantages_of_steps_sum_to_the_gain_of_the_whole_response(solved, scores):
    ends = tuple(range(1, len(scores) + 1))
    turn = records.Turn('attempt', (6,), (5,) * len(ends), (), ends, tuple(scores))
    weights = improve.response_weights(
        turn, make_episode(success_rate=solved), weighting='advantage'
    )
    assert weights.shape == (len(ends),)
    np.testing.assert_allclose(weights.sum(), scores[-1] - solved, atol=1e-6)
    assert all(
        w < 0 for w, a, b in zip(weights[1:], scores, scores[1:], strict=False) if b < a - 1e-6
    )
