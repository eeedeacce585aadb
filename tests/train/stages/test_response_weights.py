"""Weights of the tokens of a response in self-training."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train.stages import improve

shares = st.floats(0, 1, width=32)


def make_turn(ends, scores, answer_score=None):
    return records.Turn(
        'attempt',
        (6,),
        (5,) * ends[-1],
        steps=tuple(map(records.Step, ends, scores)),
        facts=records.TurnFacts(score=answer_score),
    )


def test_weights_are_one_or_the_critics_scores():
    turn = make_turn((2, 4), (0.9, 0.2), answer_score=0.4)
    weights = {
        weighting: improve.response_weights(turn, weighting=weighting, success_rate=0.5)
        for weighting in ('keep', 'score', 'steps')
    }
    np.testing.assert_allclose(weights['keep'], np.ones(4))
    np.testing.assert_allclose(weights['score'], np.full(4, 0.4))
    np.testing.assert_allclose(weights['steps'], [0.9, 0.9, 0.2, 0.2])


def test_a_response_without_a_score_weighs_nothing():
    turn = make_turn((1,), (0.9,))
    assert not improve.response_weights(turn, weighting='score', success_rate=0.5).any()


@given(solved=shares, scores=st.lists(shares, min_size=1, max_size=6))
def test_the_advantages_of_steps_sum_to_the_gain_of_the_whole_response(solved, scores):
    ends = tuple(range(1, len(scores) + 1))
    turn = make_turn(ends, scores)
    weights = improve.response_weights(turn, weighting='advantage', success_rate=solved)
    assert weights.shape == (len(ends),)
    np.testing.assert_allclose(weights.sum(), scores[-1] - solved, atol=1e-6)
    assert all(
        w < 0 for w, a, b in zip(weights[1:], scores, scores[1:], strict=False) if b < a - 1e-6
    )
