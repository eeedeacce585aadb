"""Weights of the tokens of a response in self-training."""

import dataclasses
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train import response_weights
from elenchus.train.stages import improve
from tests.support import fake_engine

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
        weighting: response_weights.response_weights(turn, weighting=weighting, success_rate=0.5)
        for weighting in ('keep', 'score', 'steps')
    }
    np.testing.assert_allclose(weights['keep'], np.ones(4))
    np.testing.assert_allclose(weights['score'], np.full(4, 0.4))
    np.testing.assert_allclose(weights['steps'], [0.9, 0.9, 0.2, 0.2])


@pytest.mark.parametrize(
    ('weighting', 'scores', 'trained'),
    [
        ('score', (0.9, 0.8, 0.7), []),
        ('steps', (0.9, None, 0.7), [0, 2]),
        ('steps', (None, None, None), []),
        ('advantage', (0.9, None, 0.7), [0]),
        ('advantage', (0.9, 0.8, None), [0, 1]),
        ('keep', (None, None, None), [0, 1, 2]),
    ],
)
def test_tokens_of_unknown_weight_are_not_trained(weighting, scores, trained):
    """The critique gave no final verdict; a response without any trained token is left out."""
    chat = fake_engine.CHAT
    turn = chat.text_turn('attempt', 'ben : 3\n eve : 4\n #### 4')
    assert len(turn.steps) == 3
    steps = tuple(records.Step(s.end, v) for s, v in zip(turn.steps, scores, strict=True))
    turn = dataclasses.replace(turn, steps=steps)
    turns = (*chat.question_turns('eve ?'), turn)
    episode = records.Episode('p', 1, turns).with_facts(success_rate=0.5)
    settings = types.SimpleNamespace(balance='none', weighting=weighting)
    examples = improve.response_examples(chat, [episode], settings=settings)
    if not trained:
        assert examples == []
        return
    (example,) = examples
    in_step = {int(step) - 1 for step in example.steps[example.loss_mask > 0]}
    assert in_step == set(trained) and np.isfinite(example.weights).all()
    assert not example.weights[example.loss_mask == 0].any()


@given(solved=shares, scores=st.lists(shares, min_size=1, max_size=6))
def test_the_advantages_of_steps_sum_to_the_gain_of_the_whole_response(solved, scores):
    ends = tuple(range(1, len(scores) + 1))
    turn = make_turn(ends, scores)
    weights = response_weights.response_weights(turn, weighting='advantage', success_rate=solved)
    assert weights.shape == (len(ends),)
    np.testing.assert_allclose(weights.sum(), scores[-1] - solved, atol=1e-6)
    assert all(
        w < 0 for w, a, b in zip(weights[1:], scores, scores[1:], strict=False) if b < a - 1e-6
    )
