"""Reinforcement learning end to end on a tiny model: both players, KL, minibatches, resuming."""

import dataclasses
import functools
from unittest import mock

import jax
import numpy as np
import pytest

from elenchus.configs import lab as lab_config
from elenchus.data.critiques import grammars
from elenchus.data.lab import forms
from elenchus.model import lora, sharding
from elenchus.sampling import episodes, step_scores
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.model_pair import ModelPair
from elenchus.train.config import build
from elenchus.train.loop import LoopSettings
from elenchus.train.metrics import writers
from elenchus.train.rl import iterations, rollouts, settings, trainer, update_batch
from tests.support import fake_engine, rollout_cases, tiny_model

CONFIG = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=96)
WORDS = range(10, fake_engine.TOKENIZER.vocab_size)
BANNED = tuple(i for i in range(CONFIG.vocab_size) if i not in (*WORDS, fake_engine.EOS))
METHOD = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, BANNED)
LIMITS = {'attempt': 8, 'critique': 8, 'refinement': 8}
LOOP = LoopSettings(
    rows=8,
    length=96,
    num_microbatches=1,
    log_every=1,
    checkpoint_every=1,
    keep_checkpoints=1,
    keep_finished_checkpoints=0,
    nonfinite='stop',
    compare_hosts_every=0,
)
ENGINE = engine.EngineSettings(
    num_slots=8,
    max_length=96,
    chunk_steps=8,
    prompt_buckets=(88,),
    prefill_batch_sizes=(8,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)
SCORER = step_scores.StepScorer(
    step_scores.ScoreShapes(8, (96,)), {'correct_id': 10, 'wrong_id': 11}
)
MAKERS = (trainer.make_optimizer, trainer.make_train_step)
SHARED = {function.__name__: functools.cache(function) for function in MAKERS}
"""Runs with the same settings share their compiled steps."""
PROBLEMS = [forms.generate_problem(seed=0, split='train', index=index) for index in range(0, 40, 5)]
UNTRAINED = (PROBLEMS, *[None] * 6, 1)
"""What a PlayerTraining has between its setup and its seed, without weights and functions."""


def settings_of(**changes):
    config = lab_config.get_config('smoke').reinforce
    config.update_from_flattened_dict(
        {
            'num_steps': 3,
            'num_problems': 2,
            'num_samples': 4,
            'length': 96,
            'critic_length': 96,
            'samples_per_row': 1,
            'checkpoint_every': 1,
            'overlong_tokens': 8,
            'rewards.length': 1.0,
            'critic_rewards.length': 1.0,
            'optimizer.name': 'adamw',
            'optimizer.learning_rate': 0.01,
            **{name.replace('__', '.'): value for name, value in changes.items()},
        }
    )
    return build.build(settings.ReinforceSettings, config)


@functools.cache
def tiny_models():
    """The bundle of sampler, actor and critic."""
    sampler = episodes.Sampler(
        engine.Engine(ENGINE, stop_ids=(fake_engine.EOS,)), fake_engine.CHAT, LIMITS
    )
    with jax.set_mesh(tiny_model.one_device()):  # the first to call this may be on another
        actor, critic = (tiny_model.make_model(CONFIG, seed) for seed in (1, 2))
    return ModelPair(sampler, actor, critic, fake_engine.judge, grammars.LAB)


def run(folder, trained, *, initial=None, teacher_model=None, **changes):
    """Trains from `initial` models; returns (models, totals, rows of metrics)."""
    writer = writers.Writer(folder, tensorboard=folder / 'board')
    with jax.set_mesh(tiny_model.one_device()), writer, mock.patch.multiple(trainer, **SHARED):
        models, totals = trainer.reinforce(
            initial or tiny_models(),
            PROBLEMS,
            trained=trained,
            settings=settings_of(**changes),
            loop=LOOP,
            scorer=SCORER,
            method=METHOD,
            folder=folder,
            writer=writer,
            seed=3,
            teacher=teacher_model,
        )
    return models, totals, writers.read_rows(folder / writers.METRICS)


PLAIN = {'advantage__step_coef': 0.0}
BOTH = {
    'turns__episode': 'correction',
    'turns__progress': 10.0,
    'turns__first_phase_steps': 1,
    'turns__attempt_kl_coef': 0.1,
    'objective__kl': 'k3',
    'objective__kl_coef': 0.05,
    'num_minibatches': 2,
    'samples_per_row': 2,
    'importance_cap': 2.0,
    'refill_rounds': 1,
}


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """Actor (as in SCoRe) and critic alternating; the same, stopped and resumed after a step."""
    whole, parted = tmp_path_factory.mktemp('whole'), tmp_path_factory.mktemp('parted')
    _, totals, rows = run(parted, ('actor', 'critic'), **BOTH, token_budget=1)
    assert (len(rows), totals['updates']) == (1, {'actor': 2, 'critic': 2})
    results = [run(folder, ('actor', 'critic'), **BOTH) for folder in (whole, parted)]
    assert len(rollout_cases.stored_values(whole) & rollout_cases.stored_values(parted)) == 6
    return results


@pytest.mark.slow
def test_both_players_learn_in_alternation_from_one_checkpoint(both):
    (models, totals, rows), _ = both
    assert totals['updates'] == {'actor': 6, 'critic': 6}
    assert totals['tokens_sampled'] == rows[-1]['sampled/tokens'] > 0
    assert totals['tokens_trained'] > 0 and totals['tokens_padding'] > 0
    for player, model in models.items():
        before = jax.tree.leaves(getattr(tiny_models(), player))
        changed = [np.any(x != y) for x, y in zip(before, jax.tree.leaves(model), strict=True)]
        assert all(changed), player


def test_a_run_that_was_stopped_continues_bit_for_bit(both):
    (models, totals, rows), (again, totals_again, rows_again) = both
    assert rows == rows_again and totals == totals_again
    jax.tree.map(np.testing.assert_array_equal, models, again)


def test_the_reference_stays_as_the_player_was_while_the_player_moves(both):
    """With the newest player as reference the KL of every first update would be 0."""
    (_, _, rows), _ = both
    for player in ('actor', 'critic'):
        kl = [row[f'loss/{player}/kl'] for row in rows]
        assert len(kl) == 3 and all(1e-4 < value < 10 for value in kl)


def test_the_sampler_and_the_trainer_agree(both):
    """Log-probabilities recorded while sampling are those that the trainer computes."""
    (_, _, rows), _ = both
    for row in rows:
        for player in ('actor', 'critic'):
            assert row[f'sampler/{player}/gap_max'] < 1e-4
            assert row[f'loss/{player}/ratio'] == pytest.approx(1, abs=0.25)


@pytest.mark.slow
def test_one_update_needs_no_pass_before_it(tmp_path, monkeypatch):
    """Gradients and gap equal those with old log-probabilities from a separate pass."""
    _, _, (row,) = run(tmp_path / 'one', ('actor',), num_steps=1, **PLAIN)
    monkeypatch.setattr(settings.ReinforceSettings, 'reuses_update_logprobs', False)
    _, _, (other,) = run(tmp_path / 'two', ('actor',), num_steps=1, **PLAIN)
    assert row.keys() == other.keys() and row['grads/norm'] > 0
    for name in row:
        if name.split('/')[0] in ('grads', 'loss', 'sampler'):
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=2e-6), name


@pytest.mark.slow
def test_critiques_that_share_their_prompt_give_the_same_update(tmp_path):
    changes = {'num_steps': 1, 'objective__kl': 'k3', 'objective__kl_coef': 0.05, **PLAIN}
    (row,), (expected,) = (
        run(tmp_path / str(n), ('critic',), samples_per_row=n, **changes)[2] for n in (4, 1)
    )
    for name in row:
        if name.split('/')[0] in ('grads', 'loss', 'sampler'):
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=2e-6), name


@pytest.mark.slow
def test_only_adapters_are_trained_and_the_reference_has_the_initial_ones(tmp_path):
    adaptation = lora.Adaptation(lora.LoraSettings(2, 4.0, ('query', 'down')), '', '', 'none')
    adapters = lora.init_adapters(CONFIG, adaptation, jax.random.key(0))
    actor = lora.attach(tiny_models().actor, adapters)
    initial = dataclasses.replace(tiny_models(), actor=actor)
    changes = {'objective__kl': 'k3', 'objective__kl_coef': 0.05, 'num_steps': 2}
    models, _, rows = run(tmp_path, ('actor',), initial=initial, **changes, **PLAIN)
    trained, base = lora.split(models['actor'])
    jax.tree.map(np.testing.assert_array_equal, base, tiny_models().actor)
    assert any(np.any(x != 0) for x in jax.tree.leaves(trained.b))
    assert rows[0]['loss/kl'] == pytest.approx(0, abs=1e-6) and rows[1]['loss/kl'] > 1e-6
    assert all(row['sampler/gap_max'] < 1e-4 for row in rows)


def test_metrics_include_levels_parts_of_the_model_and_the_refill(both):
    (_, _, rows), _ = both
    names = set(rows[0])
    assert {'levels/actor/reward1', 'grads/critic/attention', 'reward/actor/correct'} <= names
    assert 0 <= rows[0]['reward/critic/groups_dropped'] <= 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'num_minibatches': 3}, r'num_minibatches=3 must divide .* 8'),
        ({'samples_per_row': 3}, r'samples_per_row=3 must divide num_samples = 4; nearest: 2'),
        ({'num_epochs': 2, 'objective__on_policy': True}, r'on_policy=True with 2 updates'),
        ({'importance_cap': 0.5}, r'importance_cap=0\.5'),
        ({'turns__first_phase_steps': 1}, r'first_phase_steps=1 needs an episode with'),
        ({'turns__hint_share': 2.0}, r'hint_share=2\.0'),
        ({'objective__kl': 'k1'}, r"kl='k1' with kl_coef=0\.0"),
    ],
)
def test_contradictory_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        settings_of(**changes)


def test_a_minibatch_must_divide_over_devices():
    mesh = sharding.make_mesh((-1, 1, 1))
    with pytest.raises(ValueError, match=r'num_minibatches = 4 does not divide'):
        iterations.check_rows(settings_of(num_minibatches=2), LOOP, mesh)
    iterations.check_rows(settings_of(), LOOP, mesh)


def test_no_two_iterations_or_players_share_their_noise_and_a_seed_repeats_it():
    requests = []

    def rule(role, request, seed):
        requests.append((seed, request.id))
        return (fake_engine.EOS,)

    def sample(seed, step, player):
        requests.clear()
        models = dataclasses.replace(
            tiny_models(), sampler=fake_engine.players(fake_engine.RuleEngine(rule)).sampler
        )
        s = settings_of(refill_rounds=1, rewards__length=0.0, advantage__step_coef=0.0)
        setup = rollouts.RolloutSetup(models, SCORER, METHOD, s.num_samples, 1, 'always')
        training = trainer.PlayerTraining(s, player, player, setup, *UNTRAINED, seed)
        iteration = iterations.plan_iteration(training, step, models.sampler, state={})
        sampled = rollouts.sample_with_refill(
            **iterations.rollout_arguments(training, iteration, models)
        )
        assert sampled.num_sampled == 4 and sampled.num_informative == 0
        assert len(sampled.groups) == 2
        return [e.problem_id for group in sampled.groups for e in group], list(requests)

    keys = [(1, 1, 'actor'), (1, 2, 'actor'), (2, 1, 'actor'), (1, 1, 'critic')]
    samples = {key: sample(*key) for key in keys}
    seeds = [{seed for seed, _ in noise} for _, noise in samples.values()]
    assert len(set.union(*seeds)) == sum(map(len, seeds))
    assert len(set(samples[1, 1, 'actor'][1])) == 2 * 2 * 4
    assert sample(1, 1, 'actor') == samples[1, 1, 'actor']


@pytest.mark.parametrize('outcome', ['grpo', 'dr_grpo', 'rloo'])
@pytest.mark.parametrize('count', [0, 1])
def test_a_group_of_one_is_refused_by_name(outcome, count):
    """RLOO would divide by 0, the others would learn nothing."""
    with pytest.raises(ValueError, match=rf'num_samples={count} .*nearest: {count + 1}'):
        settings_of(num_samples=count, advantage__outcome=outcome)


def test_the_critic_scores_steps_only_if_the_scores_are_used():
    for changes, expected in (
        ({'advantage__step_coef': 0.0}, False),
        ({'advantage__step_coef': 0.5}, True),
        ({'advantage__step_coef': 0.0, 'rewards__verdict': 1.0}, True),
    ):
        s = settings_of(**changes)
        assert s.reward_rules('actor').needs_step_scores == expected
        assert not s.reward_rules('critic').needs_step_scores
    assert set(rollouts.ROLLOUTS) == set(settings.TRAINED_ROLES)


def test_an_update_without_trained_tokens_is_in_no_mean_of_its_iteration():
    """Groups that only fill the shape are masked, so a minibatch may have no token at all."""
    rows = [
        {'loss/ratio': 1.25, 'loss/ratio_max': 2.0, 'loss/tokens': 8.0, 'grads/norm': 3.0},
        {'loss/ratio': 0.0, 'loss/ratio_max': 0.0, 'loss/tokens': 0.0, 'grads/norm': 0.0},
    ]
    expected = {'loss/ratio': 1.25, 'loss/ratio_max': 2.0, 'loss/tokens': 4.0, 'grads/norm': 1.5}
    assert update_batch.mean_of_updates(rows) == expected
    assert update_batch.mean_of_updates(rows[1:])['loss/ratio'] == 0


@pytest.mark.parametrize(
    ('kl', 'kl_coef', 'kept'),
    [('none', 0.0, 0.0), ('k1', 0.05, 0.0), ('k2', 0.05, 0.05), ('k3', 0.05, 0.05)],
)
def test_scores_first_stage_descends_the_divergence_of_the_policy(kl, kl_coef, kept):
    changes = {'turns__episode': 'correction', 'turns__attempt_kl_coef': 0.1}
    s = settings_of(**changes, objective__kl=kl, objective__kl_coef=kl_coef)
    objective = s.first_phase_objective
    assert (objective.kl, objective.kl_coef, objective.attempt_kl_coef) == ('k2', kept, 0.1)


def test_the_order_of_shuffled_scores_is_that_of_an_iteration_and_costs_no_other_noise():
    """The problems and seeds of an iteration are the same with and without shuffled scores."""
    sampler = fake_engine.players(None).sampler

    def plan(step, seed, **changes):
        s = settings_of(**changes)
        training = trainer.PlayerTraining(s, 'actor', 'actor', None, *UNTRAINED, seed)
        return iterations.plan_iteration(training, step, sampler, state={})

    seeds = [plan(*key).assign_credit.keywords['seed'] for key in [(1, 1), (2, 1), (1, 2)]]
    assert len(set(seeds)) == 3
    assert plan(1, 1).assign_credit.keywords['seed'] == seeds[0]
    draws = [
        plan(1, 1, advantage__shuffle_scores=on).rng.integers(2**32, size=4).tolist()
        for on in (False, True)
    ]
    assert draws[0] == draws[1]


@pytest.mark.parametrize('refine', ['always', 'wrong'])
def test_the_critiques_that_are_refined_are_those_of_the_settings(monkeypatch, tmp_path, refine):
    setups = []

    def make_training(player, setup, *_, **__):
        setups.append(setup)
        raise RuntimeError('stopped')

    monkeypatch.setattr(trainer, 'make_training', make_training)
    with pytest.raises(RuntimeError, match='stopped'):
        trainer.reinforce(
            None, PROBLEMS, trained=['critic'], settings=settings_of(refine=refine), loop=LOOP,
            scorer=SCORER, method=METHOD, folder=tmp_path, writer=None, seed=0,
        )  # fmt: skip
    assert [setup.refine for setup in setups] == [refine]
