"""Tokens split over 'tensor' between the products of matrices, and over 'context' in all layers."""

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest

from elenchus.model import placement, sharding
from elenchus.train import step
from tests.support import hlo, tiny_model

CONFIG = dataclasses.replace(
    tiny_model.EVERYTHING, num_heads=8, num_kv_heads=4, logits_chunk=6, remat='full'
)
ROWS, LENGTH = 4, 16
SLOW = pytest.mark.slow


def loss(model, batch):
    """A loss with gradients of all weights through log-probabilities and entropies."""
    logprobs, entropy = step.batch_logprobs(model, batch, tiny_model.untouched)
    return (logprobs * batch.weights + 0.1 * entropy).sum(), logprobs


def program_on(shape, config=CONFIG, *, length=LENGTH):
    """((loss, log-probabilities), gradients) of a packed batch, and the compiled text."""
    model = tiny_model.make_model(config)
    batch = tiny_model.random_batch(0, rows=ROWS, length=length)
    function = jax.value_and_grad(loss, has_aux=True)
    if shape is None:
        return tiny_model.jit(function)(model, batch), ''
    mesh = sharding.make_mesh(shape, jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        here = placement.current()
        model, batch = here.place(model), here.place(batch, placement.ROWS)
        compiled = jax.jit(function).lower(model, batch).compile(tiny_model.QUICK)
        return compiled(model, batch), compiled.as_text()


@functools.cache
def alone(config=CONFIG):
    return program_on(None, config)[0]


def test_the_batch_has_packed_rows():
    segments = tiny_model.random_batch(0, rows=ROWS, length=LENGTH).segments
    assert segments.max() > 1 and 0 in segments


@pytest.mark.slow
@pytest.mark.parametrize(
    'shape',
    [
        (1, 1, 2, 2),
        (1, 2, 2),
        (1, 2, 1, 2),
        (1, 1, 2),
        (1, 2, 4),
        (1, 1, 1, 4),
        (2, 1, 1, 4),
        (1, 2, 2, 2),
    ],
    ids=str,
)
def test_split_sequences_change_no_value_and_no_gradient(shape):
    """Packed segments, windows, soft caps and an untied head; 'tensor', 'context' and both."""
    actual, text = program_on(shape)
    tiny_model.assert_trees_close(actual, alone(), relative=4e-6)
    tensor, context = shape[2], (*shape, 1)[3]
    rows, length, width = ROWS // (shape[0] * shape[1]), LENGTH // context, CONFIG.embed_dim
    counts = collections.Counter((c.kind, c.shape) for c in hlo.collectives(text) if c.in_loop)
    # Activations [B, T, D] are never summed whole, also not as [B * T, D].
    assert not counts['all-reduce', (rows, length, width)]
    assert not counts['all-reduce', (rows * length, width)]
    if tensor > 1:
        assert counts['all-gather', (rows, length, width)]
        assert counts['reduce-scatter', (rows, length // tensor, width)]
    if context > 1:  # of other parts of a sequence, a device has keys and values alone
        assert not [shape for _, shape in counts if shape == (rows, LENGTH, width)]
