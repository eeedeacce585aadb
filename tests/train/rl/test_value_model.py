"""Reinforcement with a value model: rewards of tokens, updates on a tiny model, resuming."""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.configs import lab
from elenchus.model import lora, placement, sharding
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import dry_run, programs
from elenchus.train.rl import credit, gae, rollouts, update_batch, value_model
from tests.support import fake_engine, rollout_cases, tiny_model
from tests.support.rollout_cases import PROBLEMS, answer, make_rules, make_setup
from tests.train.rl import test_trainer
from tests.train.rl.test_trainer import settings_of, tiny_models

GAE = {'advantage__outcome': 'gae', 'advantage__step_coef': 0.0}
SETTINGS = gae.ValueSettings(1.0, 1.0, whiten=False, clip=0.2, learning_rate=0.01)
SHARED = {
    name: functools.cache(getattr(value_model, name))
    for name in ('make_optimizer', 'make_train_step')
}


def run(*args, **options):
    with mock.patch.multiple(value_model, **SHARED):
        return test_trainer.run(*args, **options)


def groups_of(rules):
    setup, _ = make_setup(answer)
    return rollouts.sample_actor_groups(setup, rules, PROBLEMS[:2], seed=0)[0]


assign_credit = functools.partial(
    credit.assign_credit, first_phase=False, penalties=None, **rollout_cases.CREDIT
)


def scored(episode):
    """The episode with a score of each step of its attempt, the first unknown."""
    steps = [dataclasses.replace(s, score=0.3 * i) for i, s in enumerate(episode.attempt.steps)]
    steps[0] = dataclasses.replace(steps[0], score=None)
    attempt = dataclasses.replace(episode.attempt, steps=tuple(steps))
    turns = tuple(attempt if turn is episode.attempt else turn for turn in episode.turns)
    return dataclasses.replace(episode, turns=turns)


# Rewards


def test_a_turn_is_paid_at_its_last_step_and_a_step_by_its_score():
    steps = {'advantage__step_coef': 0.5, 'advantage__steps': 'score'}
    rules = make_rules(**GAE | steps, advantage__outcome_coef=2.0)
    for group in groups_of(make_rules(**GAE)):
        group = dataclasses.replace(group, episodes=tuple(map(scored, group)))
        values = assign_credit(group, rules)
        for episode, reward, turns in zip(group, values.rewards, values.advantages, strict=True):
            wanted = 0.15 * np.arange(len(episode.attempt.steps))  # an unknown score pays nothing
            wanted[-1] += 2.0 * reward
            np.testing.assert_allclose(turns[2], wanted, rtol=1e-6)


def test_groups_of_equal_rewards_are_counted_but_teach():
    rules = make_rules(**GAE)
    group = groups_of(rules)[0]
    assert not assign_credit(group, rules).zero_variance
    same = dataclasses.replace(group, episodes=(group[0],) * 4)
    values = assign_credit(same, rules)
    assert values.zero_variance and any(steps.any() for steps in values.advantages[0].values())


@pytest.mark.parametrize('kl', [None, 'k1'])
def test_advantages_follow_from_rewards_values_and_the_kl_of_each_token(kl):
    rules, known = make_rules(**GAE), {}

    def values_of(batch):
        known['values'] = np.random.default_rng(0).normal(size=batch.tokens.shape)
        return known['values'].astype(np.float32)

    chosen = rollout_cases.objective.GRPO
    if kl:
        chosen = dataclasses.replace(chosen, kl=kl, kl_coef=0.1)
    groups = groups_of(rules)
    result = update_batch.make_batch(
        rollouts.SampledGroups(groups, 2, 2, 0, 0),
        update_batch.RowLayout('actor', 160, 4, 0.0, False),
        fake_engine.CHAT,
        assign_credit=functools.partial(
            credit.assign_credit, rules=rules, first_phase=False, **rollout_cases.CREDIT
        ),
        objective=chosen,
        logprobs=update_batch.LogprobFunctions(
            lambda batch: np.full(batch.tokens.shape, -2.0, np.float32),
            lambda batch: np.full(batch.tokens.shape, -3.0, np.float32),
        ),
        values=update_batch.Values(SETTINGS, values_of, 0.0),
    )
    rewards = [reward for group in groups for reward in assign_credit(group, rules).rewards]
    assert len(set(rewards)) > 1
    errors, returns = [], []
    for row in range(len(rewards)):
        tokens = np.flatnonzero(result.policy.loss_mask[row])
        later = np.arange(len(tokens), 0, -1)  # this token and those after it
        to_go = rewards[row] - (0.1 * later if kl else 0.0 * later)
        values = known['values'][row, tokens]
        np.testing.assert_allclose(result.policy.weights[row, tokens], to_go - values, atol=1e-4)
        np.testing.assert_allclose(result.values.weights[row, tokens], to_go, atol=1e-4)
        np.testing.assert_allclose(result.values.old_logprobs[row, tokens], values, atol=1e-6)
        errors += [*(to_go - values)]
        returns += [*to_go]
    np.testing.assert_array_equal(result.policy.loss_mask, result.values.loss_mask)
    explained = 1 - np.var(errors) / np.var(returns)
    assert result.metrics['value/explained_variance'] == pytest.approx(explained, rel=1e-3)
    assert result.metrics['value/return'] == pytest.approx(np.mean(returns), abs=1e-5)


# Training


@pytest.mark.slow
def test_on_a_mesh_its_state_lies_where_it_is_named_and_an_update_is_that_of_one_device():
    settings, batch, results = settings_of(**GAE), tiny_model.random_batch(0), []
    for mesh in (tiny_model.one_device(), sharding.make_mesh((2, 2, 2))):
        with jax.set_mesh(mesh):
            player = placement.current().place(tiny_model.make_model(test_trainer.CONFIG))
            training = value_model.make_training(
                settings, 'actor', player, shared=None, loop_settings=test_trainer.LOOP
            )
            state = value_model.initial_state(training)
            heads = [x for x in jax.tree.leaves(state) if x.shape == state.model.head.shape]
            assert len(heads) == 3  # the head and its moments
            assert all(x.sharding.spec == P('fsdp', None) for x in heads)
            state, metrics, _ = value_model.update(training, state, [batch])
            results.append((value_model.values_of(training, state, batch), metrics['value/loss']))
    assert results[0][0].any()
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """An actor with a value model; the same, stopped and resumed after each iteration."""
    changes = GAE | {'num_minibatches': 2, 'samples_per_row': 2, 'value__learning_rate': 0.01}
    changes |= {'turns__episode': 'correction', 'turns__discount': 0.5}
    whole, parted = tmp_path_factory.mktemp('whole'), tmp_path_factory.mktemp('parted')
    for budget in (1, 2):
        run(parted, ('actor',), **changes, token_budget=budget)
    return [run(folder, ('actor',), **changes) for folder in (whole, parted)]


@pytest.mark.slow
def test_the_value_model_learns_beside_the_player_and_is_no_part_of_it(both):
    (models, totals, rows), _ = both
    assert totals['updates'] == {'actor': 6, 'actor_value': 6}
    initial = tiny_models().actor
    assert jax.tree.structure(models['actor']) == jax.tree.structure(initial)
    assert rows[0]['value/mean'] == 0.0 != rows[1]['value/mean']  # the head begins at zero
    assert rows[0]['value/gradient'] > 0 and rows[-1]['value/loss'] < rows[0]['value/loss']
    for row in rows:
        assert row['advantage/mean'] == pytest.approx(0, abs=1e-5)
        assert row['advantage/std'] == pytest.approx(1, abs=0.01)
        assert row['value/explained_variance'] <= 1 and 0 <= row['value/clipped'] <= 1


@pytest.mark.slow
def test_a_run_that_was_stopped_continues_bit_for_bit(both):
    (models, totals, rows), (again, totals_again, rows_again) = both
    assert rows == rows_again and totals == totals_again
    jax.tree.map(np.testing.assert_array_equal, models, again)


def test_without_the_setting_there_is_no_value_model(tmp_path):
    with mock.patch.object(value_model, 'make_training', side_effect=AssertionError):
        _, totals, rows = run(tmp_path, ('actor',), num_steps=1, advantage__step_coef=0.0)
    assert set(totals['updates']) == {'actor'}
    assert not any(name.startswith('value/') for name in rows[0])


@pytest.mark.slow
def test_both_players_and_adapters_have_value_models_and_one_sample_is_enough(tmp_path):
    adaptation = lora.Adaptation(lora.LoraSettings(2, 4.0, ('query', 'down')), '', '', 'none')
    adapters = lora.init_adapters(test_trainer.CONFIG, adaptation, jax.random.key(0))
    initial = dataclasses.replace(tiny_models(), actor=lora.attach(tiny_models().actor, adapters))
    changes = GAE | {'num_samples': 1, 'num_problems': 8, 'num_steps': 3}
    changes |= {'objective__kl': 'k1', 'objective__kl_coef': 0.05, 'value__learning_rate': 0.01}
    players = ('actor', 'critic')
    models, totals, rows = run(tmp_path / 'whole', players, initial=initial, **changes)
    assert set(totals['updates']) == {'actor', 'critic', 'actor_value', 'critic_value'}
    trained, base = lora.split(models['actor'])
    assert type(trained) is lora.Adapters
    jax.tree.map(np.testing.assert_array_equal, base, tiny_models().actor)
    for player in players:
        assert rows[-1][f'value/{player}/mean'] != 0
    run(tmp_path / 'parted', players, initial=initial, **changes, token_budget=1)
    again = run(tmp_path / 'parted', players, initial=initial, **changes)
    assert again[1:] == (totals, rows)
    jax.tree.map(np.testing.assert_array_equal, models, again[0])


# Settings


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'advantage__outcome': 'gae'}, r"steps='normalised' compares .*; nearest: 'score'"),
        (GAE | {'refill_rounds': 1}, r'refill_rounds=1 replaces groups .*; nearest: 0'),
        (GAE | {'replay_groups': 4}, r'replay_groups=4 replaces groups .*; nearest: 0'),
        (GAE | {'value__gamma': 1.5}, r'value\.gamma=1\.5 must be at most 1\.0; nearest: 1\.0'),
        (GAE | {'value__gae_lambda': -1.0}, r'value\.gae_lambda=-1\.0 must be at least 0'),
        (GAE | {'value__clip': -1.0}, r'value\.clip=-1\.0 must be at least 0'),
        (GAE | {'value__learning_rate': 0.0}, r'value\.learning_rate=0\.0 must be at least'),
    ],
)
def test_what_a_value_model_cannot_use_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        settings_of(**changes)
    assert '\n' not in str(error.value)


def test_a_plan_has_the_value_models_and_their_programs():
    config = lab.get_config('smoke')
    config.stages = (*config.stages[:4], 'reinforce', 'reinforce_both')
    without = dry_run.plan_of(build.build(RunSettings, config)).trainings
    config.reinforce.advantage.update(outcome='gae', step_coef=0.0)
    plan = dry_run.plan_of(build.build(RunSettings, config))
    added = [load for load in plan.trainings if load.name not in {o.name for o in without}]
    assert [load.name for load in added] == ['reinforce: values', 'reinforce_both: values']
    assert all(load.logprobs and load.objective.surrogate == 'value' for load in added)
    others = [{load.name: load.others for load in loads} for loads in (without, plan.trainings)]
    for stage, players in (('reinforce', 1), ('reinforce_both', 2)):
        assert others[1][stage] == others[0][stage] + 3 * players
    state, frozen = dry_run.abstract_state(plan, added[0])
    assert frozen is None and state.model.head.shape == (plan.model.embed_dim, 1)
    calls = {}

    def call(name, function, *args):
        calls[name] = jax.eval_shape(function, *args)
        return calls[name]

    mesh = tiny_model.one_device()
    with jax.set_mesh(mesh):
        programs.call_training(plan, added[0], call, mesh=mesh)
    state, step, values = calls.values()
    assert state.model.head.shape == (plan.model.embed_dim, 1)
    assert 'value/clipped' in step[1] and values.shape == (added[0].rows, added[0].length)
