"""Reward terms, one by one and weighted."""

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling import slots
from elenchus.train.rl import rewards

NO_ACTOR_REWARD = dict.fromkeys(('correct', 'format', 'length', 'steps', 'verdict'), 0.0)
NO_ACTOR_REWARD['functions'] = ()
NO_CRITIC_REWARD = dict.fromkeys(('verdict', 'located', 'helpful', 'format', 'length'), 0.0)
NO_CRITIC_REWARD |= {'verdict_of': 'answer', 'functions': ()}
PROBLEM = records.Problem('p', 'question', '1', '1', 1, 'lab')


def judged_turn(facts, *, tokens=4, scores=(), limit=10, overlong_tokens=4):
    steps = tuple(records.Step(tokens, score) for score in scores)
    turn = records.Turn('attempt', (6,), (5,) * tokens, (), steps, records.TurnFacts(**facts))
    return rewards.JudgedTurn(turn, turn, PROBLEM, limit, overlong_tokens, str)


def reward_of(kind, facts, *, terms, **turn):
    base = NO_ACTOR_REWARD if kind is rewards.ActorRewards else NO_CRITIC_REWARD
    weights = kind(**base | dict.fromkeys(terms, 1.0))
    return rewards.total(weights, *rewards.terms(weights, [judged_turn(facts, **turn)]))


@hypothesis.given(st.integers(1, 30), st.integers(1, 10))
def test_the_overlong_penalty_falls_from_nothing_to_one_over_its_last_tokens(length, over):
    """DAPO's soft overlong punishment with L_max = 20."""
    penalty = rewards.overlong(length, limit=20, overlong_tokens=over)
    if length <= 20 - over:
        assert penalty == 0
    elif length <= 20:
        assert penalty == pytest.approx((20 - over - length) / over)
    else:
        assert penalty == -1


@pytest.mark.parametrize(
    ('term', 'facts', 'value'),
    [
        ('correct', {'correct': True}, 1),
        ('correct', {'correct': False}, 0),
        ('format', {'answer': '7'}, 1),
        ('format', {'answer': None}, 0),
        ('verdict', {'score': 0.25}, 0.25),
        ('verdict', {'score': 0.0}, 0),
    ],
)
def test_terms_of_the_actor(term, facts, value):
    assert reward_of(rewards.ActorRewards, facts, terms=(term,)) == value


def test_terms_of_tokens_and_steps():
    assert reward_of(rewards.ActorRewards, {}, terms=('steps',), scores=(1.0, 0.0)) == 0.5
    assert reward_of(rewards.ActorRewards, {}, terms=('steps',), scores=(1.0, None, 0.5)) == 0.75
    assert reward_of(rewards.ActorRewards, {}, terms=('length',), tokens=8) == -0.5


@pytest.mark.parametrize(
    ('term', 'facts', 'scores'),
    [
        ('steps', {}, ()),
        ('steps', {}, (None, None)),
        ('steps', {'critique_finished': False}, (0.9, None)),
        ('steps', {'critique_finished': False}, (0.9, 0.9)),
        ('verdict', {'score': None}, (0.9,)),
    ],
)
def test_what_the_critic_did_not_say_pays_no_score(term, facts, scores):
    weights = rewards.ActorRewards(**NO_ACTOR_REWARD | {term: 1.0})
    (values,) = rewards.terms(weights, [judged_turn(facts, scores=scores)])
    assert values == {term: None} and rewards.total(weights, values) == 0


@hypothesis.given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=8))
def test_an_unknown_term_is_at_the_mean_of_the_known_ones(column):
    filled = [v['steps'] for v in rewards.fill_unknown([{'steps': v} for v in column])]
    known = [v for v in column if v is not None]
    mean = sum(known) / len(known) if known else 0.0
    assert filled == [mean if v is None else v for v in column]


@pytest.mark.parametrize(
    ('verdict', 'correct', 'value'),
    [(True, True, 1), (False, False, 1), (True, False, 0), (None, False, 0), (None, True, 0)],
)
def test_discrimination_never_takes_a_garbled_critique_as_a_verdict(verdict, correct, value):
    facts = {'verdict': verdict, 'correct': correct}
    assert reward_of(rewards.CriticRewards, facts, terms=('verdict',)) == value
    assert reward_of(rewards.CriticRewards, facts, terms=('format',)) == (verdict is not None)


@pytest.mark.parametrize(
    ('verdict', 'by_answer', 'by_steps'), [(True, 1, 0), (False, 0, 1), (None, 0, 0)]
)
def test_a_right_answer_with_a_wrong_step_is_wrong_by_its_steps(verdict, by_answer, by_steps):
    facts = {'verdict': verdict, 'correct': True, 'steps_correct': False}
    for verdict_of, value in (('answer', by_answer), ('steps', by_steps)):
        weights = rewards.CriticRewards(
            **NO_CRITIC_REWARD | {'verdict': 2.0, 'verdict_of': verdict_of}
        )
        (terms,) = rewards.terms(weights, [judged_turn(facts)])
        assert terms == {'verdict': value} and rewards.total(weights, terms) == 2 * value


def test_location_is_the_exact_line_or_correctly_none():
    for located, first, verdict, value in (
        (2, 2, False, 1), (1, 2, False, 0), (None, None, True, 1), (None, None, None, 0),
    ):  # fmt: skip
        facts = {'located': located, 'first_error': first, 'verdict': verdict}
        assert reward_of(rewards.CriticRewards, facts, terms=('located',)) == value


def test_helpfulness_rewards_corrected_and_penalises_broken_refinements():
    assert rewards.helpfulness(False, [True, False]) == 0.5
    assert rewards.helpfulness(True, [False]) == -1
    assert rewards.helpfulness(True, [True]) == rewards.helpfulness(False, [False]) == 0
    assert reward_of(rewards.CriticRewards, {'helpful': -1.0}, terms=('helpful',)) == -1


def test_terms_of_weight_zero_are_not_computed():
    weights = rewards.ActorRewards(**NO_ACTOR_REWARD | {'correct': 2.0, 'format': -0.5})
    (values,) = rewards.terms(weights, [judged_turn({'correct': True, 'answer': '1'})])
    assert values == {'correct': 1.0, 'format': 1.0}
    assert rewards.total(weights, values) == 1.5


def test_a_critique_is_judged_by_the_facts_of_the_attempt():
    attempt = records.Turn('attempt', (6,), (5,), facts=records.TurnFacts(correct=False))
    critique = records.Turn('critique', (7,), (5,), facts=records.TurnFacts(verdict=False))
    weights = rewards.CriticRewards(**NO_CRITIC_REWARD | {'verdict': 1.0})
    for judged, value in ((attempt, 1.0), (attempt.with_facts(correct=True), 0.0)):
        turn = rewards.JudgedTurn(critique, judged, PROBLEM, 10, 4, str)
        assert rewards.terms(weights, [turn]) == [{'verdict': value}]


@pytest.mark.parametrize(
    'reply', [None, 1.0, 'a', [], [1.0, 2.0], [float('nan')], [[1.0]], ['x'], {0: 1.0}]
)
def test_a_reward_of_ones_own_that_is_no_number_for_each_turn_is_named(monkeypatch, reply):
    monkeypatch.setattr(rewards, 'REWARDS', slots.Slot('', {'mine': lambda turns: reply}))
    weights = rewards.ActorRewards(**NO_ACTOR_REWARD | {'functions': (('mine', 1.0),)})
    with pytest.raises(ValueError, match="the reward 'mine': .*returned .*each of the 1 turns"):
        rewards.terms(weights, [judged_turn({})])


def test_rewards_of_ones_own_may_be_unknown_and_share_no_name(monkeypatch):
    mine = {'mine': lambda turns: (None for _ in turns), 'correct': lambda turns: [1] * len(turns)}
    monkeypatch.setattr(rewards, 'REWARDS', slots.Slot('', mine))
    weights = rewards.ActorRewards(**NO_ACTOR_REWARD | {'functions': (('mine', -1.0),)})
    assert rewards.terms(weights, [judged_turn({})] * 2) == [{'mine': None}] * 2
    weights = rewards.ActorRewards(**NO_ACTOR_REWARD | {'functions': (('correct', 1.0),)})
    with pytest.raises(ValueError, match="rewards.functions has a second term 'correct'"):
        rewards.terms(weights, [judged_turn({})])
