"""Rollouts, credit assignment, refill, hints and the training batch, without a model."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.lab import task
from elenchus.train.rl import rollouts, update_batch
from tests.support import fake_engine
from tests.support.rollout_cases import (
    PROBLEMS,
    answer,
    assign_credit,
    batch_of,
    make_rules,
    make_setup,
)


def hopeless(role, request, seed):
    """Wrong without a hint, right with one."""
    solution = task.solve(fake_engine.TOKENIZER.decode(question_tokens(request)))
    guided = fake_engine.CHAT.header('guide')[0] in request.prompt
    return fake_engine.ids_of(solution if guided else '#### 0')


def question_tokens(request):
    ends = {fake_engine.CHAT.header(role)[0] for role in ('attempt', 'guide')}
    stop = next(i for i, token in enumerate(request.prompt) if token in ends)
    return list(request.prompt[1:stop])


# Credit


def test_an_actors_group_is_the_samples_of_one_problem():
    setup, engine = make_setup(answer)
    groups, tokens = rollouts.sample_actor_groups(setup, make_rules(), PROBLEMS[:3], seed=7)
    assert [len(group) for group in groups] == [4, 4, 4] and tokens == engine.tokens
    assert all(len({e.problem_id for e in group}) == 1 for group in groups)
    values = assign_credit(groups[0], make_rules())
    assert values.rewards == [1, 0, 1, 0] and not values.zero_variance
    assert [np.sign(turns[2][0]) for turns in values.advantages] == [1, -1, 1, -1]


def test_a_critics_group_is_the_critiques_of_one_attempt():
    setup, engine = make_setup(answer)
    rules = make_rules('critic')
    groups, tokens = rollouts.sample_critic_groups(setup, rules, PROBLEMS[:2], seed=7)
    assert tokens == engine.tokens and engine.num_requests('refinement') == 2 * 4 * 2
    for group in groups:
        assert len({e.attempt for e in group}) == 1 == len({e.attempt.facts.correct for e in group})
        assert all(e.turns[-1].role == 'critique' for e in group)
    # The attempt is right; of each critique's two refinements, the first is not.
    assert [e.critique.facts.helpful for e in groups[0]] == [-0.5] * 4
    values = assign_credit(groups[0], rules)
    assert values.rewards == [0.5] * 4 and values.zero_variance


def test_without_a_reward_for_helpfulness_no_refinement_is_sampled():
    setup, engine = make_setup(answer)
    rules = make_rules('critic', critic_rewards__helpful=0.0)
    rollouts.sample_critic_groups(setup, rules, PROBLEMS[:2], seed=7)
    assert engine.num_requests('refinement') == 0


def split_verdicts(role, request, seed):
    """Attempts that are right; critiques with odd ids say wrong; 1 of 4 refinements is right."""
    if role == 'critique':
        return fake_engine.ids_of(f'answer : {"wrong" if request.id % 2 else "correct"}')
    solution = task.solve(fake_engine.question_of(request))
    good = role == 'attempt' or request.id % 4 == 3
    return fake_engine.ids_of(solution if good else '#### 0 0')


def test_critiques_that_say_correct_are_not_refined_where_only_wrong_ones_are():
    """The same requests as with 'always', without those of critiques that say correct."""
    rules, requests, effects = make_rules('critic'), {}, {}
    for refine in ('always', 'wrong'):
        setup, engine = make_setup(split_verdicts, refine=refine)
        groups, tokens = rollouts.sample_critic_groups(setup, rules, PROBLEMS[:2], seed=7)
        assert tokens == engine.tokens
        requests[refine] = [r for role, r in engine.requests if role == 'refinement']
        effects[refine] = [e.critique.facts.helpful for group in groups for e in group]
    assert len(requests['always']) == 16 and len(requests['wrong']) == 8
    assert [r for r in requests['always'] if r.id // 2 % 2] == requests['wrong']
    # Ids 2 and 3 refine the second critique: one of them breaks the attempt, one does not.
    assert effects['always'] == [-1.0, -0.5] * 4
    assert effects['wrong'] == [0.0, -0.5] * 4


SCORE = {'turns__episode': 'correction', 'turns__progress': 10.0, 'advantage__outcome': 'dr_grpo'}


def test_score_rewards_progress_and_in_its_first_phase_only_refinements():
    """Attempts are right, wrong, right, wrong; refinements wrong, right, wrong, right."""
    setup, engine = make_setup(answer)
    rules = make_rules(**SCORE)
    (group,), tokens = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    assert tokens == engine.tokens
    assert [turn.role for turn in group[0].turns] == ['question', 'attempt', 'refinement']
    second = assign_credit(group, rules).advantages
    # Rewards r1 and r2 + 10 (r2 - r1), each minus its mean over the group.
    np.testing.assert_allclose([v[2][0] for v in second], [0.5, -0.5, 0.5, -0.5])
    np.testing.assert_allclose([v[3][0] for v in second], [-10.5, 10.5, -10.5, 10.5])
    first = assign_credit(group, rules, first_phase=True).advantages
    # E[r2] has the score function of both turns: r2 is the attempt's return, whatever the discount.
    assert rules.turns.discount == 0
    for number in (2, 3):
        np.testing.assert_allclose([v[number][0] for v in first], [-0.5, 0.5, -0.5, 0.5])


def test_a_discount_gives_attempts_a_share_of_later_rewards():
    setup, _ = make_setup(answer)
    rules = make_rules(**SCORE | {'turns__discount': 1.0})
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    values = assign_credit(group, rules).advantages
    np.testing.assert_allclose([v[2][0] for v in values], [-10, 10, -10, 10])


def test_feedback_inside_a_rollout_is_context_and_never_trained(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    setup, _ = make_setup(answer)
    rules = make_rules(turns__episode='critique')
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    assert [t.role for t in group[0].turns] == ['question', 'attempt', 'critique', 'refinement']
    layout = update_batch.RowLayout('actor', 400, 4, 0.0, mask_truncated=False)
    batch = update_batch.batch_without_weights(group, layout, fake_engine.CHAT)
    trained = {records.ROLES[role] for role in batch.roles[batch.loss_mask > 0]}
    assert trained == {'attempt', 'refinement'}


@pytest.mark.parametrize('steps', ['normalised', 'difference'])
def test_step_advantages_blame_the_wrong_line_and_no_earlier_one(monkeypatch, steps):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    setup, _ = make_setup(answer)
    rules = make_rules(
        advantage__step_coef=1.0, advantage__outcome_coef=0.0, advantage__steps=steps
    )
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    assert group[0].turns[-1].role == 'attempt' and group[0].turn('attempt').step_scores
    right, wrong, *_ = (v[2] for v in assign_credit(group, rules).advantages)
    assert len(right) == len(wrong) and wrong[-1] < 0
    if steps == 'difference':
        np.testing.assert_allclose(right[:-1], wrong[:-1])
        assert right[0] == pytest.approx(0.9 - 0.5)


# Refill


@hypothesis.given(
    st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 3)
)
def test_groups_of_zero_variance_are_replaced_as_long_as_rounds_and_problems_last(
    flat, num_groups, rounds
):
    hypothesis.assume(len(flat) >= num_groups)
    calls = []

    def sample(chosen, *, seed):
        calls.append((seed, list(chosen)))
        return [[i] for i in chosen], len(chosen)

    sampled = rollouts.sample_with_refill(
        sample,
        lambda group: flat[group[0]],
        range(len(flat)),
        num_groups=num_groups,
        seeds=range(rounds + 1),
    )
    drawn = [i for _, chosen in calls for i in chosen]
    assert drawn == list(range(len(drawn))) and [n for n, _ in calls] == list(range(len(calls)))
    assert len(sampled.groups) == num_groups
    assert sampled.num_sampled == sampled.tokens == len(drawn)
    assert sampled.num_zero_variance == sum(flat[i] for i in drawn)
    good = [i for i in drawn if not flat[i]][:num_groups]
    assert [g[0] for g in sampled.groups[: len(good)]] == good
    if rounds:
        assert sampled.num_informative == len(good)
        is_full = len(good) == num_groups
        assert is_full or len(calls) == rounds + 1 or len(drawn) == len(flat)
    else:
        assert sampled.num_informative == num_groups == len(drawn)


# Hints


def test_if_all_attempts_fail_they_are_repeated_with_a_hint_that_is_dropped():
    setup, engine = make_setup(hopeless)
    rules = make_rules(turns__hint_share=0.5)
    groups, tokens = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:2], seed=7)
    assert tokens == engine.tokens and len(engine.requests) == 2 * 2 * 4
    for episode in (e for group in groups for e in group):
        assert [turn.role for turn in episode.turns] == ['question', 'attempt']
        assert episode.attempt.facts.correct and episode.attempt.facts.hinted


def test_a_hint_is_the_beginning_of_the_solution():
    problem = dataclasses.replace(PROBLEMS[0], solution='a\nb\nc\nd\ne')
    assert rollouts.hint(problem, 0.5) == 'a\nb' and rollouts.hint(problem, 0.01) == 'a'
    for solution in ('#### 7', '#### 7\n', '#### 7\n \n'):
        assert rollouts.hint(dataclasses.replace(problem, solution=solution), 0.99) == ''


def two_groups():
    setup, _ = make_setup(answer)
    return rollouts.sample_actor_groups(setup, make_rules(), PROBLEMS[:2], seed=7)[0]


def test_dropped_groups_have_no_trained_token_and_rows_keep_their_shape():
    batch, metrics = batch_of(two_groups(), informative=1)
    assert batch.tokens.shape == (8, 160)
    assert batch.loss_mask[:4].any(axis=1).all() and not batch.loss_mask[4:].any()
    assert metrics['reward/groups_dropped'] == 0.5 and metrics['reward/correct'] == 0.5


def test_the_ratio_is_against_the_trainer_and_after_a_hint_against_the_sampler():
    """The sampler's log-probabilities are -1; with a hint, those of another context."""
    batch, metrics = batch_of(two_groups(), informative=2, hinted=(1,), cap=2.0)
    trained = batch.loss_mask > 0
    assert (batch.old_logprobs[:4][trained[:4]] == -2).all()
    assert (batch.old_logprobs[4:][trained[4:]] == -1).all()
    assert metrics['sampler/gap'] == metrics['sampler/gap_max'] == 1
    plain, _ = batch_of(two_groups(), informative=2)
    ratio = batch.weights[trained] / plain.weights[trained]
    expected = np.where(np.arange(8) < 4, np.exp(-1), 1)[:, None] * np.ones(batch.tokens.shape)
    np.testing.assert_allclose(ratio, expected[trained], rtol=1e-5)


def test_without_policy_log_probabilities_those_of_the_sampler_are_used():
    batch, metrics = batch_of(two_groups(), informative=2, policy=None)
    assert (batch.old_logprobs[batch.loss_mask > 0] == -1).all()
    assert not any(name.startswith('sampler/') for name in metrics)


def test_k1_is_subtracted_from_the_reward_of_the_turn_before_advantages():
    batch, _ = batch_of(two_groups(), informative=2, kl='k1')
    plain, _ = batch_of(two_groups(), informative=2)
    # Every token is equally far from the reference, so longer turns lose more.
    lengths = batch.loss_mask.sum(axis=1)
    at = np.argmax(batch.loss_mask > 0, axis=1)
    rewards_less = np.array([1, 0, 1, 0]) - 0.1 * lengths[:4]
    expected = (rewards_less - rewards_less.mean()) / (rewards_less.std() + 1e-4)
    np.testing.assert_allclose(batch.weights[np.arange(4), at[:4]], expected, rtol=1e-4)
    assert plain.weights[0, at[0]] == pytest.approx(1, rel=1e-3)
