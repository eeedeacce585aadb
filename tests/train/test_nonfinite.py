"""NaN losses and gradients: detected a step late, batch kept on disk, run stopped or not."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from elenchus.data.records import Batch
from elenchus.train import nonfinite, state
from elenchus.train.step import make_train_step
from tests.support import tiny_model

FINE = {'loss/total': 1.0, 'grads/norm': 2.0, 'grads/finite': 1.0}
BROKEN = {'loss/total': np.nan, 'grads/norm': np.inf, 'grads/finite': 0.0}


def push_steps(guard, *values):
    for step, value in enumerate(values, start=1):
        guard.push(step, [nonfinite.Update(value, tiny_model.random_batch(step, rows=2))])
    guard.flush()


def test_a_run_stops_at_the_step_and_keeps_its_batch(tmp_path):
    message = (
        r'step 2: loss nan, gradient norm inf; its batch is in .*step-000002-0\.npz.*nonfinite='
    )
    with pytest.raises(FloatingPointError, match=message):
        push_steps(nonfinite.FiniteGuard(tmp_path, 'stop'), FINE, BROKEN, FINE)
    kept = np.load(tmp_path / 'nonfinite' / 'step-000002-0.npz')
    for name, values in zip(Batch._fields, tiny_model.random_batch(2, rows=2), strict=True):
        np.testing.assert_array_equal(kept[name], values)


def test_a_step_is_skipped_with_a_warning_until_ten_in_a_row(tmp_path, capsys):
    guard = nonfinite.FiniteGuard(tmp_path, 'skip')
    most = nonfinite.MAX_CONSECUTIVE_SKIPS
    push_steps(guard, *([BROKEN] * (most - 1)), FINE, BROKEN)
    assert capsys.readouterr().err.count('warning: step') == most
    assert len(list((tmp_path / 'nonfinite').iterdir())) == most
    with pytest.raises(FloatingPointError, match='the 10th update in a row'):
        push_steps(guard, *([BROKEN] * most))


def test_of_several_updates_a_step_the_broken_one_is_kept(tmp_path):
    batches = [tiny_model.random_batch(seed, rows=2) for seed in range(3)]
    guard = nonfinite.FiniteGuard(tmp_path, 'skip')
    guard.push(4, list(map(nonfinite.Update, (FINE, BROKEN, FINE), batches)))
    guard.flush()
    (kept,) = (tmp_path / 'nonfinite').iterdir()
    assert kept.name == 'step-000004-1.npz'
    np.testing.assert_array_equal(np.load(kept)['tokens'], batches[1].tokens)


def test_finite_updates_of_a_value_model_do_not_hide_a_broken_policy(tmp_path):
    batch, guard = tiny_model.random_batch(0, rows=2), nonfinite.FiniteGuard(tmp_path, 'skip')
    updates = [nonfinite.Update(BROKEN, batch, 'actor'), nonfinite.Update(FINE, batch, 'value')]
    with pytest.raises(FloatingPointError, match='the 10th update in a row'):
        for step in range(nonfinite.MAX_CONSECUTIVE_SKIPS + 1):
            guard.push(step, updates)


@pytest.mark.parametrize('skip', [True, False])
def test_weights_stay_where_a_step_is_skipped(skip):
    config = dataclasses.replace(tiny_model.FLAT, embed_dim=8, mlp_dim=8)
    optimizer = optax.adam(0.1)
    step = make_train_step(
        objective=tiny_model.SFT,
        optimizer=optimizer,
        transform=tiny_model.untouched,
        num_microbatches=1,
        skip_nonfinite=skip,
    )
    before = state.init_state(tiny_model.make_model(config), optimizer)
    batch = tiny_model.random_batch(0, rows=2)
    compiled = step.lower(before, batch).compile(tiny_model.QUICK)
    good, metrics = compiled(before, batch)
    before_skip = jax.tree.map(np.array, good)
    assert metrics['grads/finite'] == 1
    bad, metrics = compiled(good, batch._replace(weights=batch.weights * np.float32(np.inf)))
    assert metrics['grads/finite'] == 0 and int(bad.step) == 2
    same = [
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(bad.model), jax.tree.leaves(before_skip.model), strict=True)
    ]
    assert all(same) if skip else not any(same)
