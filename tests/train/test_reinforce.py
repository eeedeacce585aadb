"""Reinforcement end to end on a tiny model: both players, reference KL, minibatches, resuming."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from elenchus.configs import lab as lab_config
from elenchus.data.critiques import grammars
from elenchus.data.lab import task
from elenchus.model import lora, sharding
from elenchus.sampling import episodes, step_scores
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.exploration import context
from elenchus.train.config import build
from elenchus.train.metrics import writers
from elenchus.train.rl import rollouts, trainer
from elenchus.train.sft import LoopSettings
from tests.support import fake_engine, tiny_model

CONFIG = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=96)
WORDS = range(10, fake_engine.TOKENIZER.vocab_size)
BANNED = tuple(i for i in range(CONFIG.vocab_size) if i not in (*WORDS, fake_engine.EOS))
METHOD = sampling_methods.Sampling(1.0, 0, 1.0, 0.0, BANNED)
LIMITS = {'attempt': 8, 'critique': 8, 'refinement': 8}
LOOP = LoopSettings(
    rows=8,
    length=96,
    num_microbatches=1,
    log_every=1,
    checkpoint_every=1,
    keep_checkpoints=1,
    nonfinite='stop',
    compare_hosts_every=0,
)
ENGINE = engine.EngineSettings(
    num_slots=8,
    max_length=96,
    chunk_steps=8,
    prompt_buckets=(88,),
    insert_rows=(8,),
    compact_slots=(),
    compact_lengths=(),
    parked_rows=0,
    parked_length=0,
)
SCORER = step_scores.StepScorer(
    step_scores.ScoreShapes(8, (96,)), {'correct_id': 10, 'wrong_id': 11}
)
PROBLEMS = [task.generate_problem(seed=0, split='train', index=index) for index in range(0, 40, 5)]


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
    return build.build(trainer.ReinforceSettings, config)


@functools.cache
def players():
    sampler = episodes.Sampler(
        engine.Engine(ENGINE, stop_ids=(fake_engine.EOS,)), fake_engine.CHAT, LIMITS
    )
    actor, critic = (tiny_model.make_model(CONFIG, seed) for seed in (1, 2))
    return context.Players(sampler, actor, critic, fake_engine.judge, grammars.LAB)


def run(folder, trained, *, given=None, **changes):
    """(models, totals, rows of metrics)."""
    writer = writers.Writer(folder, tensorboard=folder / 'board')
    with jax.set_mesh(mesh()), writer:
        models, totals = trainer.reinforce(
            given or players(),
            PROBLEMS,
            trained=trained,
            settings=settings_of(**changes),
            loop=LOOP,
            scorer=SCORER,
            method=METHOD,
            folder=folder,
            writer=writer,
            seed=3,
        )
    return models, totals, writers.read_rows(folder / writers.METRICS)


def mesh():
    axis_types = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((1, 1, 1), sharding.AXES, axis_types=axis_types, devices=jax.devices()[:1])


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
    """Actor (as in SCoRe) and critic in turn, and the same stopped after an iteration, resumed."""
    whole, parted = tmp_path_factory.mktemp('whole'), tmp_path_factory.mktemp('parted')
    _, totals, rows = run(parted, ('actor', 'critic'), **BOTH, token_budget=1)
    assert len(rows) == 1 and totals['updates'] == {'actor': 2, 'critic': 2}
    return run(whole, ('actor', 'critic'), **BOTH), run(parted, ('actor', 'critic'), **BOTH)


def test_both_players_learn_in_turn_from_one_checkpoint(both):
    (models, totals, rows), _ = both
    assert totals['updates'] == {'actor': 6, 'critic': 6}
    assert totals['tokens_sampled'] == rows[-1]['sampled/tokens'] > 0
    for player, model in models.items():
        before = jax.tree.leaves(getattr(players(), player))
        changed = [np.any(x != y) for x, y in zip(before, jax.tree.leaves(model), strict=True)]
        assert all(changed), player


def test_a_run_that_was_stopped_continues_bit_for_bit(both):
    (models, totals, rows), (again, totals_again, rows_again) = both
    assert rows == rows_again and totals == totals_again
    jax.tree.map(np.testing.assert_array_equal, models, again)


def test_the_reference_stays_as_the_player_was_while_the_player_moves(both):
    """Were it the newest player, the KL at the first update of every iteration would be 0."""
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
    """Gradients and gap are those with old log-probabilities from a pass of their own."""
    _, _, (row,) = run(tmp_path / 'one', ('actor',), num_steps=1, **PLAIN)
    monkeypatch.setattr(trainer.ReinforceSettings, 'fresh', False)
    _, _, (other,) = run(tmp_path / 'two', ('actor',), num_steps=1, **PLAIN)
    assert row.keys() == other.keys() and row['grads/norm'] > 0
    for name in row:
        if name.split('/')[0] in ('grads', 'loss', 'sampler'):
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=2e-6), name


@pytest.mark.slow
def test_critiques_that_share_their_prompt_teach_the_same(tmp_path):
    changes = {'num_steps': 1, 'objective__kl': 'k3', 'objective__kl_coef': 0.05, **PLAIN}
    (row,), (expected,) = (
        run(tmp_path / str(n), ('critic',), samples_per_row=n, **changes)[2] for n in (4, 1)
    )
    for name in row:
        if name.split('/')[0] in ('grads', 'loss', 'sampler'):
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=2e-6), name


def test_adapters_learn_alone_and_the_reference_is_the_player_with_those_it_had(tmp_path):
    how = lora.Adaptation(lora.LoraSettings(2, 4.0, ('query', 'down')), '', '', 'none')
    adapters = lora.init_adapters(CONFIG, how, jax.random.key(0))
    actor = lora.attach(players().actor, adapters)
    given = dataclasses.replace(players(), actor=actor)
    changes = {'objective__kl': 'k3', 'objective__kl_coef': 0.05, 'num_steps': 2}
    models, _, rows = run(tmp_path, ('actor',), given=given, **changes, **PLAIN)
    trained, base = lora.split(models['actor'])
    jax.tree.map(np.testing.assert_array_equal, base, players().actor)
    assert any(np.any(x != 0) for x in jax.tree.leaves(trained.b))
    assert rows[0]['loss/kl'] == pytest.approx(0, abs=1e-6) and rows[1]['loss/kl'] > 1e-6
    assert all(row['sampler/gap_max'] < 1e-4 for row in rows)


def test_metrics_tell_levels_parts_and_what_was_refilled(both):
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
        ({'turns__first_phase_steps': 1}, r'first_phase_steps=1 needs episode'),
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
        trainer.check_rows(settings_of(num_minibatches=2), LOOP, mesh)
    trainer.check_rows(settings_of(), LOOP, mesh)


def test_no_two_iterations_or_players_share_their_noise_and_a_seed_repeats_it():
    asked = []

    def rule(role, request, seed):
        asked.append((seed, request.id))
        return (fake_engine.EOS,)

    def sample(seed, step, player):
        asked.clear()
        made = dataclasses.replace(
            players(), sampler=fake_engine.players(fake_engine.Ruled(rule)).sampler
        )
        s = settings_of(refill_rounds=1, rewards__length=0.0, advantage__step_coef=0.0)
        table = lambda now: rollouts.Table(now, SCORER, METHOD, s.num_samples, 1)  # noqa: E731
        learner = trainer.Learner(s, player, None, None, PROBLEMS, table, None, None, 1, seed)
        value = functools.partial(
            rollouts.value,
            rules=s.rules(player),
            limits=LIMITS,
            first_phase=False,
        )
        found = trainer.sample(learner, made, value, trainer.make_rng(seed, step, player))
        assert found.num_sampled == 4 and found.num_informative == 0 and len(found.groups) == 2
        return [e.problem_id for group in found.groups for e in group], list(asked)

    keys = [(1, 1, 'actor'), (1, 2, 'actor'), (2, 1, 'actor'), (1, 1, 'critic')]
    told = {key: sample(*key) for key in keys}
    seeds = [{seed for seed, _ in noise} for _, noise in told.values()]
    assert len(set.union(*seeds)) == sum(map(len, seeds))
    assert len(set(told[1, 1, 'actor'][1])) == 2 * 2 * 4
    assert sample(1, 1, 'actor') == told[1, 1, 'actor']


def test_rules_ask_the_critic_only_where_its_scores_are_read():
    for changes, asked in (
        ({'advantage__step_coef': 0.0}, False),
        ({'advantage__step_coef': 0.5}, True),
        ({'advantage__step_coef': 0.0, 'rewards__verdict': 1.0}, True),
    ):
        made = settings_of(**changes)
        assert made.rules('actor').reads_scores == asked and not made.rules('critic').reads_scores
    assert set(rollouts.PLAYS) == set(rollouts.ROLES)
