"""Groups, their values, and the batch they become, without a model."""

import dataclasses
import functools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.lab import task
from elenchus.sampling.engine import sampling_methods
from elenchus.train import objective
from elenchus.train.config import build
from elenchus.train.rl import rewards, rollouts, update_batch
from tests.support import fake_engine

METHOD = sampling_methods.Sampling(1.0, 0, 1.0, 0.0, banned=())
PROBLEMS = [task.generate_problem(seed=0, split='train', index=index) for index in range(0, 30, 5)]


def rules(player='actor', **changes):
    config = lab_config.get_config('smoke').reinforce
    config.advantage.step_coef = 0.0
    changes = {name.replace('__', '.'): value for name, value in changes.items()}
    config.update_from_flattened_dict(changes)
    kind = rewards.ActorRewards if player == 'actor' else rewards.CriticRewards
    section = config.rewards if player == 'actor' else config.critic_rewards
    return rollouts.Rules(
        player,
        build.build(kind, section),
        build.build(rollouts.AdvantageSettings, config.advantage),
        build.build(rollouts.TurnSettings, config.turns),
        config.overlong_tokens,
    )


def table(rule, *, num_samples=4, num_refinements=2):
    engine = fake_engine.Ruled(rule)
    players = fake_engine.players(engine)
    made = rollouts.Table(players, fake_engine.SCORER, METHOD, num_samples, num_refinements)
    return made, engine


def answer(role, request, seed):
    """Right and wrong attempts in turn; critiques that are right; right refinements of odd ids."""
    solution = task.solve(fake_engine.question_of(request))
    if role == 'critique':
        return fake_engine.critique(request)
    good = request.id % 2 == (0 if role == 'attempt' else 1)
    return fake_engine.ids_of(
        solution if good else solution[:-1] + str((int(solution[-1]) + 1) % 10)
    )


def hopeless(role, request, seed):
    """Wrong without a hint, right after one."""
    solution = task.solve(fake_engine.TOKENIZER.decode(question_tokens(request)))
    guided = fake_engine.CHAT.header('guide')[0] in request.prompt
    return fake_engine.ids_of(solution if guided else '#### 0')


def question_tokens(request):
    ends = {fake_engine.CHAT.header(role)[0] for role in ('attempt', 'guide')}
    stop = next(i for i, token in enumerate(request.prompt) if token in ends)
    return list(request.prompt[1:stop])


valued = functools.partial(
    rollouts.value, limits=fake_engine.LIMITS, first_phase=False, penalties=None
)


# Values


def test_an_actors_group_is_the_samples_of_one_problem():
    made, engine = table(answer)
    groups, tokens = rollouts.actor_groups(made, rules(), PROBLEMS[:3], 7)
    assert [len(group) for group in groups] == [4, 4, 4] and tokens == engine.tokens()
    assert all(len({e.problem_id for e in group}) == 1 for group in groups)
    found = valued(groups[0], rules())
    assert found.rewards == [1, 0, 1, 0] and not found.flat
    assert [np.sign(values[2][0]) for values in found.values] == [1, -1, 1, -1]


def test_a_critics_group_is_the_critiques_of_one_attempt():
    made, engine = table(answer)
    asked = rules('critic')
    groups, tokens = rollouts.critic_groups(made, asked, PROBLEMS[:2], 7)
    assert tokens == engine.tokens() and engine.calls('refinement') == 2 * 4 * 2
    for group in groups:
        assert (
            len({e.turn('attempt') for e in group})
            == 1
            == len({e.outcome['correct'] for e in group})
        )
        assert all(e.turns[-1].role == 'critique' for e in group)
    # The attempt is right; of each critique's two refinements, the first is not.
    assert [e.outcome['helpful'] for e in groups[0]] == [-0.5] * 4
    assert valued(groups[0], asked).rewards == [0.5] * 4 and valued(groups[0], asked).flat


def test_a_critic_that_is_only_to_discriminate_asks_for_no_refinement():
    made, engine = table(answer)
    rollouts.critic_groups(made, rules('critic', critic_rewards__helpful=0.0), PROBLEMS[:2], 7)
    assert engine.calls('refinement') == 0


SCORE = {'turns__episode': 'correction', 'turns__progress': 10.0, 'advantage__outcome': 'dr_grpo'}


def test_score_pays_progress_and_in_its_first_phase_refinements_alone():
    """Attempts are right, wrong, right, wrong; refinements wrong, right, wrong, right."""
    made, engine = table(answer)
    asked = rules(**SCORE)
    (group,), tokens = rollouts.actor_groups(made, asked, PROBLEMS[:1], 7)
    assert tokens == engine.tokens()
    assert [turn.role for turn in group[0].turns] == ['question', 'attempt', 'refinement']
    second = valued(group, asked).values
    # Rewards r1 and r2 + 10 (r2 - r1), each less its mean over the group.
    np.testing.assert_allclose([v[2][0] for v in second], [0.5, -0.5, 0.5, -0.5])
    np.testing.assert_allclose([v[3][0] for v in second], [-10.5, 10.5, -10.5, 10.5])
    first = valued(group, asked, first_phase=True).values
    assert not any(v[2].any() for v in first)
    np.testing.assert_allclose([v[3][0] for v in first], [-0.5, 0.5, -0.5, 0.5])


def test_a_discount_lets_attempts_share_in_what_follows():
    made, _ = table(answer)
    asked = rules(**SCORE | {'turns__discount': 1.0})
    (group,), _ = rollouts.actor_groups(made, asked, PROBLEMS[:1], 7)
    found = valued(group, asked).values
    np.testing.assert_allclose([v[2][0] for v in found], [-10, 10, -10, 10])


def test_feedback_inside_a_rollout_is_context_and_never_trained(monkeypatch):
    monkeypatch.setattr('sampling.steps.step_rewards', fake_engine.step_rewards)
    made, _ = table(answer)
    (group,), _ = rollouts.actor_groups(made, rules(turns__episode='critique'), PROBLEMS[:1], 7)
    assert [t.role for t in group[0].turns] == ['question', 'attempt', 'critique', 'refinement']
    shape = update_batch.Shape('actor', 400, 4, 0.0)
    batch = update_batch.blank_batch(group, shape, fake_engine.CHAT)
    trained = {records.ROLES[role] for role in batch.roles[batch.loss_mask > 0]}
    assert trained == {'attempt', 'refinement'}


@pytest.mark.parametrize('steps', ['normalised', 'difference'])
def test_step_advantages_blame_the_wrong_line_and_no_earlier_one(monkeypatch, steps):
    monkeypatch.setattr('sampling.steps.step_rewards', fake_engine.step_rewards)
    made, _ = table(answer)
    asked = rules(advantage__step_coef=1.0, advantage__outcome_coef=0.0, advantage__steps=steps)
    (group,), _ = rollouts.actor_groups(made, asked, PROBLEMS[:1], 7)
    assert group[0].turns[-1].role == 'attempt' and group[0].turn('attempt').step_scores
    right, wrong, *_ = (v[2] for v in valued(group, asked).values)
    assert len(right) == len(wrong) and wrong[-1] < 0
    if steps == 'difference':
        np.testing.assert_allclose(right[:-1], wrong[:-1])
        assert right[0] == pytest.approx(0.9 - 0.5)


# Refill


@hypothesis.given(
    st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 3)
)
def test_groups_without_variance_are_replaced_as_long_as_rounds_and_problems_last(
    flat, num_groups, rounds
):
    hypothesis.assume(len(flat) >= num_groups)
    asked = []

    def sample(chosen, number):
        asked.append((number, list(chosen)))
        return [[i] for i in chosen], len(chosen)

    found = rollouts.filled(
        sample,
        lambda group: flat[group[0]],
        range(len(flat)),
        num_groups=num_groups,
        num_rounds=rounds,
    )
    drawn = [i for _, chosen in asked for i in chosen]
    assert drawn == list(range(len(drawn))) and [n for n, _ in asked] == list(range(len(asked)))
    assert len(found.groups) == num_groups and found.num_sampled == found.tokens == len(drawn)
    assert found.num_flat == sum(flat[i] for i in drawn)
    good = [i for i in drawn if not flat[i]][:num_groups]
    assert [g[0] for g in found.groups[: len(good)]] == good
    if rounds:
        assert found.num_informative == len(good)
        enough = len(good) == num_groups or len(asked) == rounds + 1 or len(drawn) == len(flat)
        assert enough
    else:
        assert found.num_informative == num_groups == len(drawn)


# Hints


def test_where_all_attempts_failed_a_hint_is_given_and_forgotten():
    made, engine = table(hopeless)
    asked = rules(turns__hint_share=0.5)
    groups, tokens = rollouts.actor_groups(made, asked, PROBLEMS[:2], 7)
    assert tokens == engine.tokens() and len(engine.asked) == 2 * 2 * 4
    for episode in (e for group in groups for e in group):
        assert [turn.role for turn in episode.turns] == ['question', 'attempt']
        assert episode.outcome['correct'] and episode.outcome['hinted']


def test_a_hint_is_the_beginning_of_the_solution():
    problem = dataclasses.replace(PROBLEMS[0], solution='a\nb\nc\nd\ne')
    assert rollouts.hint(problem, 0.5) == 'a\nb' and rollouts.hint(problem, 0.01) == 'a'


def batch_of(groups, *, informative, cap=0.0, kl=None, hinted=(), policy=-2.0):
    """(batch, metrics): the trainer's log-probabilities are `policy`, the reference's -3."""
    for i, group in enumerate(groups):
        groups[i] = [
            dataclasses.replace(e, outcome=e.outcome | {'hinted': i in hinted}) for e in group
        ]
    chosen = objective.GRPO
    if kl:
        chosen = dataclasses.replace(chosen, kl=kl, kl_coef=0.1)
    found = rollouts.Filled(groups, informative, len(groups), 0, 0)
    return update_batch.make_batch(
        found,
        update_batch.Shape('actor', 160, 4, cap),
        fake_engine.CHAT,
        value=functools.partial(
            rollouts.value, rules=rules(), limits=fake_engine.LIMITS, first_phase=False
        ),
        objective=chosen,
        logprobs=update_batch.LogProbs(
            policy and (lambda batch: np.full(batch.tokens.shape, policy, np.float32)),
            lambda batch: np.full(batch.tokens.shape, -3.0, np.float32),
        ),
    )


def two_groups():
    return rollouts.actor_groups(table(answer)[0], rules(), PROBLEMS[:2], 7)[0]


def test_dropped_groups_have_no_trained_token_and_rows_keep_their_shape():
    batch, told = batch_of(two_groups(), informative=1)
    assert batch.tokens.shape == (8, 160)
    assert batch.loss_mask[:4].any(axis=1).all() and not batch.loss_mask[4:].any()
    assert told['reward/groups_dropped'] == 0.5 and told['reward/correct'] == 0.5


def test_the_ratio_is_against_the_trainer_and_after_a_hint_against_the_sampler():
    """The sampler's log-probabilities are -1, in another context where a hint was given."""
    batch, told = batch_of(two_groups(), informative=2, hinted=(1,), cap=2.0)
    trained = batch.loss_mask > 0
    assert (batch.old_logprobs[:4][trained[:4]] == -2).all()
    assert (batch.old_logprobs[4:][trained[4:]] == -1).all()
    assert told['sampler/gap'] == told['sampler/gap_max'] == 1
    plain, _ = batch_of(two_groups(), informative=2)
    ratio = batch.weights[trained] / plain.weights[trained]
    expected = np.where(np.arange(8) < 4, np.exp(-1), 1)[:, None] * np.ones(batch.tokens.shape)
    np.testing.assert_allclose(ratio, expected[trained], rtol=1e-5)


def test_without_the_policys_the_samplers_log_probabilities_stay():
    batch, told = batch_of(two_groups(), informative=2, policy=None)
    assert (batch.old_logprobs[batch.loss_mask > 0] == -1).all()
    assert not any(name.startswith('sampler/') for name in told)


def test_k1_is_taken_from_the_reward_of_the_turn_before_advantages():
    batch, _ = batch_of(two_groups(), informative=2, kl='k1')
    plain, _ = batch_of(two_groups(), informative=2)
    # All turns are equally far from the reference a token, so the longer lose more.
    lengths = batch.loss_mask.sum(axis=1)
    at = np.argmax(batch.loss_mask > 0, axis=1)
    rewards_less = np.array([1, 0, 1, 0]) - 0.1 * lengths[:4]
    expected = (rewards_less - rewards_less.mean()) / (rewards_less.std() + 1e-4)
    np.testing.assert_allclose(batch.weights[np.arange(4), at[:4]], expected, rtol=1e-4)
    assert plain.weights[0, at[0]] == pytest.approx(1, rel=1e-3)
