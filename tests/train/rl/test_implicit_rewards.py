"""Implicit rewards: a copy of the actor learns from outcomes; its log-ratio scores the steps."""

import dataclasses
import math
import types

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.loop import init_train_state
from elenchus.train.optimizer import make_optimizer
from elenchus.train.planning import dry_run
from elenchus.train.rl import implicit_rewards, rollouts, update_batch
from tests.support import fake_engine, tiny_model
from tests.support.rollout_cases import PROBLEMS, answer, make_rules, make_setup
from tests.train.rl.test_trainer import LOOP, run, settings_of, tiny_models

BETA = 0.5


def groups_of(**changes):
    setup, _ = make_setup(answer)
    groups, _ = rollouts.sample_actor_groups(setup, make_rules(**changes), PROBLEMS[:2], seed=0)
    return groups


def training_of(ratio, *, num_minibatches=1, steps=None):
    """A training whose model has log-probability `ratio(batch)` and whose reference has 0."""

    def logprobs(model, batch):
        return ratio(batch) if model == 'phi' else np.zeros(batch.tokens.shape, np.float32)

    def train_step(state, batch, frozen):
        steps.append(jax.device_get(batch))
        names = ('total', 'preferred', 'margin', 'tokens')
        return state + 1, {f'loss/{name}': np.float32(1) for name in names}

    settings = types.SimpleNamespace(
        implicit=types.SimpleNamespace(beta=BETA),
        num_samples=4,
        num_minibatches=num_minibatches,
        rows=8,
        samples_per_row=1,
    )
    layout = update_batch.RowLayout('actor', 160, 4, 0.0, False)
    return implicit_rewards.ImplicitTraining(
        *(settings, layout, fake_engine.CHAT, 'reference', None, None, logprobs, None, train_step)
    )


@pytest.mark.parametrize('episode', ['attempt', 'correction'])
def test_the_score_of_a_step_is_the_scaled_ratio_of_its_tokens(episode):
    groups = groups_of(turns__episode=episode)
    training = training_of(lambda batch: batch.tokens.astype(np.float32))  # a token's ratio: its id
    scored = implicit_rewards.score_groups(training, 'phi', groups)
    for group, before in zip(scored, groups, strict=True):
        assert group.problem is before.problem and len(group) == len(before)
        for new, old in zip(group, before, strict=True):
            starts = (0, *old.attempt.step_ends)
            expected = [
                BETA * sum(old.attempt.tokens[start:end])
                for start, end in zip(starts, old.attempt.step_ends, strict=False)
            ]
            assert new.attempt.step_scores == pytest.approx(expected)
            assert new.attempt.step_ends == old.attempt.step_ends
            # All else is as it was, the refinement too.
            same = dataclasses.replace(new.attempt, steps=old.attempt.steps)
            assert same == old.attempt
            assert [t for t in new.turns if t.role != 'attempt'] == [
                t for t in old.turns if t.role != 'attempt'
            ]


def test_it_learns_the_outcome_of_every_attempt_and_of_nothing_else():
    groups, steps = groups_of(turns__episode='correction'), []
    training = training_of(lambda batch: 0 * batch.weights, num_minibatches=2, steps=steps)
    sampled = rollouts.SampledGroups(groups, 1, 2, 1, 0)
    state, metrics, updates = implicit_rewards.update(training, 0, sampled)
    assert state == len(updates) == 2 and set(metrics) == {
        *('implicit/loss', 'implicit/accuracy', 'implicit/margin')
    }
    batch = records.Batch(*(np.concatenate(values) for values in zip(*steps, strict=True)))
    attempt = records.ROLES.index('attempt')
    episodes = [episode for group in groups for episode in group]
    for row, episode in enumerate(episodes):
        trained = batch.loss_mask[row] > 0
        is_filler = row >= 4  # of the second group, which only fills the batch
        assert trained.sum() == (0 if is_filler else len(episode.attempt.tokens))
        assert (batch.roles[row][trained] == attempt).all()
        sign = 1.0 if episode.attempt.facts.correct else -1.0
        assert (batch.weights[row] == sign * trained).all()
    assert {episode.attempt.facts.correct for episode in episodes} == {True, False}


@pytest.mark.slow
def test_scores_begin_at_zero_and_outcomes_are_learnt():
    settings = settings_of(implicit__beta=BETA, advantage__step_coef=1.0)
    reference, groups = tiny_models().actor, groups_of()
    sampled = rollouts.SampledGroups(groups, 2, 2, 0, 0)
    with jax.set_mesh(tiny_model.one_device()):
        training = implicit_rewards.make_training(
            settings,
            fake_engine.CHAT,
            reference,
            shared=None,
            loop=LOOP,
            optimizer=make_optimizer(settings.implicit_optimizer, num_steps=5),
        )
        scored = implicit_rewards.score_groups(training, reference, groups)
        scores = [s for group in scored for e in group for s in e.attempt.step_scores]
        np.testing.assert_allclose(scores, 0.0, atol=1e-5)
        state, losses = init_train_state(reference, training.optimizer), []
        for _ in range(5):
            state, metrics, _ = implicit_rewards.update(training, state, sampled)
            losses.append(float(metrics['implicit/loss']))
        assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses == sorted(losses)[::-1]
        scored = implicit_rewards.score_groups(training, state.model, groups)
    sums = [(sum(e.attempt.step_scores), e.attempt.facts.correct) for g in scored for e in g]
    right = [total for total, correct in sums if correct]
    wrong = [total for total, correct in sums if not correct]
    assert np.mean(right) > 0 > np.mean(wrong)


@pytest.mark.slow
def test_the_first_iteration_is_that_without_scores_and_later_ones_are_not(tmp_path):
    changes = {'advantage__step_coef': 1.0, 'implicit__beta': BETA, 'num_steps': 2}
    _, totals, rows = run(tmp_path / 'on', ('actor',), **changes)
    assert totals['updates'] == {'actor': 2, 'implicit': 2}
    _, _, plain = run(tmp_path / 'off', ('actor',), advantage__step_coef=0.0, num_steps=2)
    for name in ('advantage/std', 'reward/mean', 'loss/total', 'sampled/tokens'):
        assert rows[0][name] == plain[0][name], name
    assert rows[1]['advantage/std'] != plain[1]['advantage/std']
    assert not any(name.startswith('implicit') for name in plain[1])


@pytest.mark.slow
def test_a_stopped_run_continues_bit_for_bit(tmp_path):
    changes = {'advantage__step_coef': 1.0, 'implicit__beta': BETA, 'samples_per_row': 2}
    changes |= {'num_minibatches': 2, 'refill_rounds': 1}
    whole = run(tmp_path / 'whole', ('actor', 'critic'), **changes)
    run(tmp_path / 'parted', ('actor', 'critic'), **changes, token_budget=1)
    parted = run(tmp_path / 'parted', ('actor', 'critic'), **changes)
    assert whole[1:] == parted[1:] and whole[1]['updates']['implicit'] == 6
    jax.tree.map(np.testing.assert_array_equal, whole[0], parted[0])


@pytest.mark.parametrize(
    'changes',
    [
        {'implicit.beta': 0.1, 'advantage.step_coef': 0.0},
        {'implicit.beta': 0.1, 'rewards.steps': 0.5},
        {'implicit.beta': 0.1, 'rewards.verdict': 0.5},
    ],
)
def test_two_scores_of_a_step_are_refused_in_one_line(changes):
    config = lab.get_config('default').reinforce
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=r'reinforce\.implicit\.beta=0\.1') as error:
        build.build(implicit_rewards.ReinforceSettings, config)
    assert '\n' not in str(error.value)


def test_a_plan_has_the_copy_and_its_passes():
    config = lab.get_config('smoke')
    config.stages = (*config.stages[:4], 'reinforce', 'reinforce_critic')
    without = dry_run.plan_of(build.build(RunSettings, config)).trainings
    config.reinforce.implicit.beta = 0.1
    plan = dry_run.plan_of(build.build(RunSettings, config)).trainings
    added = [load for load in plan if load.name not in {other.name for other in without}]
    assert [load.name for load in added] == ['reinforce: implicit scores']
    assert added[0].logprobs and added[0].objective.surrogate == 'outcome'
    others = [{load.name: load.others for load in loads} for loads in (without, plan)]
    assert others[1]['reinforce'] == others[0]['reinforce'] + 3
    assert others[1]['reinforce_critic'] == others[0]['reinforce_critic']
