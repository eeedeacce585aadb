"""Weights of the tokens of a response in self-training."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train.stages import improve

shares = st.floats(0, 1, width=32)


def make_response(tokens, *, ends, step_scores=None, score=None):
    steps = map(records.Step, ends, step_scores or [None] * len(ends))
    facts = records.TurnFacts(score=score)
    return records.Turn('attempt', (6,), tokens, steps=tuple(steps), facts=facts)


def weights_of(turn, weighting, **facts):
    episode = records.Episode('p', 1, (turn,), records.EpisodeFacts(**facts))
    return improve.response_weights(turn, episode, weighting=weighting)


def test_weights_are_one_or_the_critics_scores():
    turn = make_response((5, 9, 5, 1), ends=(2, 4), step_scores=(0.9, 0.2), score=0.4)
    np.testing.assert_allclose(weights_of(turn, 'keep'), np.ones(4))
    np.testing.assert_allclose(weights_of(turn, 'score'), np.full(4, 0.4))
    np.testing.assert_allclose(weights_of(turn, 'steps'), [0.9, 0.9, 0.2, 0.2])


def test_a_response_without_a_score_weighs_nothing():
    assert not weights_of(make_response((1,), ends=(1,), score=None), 'score').any()


@given(solved=shares, scores=st.lists(shares, min_size=1, max_size=6))
def test_the_advantages_of_steps_sum_to_the_gain_of_the_whole_response(solved, scores):
    ends = tuple(range(1, len(scores) + 1))
    turn = make_response((5,) * len(ends), ends=ends, step_scores=scores)
    weights = weights_of(turn, 'advantage', success_rate=solved)
    assert weights.shape == (len(ends),)
    np.testing.assert_allclose(weights.sum(), scores[-1] - solved, atol=1e-6)
    assert all(
        w < 0 for w, a, b in zip(weights[1:], scores, scores[1:], strict=False) if b < a - 1e-6
    )
