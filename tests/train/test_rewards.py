"""Reward terms, one by one and weighted."""

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train.rl import rewards

NOTHING = dict.fromkeys(('correct', 'format', 'length', 'steps', 'verdict'), 0.0)
SILENT = dict.fromkeys(('verdict', 'located', 'helpful', 'format', 'length'), 0.0)


def written(outcome, *, tokens=4, scores=(), limit=10, overlong_tokens=4):
    turn = records.Turn('attempt', (6,), (5,) * tokens, (), (tokens,), scores)
    return rewards.Written(turn, outcome, limit, overlong_tokens)


def earned(kind, outcome, **given):
    base = NOTHING if kind is rewards.ActorRewards else SILENT
    weights = kind(**base | dict.fromkeys(given.pop('asked'), 1.0))
    return rewards.total(weights, rewards.terms(weights, written(outcome, **given)))


@hypothesis.given(st.integers(1, 30), st.integers(1, 10))
def test_the_overlong_penalty_falls_from_nothing_to_one_over_its_last_tokens(length, over):
    """DAPO's soft overlong punishment with L_max = 20."""
    found = rewards.overlong(length, limit=20, overlong_tokens=over)
    if length <= 20 - over:
        assert found == 0
    elif length <= 20:
        assert found == pytest.approx((20 - over - length) / over)
    else:
        assert found == -1


@pytest.mark.parametrize(
    ('term', 'outcome', 'value'),
    [
        ('correct', {'correct': True}, 1),
        ('correct', {'correct': False}, 0),
        ('format', {'answer': '7'}, 1),
        ('format', {'answer': None}, 0),
        ('verdict', {'score': 0.25}, 0.25),
        ('verdict', {'score': None}, 0),
    ],
)
def test_terms_of_the_actor(term, outcome, value):
    assert earned(rewards.ActorRewards, outcome, asked=(term,)) == value


def test_terms_of_tokens_and_steps():
    assert earned(rewards.ActorRewards, {}, asked=('steps',), scores=(1.0, 0.0)) == 0.5
    assert earned(rewards.ActorRewards, {}, asked=('steps',)) == 0
    assert earned(rewards.ActorRewards, {}, asked=('length',), tokens=8) == -0.5


@pytest.mark.parametrize(
    ('verdict', 'correct', 'value'),
    [(True, True, 1), (False, False, 1), (True, False, 0), (None, False, 0), (None, True, 0)],
)
def test_discrimination_never_takes_a_garbled_critique_as_a_verdict(verdict, correct, value):
    outcome = {'verdict': verdict, 'correct': correct}
    assert earned(rewards.CriticRewards, outcome, asked=('verdict',)) == value
    assert earned(rewards.CriticRewards, outcome, asked=('format',)) == (verdict is not None)


def test_location_is_the_very_line_or_rightly_none():
    for located, first, verdict, value in (
        (2, 2, False, 1), (1, 2, False, 0), (None, None, True, 1), (None, None, None, 0),
    ):  # fmt: skip
        outcome = {'located': located, 'first_error': first, 'verdict': verdict}
        assert earned(rewards.CriticRewards, outcome, asked=('located',)) == value


def test_helpfulness_pays_what_is_put_right_and_fines_what_is_made_wrong():
    assert rewards.helpfulness(False, [True, False]) == 0.5
    assert rewards.helpfulness(True, [False]) == -1
    assert rewards.helpfulness(True, [True]) == rewards.helpfulness(False, [False]) == 0
    assert earned(rewards.CriticRewards, {'helpful': -1.0}, asked=('helpful',)) == -1


def test_terms_of_weight_zero_are_not_even_asked_for():
    weights = rewards.ActorRewards(**NOTHING | {'correct': 2.0, 'format': -0.5})
    values = rewards.terms(weights, written({'correct': True, 'answer': '1'}))
    assert values == {'correct': 1.0, 'format': 1.0}
    assert rewards.total(weights, values) == 1.5


def test_a_refinement_is_paid_for_its_own_facts():
    refinement = records.Turn('refinement', (7,), (5,))
    outcome = {'correct': False, 'refined_correct': True, 'refined_answer': '3', 'score': 0.9}
    episode = records.Episode('p', 1, (refinement,), outcome)
    assert rewards.facts_of(episode, refinement) == {'correct': True, 'answer': '3'}
