"""A logits rule in reinforcement: the trainer recomputes it in all layouts of rows."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from elenchus.model import placement, sharding
from elenchus.sampling.engine import sampling_methods, token_rules
from elenchus.train.metrics import writers
from elenchus.train.rl import trainer
from tests.support import tiny_model
from tests.train.rl.test_trainer import (
    LOOP,
    METHOD,
    PLAIN,
    PROBLEMS,
    SCORER,
    settings_of,
    tiny_models,
)


def wave(logits, where):
    """A triangle over six tokens of a turn."""
    height = 1 - 4 * jnp.abs((where.turn_position % 6 / 6 + 0.25) % 1 - 0.5)
    return logits.at[..., 20:30].add(4 * height[..., None])


def third(token, logits, where):
    """Ends attempts at their fourth token."""
    return where.turn_position >= 3


RULE = token_rules.TokenRule(wave, 'sampling.logits', ('attempt', 'critique', 'refinement'))
ACTORS = dataclasses.replace(RULE, roles=('attempt',))
PAUSE = token_rules.TokenRule(third, 'sampling.pause', ('attempt',))
CORRECTION = {'turns__episode': 'correction', **PLAIN}


def train(folder, trained, method, *, mesh=None, after_pause=None, **changes):
    """Rows of metrics of a run of two iterations."""
    writer, models = writers.Writer(folder, tensorboard=folder / 'board'), tiny_models()
    models = dataclasses.replace(
        models, sampler=dataclasses.replace(models.sampler, after_pause=after_pause)
    )
    with jax.set_mesh(mesh or tiny_model.one_device()), writer:
        if mesh:
            place = placement.current().place
            players = {p: place(jax.device_get(getattr(models, p))) for p in ('actor', 'critic')}
            models = dataclasses.replace(models, **players)
        trainer.reinforce(
            models,
            PROBLEMS,
            trained=trained,
            settings=settings_of(num_steps=2, **changes),
            loop=LOOP,
            scorer=SCORER,
            method=method,
            folder=folder,
            writer=writer,
            seed=3,
        )
    return writers.read_rows(folder / writers.METRICS)


def with_rule(rule, pause=None):
    return sampling_methods.with_rules(METHOD, rule, pause)


def worst_gap(rows):
    return max(value for row in rows for name, value in row.items() if name.endswith('gap_max'))


@pytest.mark.slow
def test_two_turns_in_shared_rows_are_recomputed(tmp_path):
    rows = train(tmp_path, ('actor',), with_rule(RULE), samples_per_row=2, **CORRECTION)
    assert worst_gap(rows) < 1e-5
    assert any(row['grads/norm'] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize('samples_per_row', [1, 4])
@pytest.mark.parametrize('minibatches', [1, 2])
def test_both_players_are_recomputed_in_every_layout(tmp_path, samples_per_row, minibatches):
    """With the update's own pass, and with one before it."""
    changes = {'samples_per_row': samples_per_row, 'num_minibatches': minibatches}
    rows = train(tmp_path, ('actor', 'critic'), with_rule(RULE), **changes, **PLAIN)
    assert worst_gap(rows) < 1e-5


@pytest.mark.slow
def test_a_rule_of_attempts_is_not_for_refinements(tmp_path):
    rows = train(tmp_path / 'a', ('actor',), with_rule(ACTORS), num_minibatches=2, **CORRECTION)
    assert worst_gap(rows) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 1, 1), (1, 2, 1), (1, 1, 2)], ids=str)
def test_on_two_devices(tmp_path, shape):
    kinds = (jax.sharding.AxisType.Auto,) * len(shape)
    mesh = jax.make_mesh(shape, sharding.AXES, devices=jax.devices()[:2], axis_types=kinds)
    rows = train(tmp_path, ('actor',), with_rule(RULE), mesh=mesh, samples_per_row=2, **CORRECTION)
    assert worst_gap(rows) < 1e-5


@pytest.mark.slow
def test_turns_that_are_stopped_are_trained_up_to_there(tmp_path):
    method = with_rule(RULE, PAUSE)
    rows = train(
        tmp_path,
        ('actor',),
        method,
        after_pause=lambda text, pause: False,
        num_minibatches=2,
        **PLAIN,
    )
    assert worst_gap(rows) < 1e-5
    assert all(row['reward/unfinished'] == 0 for row in rows)
    # 2 groups of 4 attempts of 4 tokens at most: an end that was appended is not counted.
    assert 0 < rows[0]['sampled/tokens'] <= 32
