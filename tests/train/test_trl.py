"""Losses and gradients against TRL's own code: a golden file, and live where TRL is installed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.records import Batch
from elenchus.model import logprobs as logprobs_lib
from elenchus.train import objective as objective_lib
from elenchus.train import preferences
from tests.golden import trl_golden
from tests.support import tiny_model

OURS = {
    'sft': objective_lib.SFT,
    'grpo': objective_lib.GRPO,
    'grpo-k3': dataclasses.replace(objective_lib.GRPO, kl='k3', kl_coef=0.3),
    'dr_grpo': objective_lib.dr_grpo(trl_golden.MAX_LENGTH),
    'dapo': objective_lib.DAPO,
    'gspo': dataclasses.replace(objective_lib.GSPO, clip_low=0.05, clip_high=0.08),
    'cispo': dataclasses.replace(objective_lib.CISPO, clip_high=0.3),
    'corrected': objective_lib.GRPO,
    'rloo': objective_lib.RLOO,
}
CONSTANTS = {
    'simpo': {'gamma': trl_golden.GAMMA},
    'simpo-nll': {'gamma': trl_golden.GAMMA},
    'kto': {'desirable': trl_golden.DESIRABLE, 'undesirable': trl_golden.UNDESIRABLE},
}
for _name in ('dpo', 'dpo-nll', 'ipo', 'kto', 'orpo', 'simpo', 'simpo-nll'):
    _kind, _, _nll = _name.partition('-')
    _constants = CONSTANTS.get(_name, {}) | ({'nll_coef': trl_golden.NLL} if _nll else {})
    OURS[_name] = objective_lib.of_pairs(
        preferences.published(_kind, beta=trl_golden.BETA, **_constants)
    )


def to_batch(name, inputs) -> Batch:
    """Batch of the same rows; a pair becomes one row of two sequences."""
    mask = inputs['mask']
    weights = np.ones_like(mask)
    is_paired = bool(OURS[name].pairs)
    if name != 'sft' and not is_paired:
        weights = weights * inputs['advantages'][:, None]
    if name == 'corrected':
        weights = weights * inputs['trust']
    fields = {
        'tokens': inputs['tokens'].astype(np.int32),
        'loss_mask': mask,
        'weights': weights,
        'old_logprobs': inputs['old'],
        'ref_logprobs': inputs['ref'] + (z0(inputs) if name == 'kto' else 0.0),
        'segments': np.ones(mask.shape, np.int32),
    }
    zeros = np.zeros(mask.shape, np.int32)
    batch = Batch(**{field: fields.get(field, zeros) for field in Batch._fields})
    if not is_paired:
        return batch
    batch = jax.tree.map(in_pairs, batch)
    second = np.arange(batch.segments.shape[1]) >= mask.shape[1]
    return batch._replace(segments=batch.segments + second.astype(np.int32))


def z0(inputs):
    """KTO's z0 at the first trained token of each sequence, 0 elsewhere."""
    gaps = ((inputs['old'] - inputs['ref']) * inputs['mask']).sum(1)
    assert gaps.mean() > 0.01
    first = np.arange(inputs['mask'].shape[1]) == trl_golden.PROMPT
    return gaps.mean() * first.astype(np.float32)


def in_pairs(rows):
    """[2 n, T, ...] -> [n, 2 T, ...]: row i and row n + i one after the other."""
    return jnp.concatenate(jnp.split(jnp.asarray(rows), 2), axis=1)


def ours(name, inputs):
    """Our loss and its gradient with respect to the logits."""
    batch = to_batch(name, inputs)

    def loss(logits):
        logprobs, entropy = logprobs_lib.log_softmax_at(logits[:, :-1], inputs['tokens'][:, 1:])
        logprobs, entropy = (jnp.pad(x, ((0, 0), (1, 0))) for x in (logprobs, entropy))
        if OURS[name].pairs:
            logprobs, entropy = map(in_pairs, (logprobs, entropy))
        sums = objective_lib.loss(OURS[name], batch, logprobs=logprobs, entropy=entropy)
        return sums.total / sums.weight

    return tiny_model.jit(jax.value_and_grad(loss))(inputs['logits'])


@pytest.fixture(scope='module')
def golden():
    return dict(np.load(trl_golden.GOLDEN))


@pytest.mark.parametrize('name', OURS)
def test_loss_and_gradient_are_those_that_trl_computed(golden, name):
    value, grads = ours(name, golden)
    np.testing.assert_allclose(value, golden[f'{name}/loss'], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads, golden[f'{name}/grads'], rtol=1e-5, atol=1e-6)
    assert np.abs(golden[f'{name}/grads']).max() > 1e-3


def test_the_golden_file_has_the_inputs_of_its_script(golden):
    for name, values in trl_golden.inputs().items():
        np.testing.assert_allclose(golden[name], values, rtol=1e-6, err_msg=name)


def test_loss_and_gradient_are_those_that_the_installed_trl_computes():
    pytest.importorskip('trl')
    inputs = trl_golden.inputs()
    theirs = trl_golden.all_losses()
    assert set(theirs) == set(OURS)
    for name, (value, grads) in theirs.items():
        actual = ours(name, inputs)
        np.testing.assert_allclose(actual[0], value, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(actual[1], grads, rtol=1e-5, atol=1e-6, err_msg=name)
