"""A tiny model and random batches for the tests of model/ and train/."""

import dataclasses
import functools

import jax
import numpy as np

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Example
from elenchus.model import sharding, transformer
from elenchus.model.config import ModelConfig, RopeScaling
from elenchus.train import objective as objective_lib
from elenchus.train import step

CONFIG = ModelConfig(
    vocab_size=48,
    num_layers=2,
    embed_dim=16,
    mlp_dim=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_length=64,
    windows=(0,),
    rope_theta=10000.0,
    local_rope_theta=0.0,
    rope_scaling=None,
    norm_epsilon=1e-6,
    zero_centered_norms=False,
    post_norms=False,
    qkv_bias=False,
    qk_norm=False,
    query_scale_dim=0,
    attention_soft_cap=0.0,
    logits_soft_cap=0.0,
    scale_embeddings=False,
    tie_embeddings=True,
    activation='silu',
    dtype='float32',
    param_dtype='float32',
    attention='einsum',
    remat='none',
    scan_layers=True,
    logits_chunk=64,
)
EVERYTHING = dataclasses.replace(
    CONFIG, windows=(5, 0), local_rope_theta=100.0,
    rope_scaling=RopeScaling('llama3', 4.0, 1.0, 4.0, 32), zero_centered_norms=True,
    post_norms=True, qkv_bias=True, qk_norm=True, query_scale_dim=3, attention_soft_cap=5.0,
    logits_soft_cap=8.0, scale_embeddings=True, tie_embeddings=False,
)  # fmt: skip
"""Every optional part of the model is switched on."""
FLAT = dataclasses.replace(EVERYTHING, num_layers=1, scan_layers=False)
"""EVERYTHING with one unrolled layer: compiles in half the time."""

SFT = dataclasses.replace(objective_lib.SFT, constant_length=1)
GSPO = dataclasses.replace(
    SFT, surrogate='clip', ratio='sequence', on_policy=False, clip_low=0.1, clip_high=0.2,
    average='sequence', kl='k3', kl_coef=0.1, entropy_coef=0.01,
)  # fmt: skip
"""The most complex objective: sums over sequences, a KL and an entropy term."""

QUICK = {'xla_backend_optimization_level': 0}
"""Compiler options that compile in a third of the time, with the same results."""

jit = functools.partial(jax.jit, compiler_options=QUICK)


def untouched(logits: jax.Array) -> jax.Array:
    """Identity transform of logits: the model's own distribution."""
    return logits


def make_model(config: ModelConfig, seed: int = 0) -> transformer.Transformer:
    """Returns a model with random norms and biases too: zeros and ones would hide errors."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        mean = 1.0 if 'norm' in jax.tree_util.keystr(path) else 0.0
        return jax.numpy.asarray(mean + 0.2 * rng.standard_normal(shape.shape), shape.dtype)

    shapes = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


def one_device() -> jax.sharding.Mesh:
    """Returns a mesh of one device, which compiles fast."""
    axis_types = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((1, 1, 1), sharding.AXES, axis_types=axis_types, devices=jax.devices()[:1])


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Returns the sharding of the rows of arrays [B, ...], for jax.device_put."""
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(sharding.RULES['batch']))


def random_example(rng: np.random.Generator, length: int) -> Example:
    """Returns a sequence with a random loss mask that excludes the first token."""
    mask = (rng.random(length) < 0.7).astype(np.float32)
    mask[0], mask[-1] = 0, 1
    real = lambda mean, spread: (mean + spread * rng.standard_normal(length)).astype(np.float32)  # noqa: E731
    ids = lambda high: rng.integers(1, high, length, dtype=np.int32)  # noqa: E731
    return Example(
        tokens=ids(CONFIG.vocab_size),
        loss_mask=mask,
        weights=real(0.3, 1.0),
        old_logprobs=real(-4.0, 0.3),
        ref_logprobs=real(-4.0, 0.3),
        steps=ids(4),
        turns=ids(3),
        roles=ids(5),
    )


def random_examples(seed: int, lengths) -> list[Example]:
    """Returns one random sequence per length."""
    rng = np.random.default_rng(seed)
    return [random_example(rng, length) for length in lengths]


def random_batch(seed: int, *, rows: int = 8, length: int = 16) -> Batch:
    """Returns packed rows of random sequences, most with some padding."""
    lengths = np.random.default_rng(seed).integers(3, length - 1, 3 * rows)
    packed = packing.Rows(rows, length)
    for example in random_examples(seed, lengths):
        packed.add((example,))
    return packing.to_batch([[item[-1] for item in row] for row in packed.items], length=length)


def pack_pairs(pairs, *, rows: int | None, length: int) -> Batch:
    """Packs (preferred, other) pairs first-fit; each is one item of a row, as in training."""
    packed = packing.Rows(rows, length)
    assert all(packed.add((*pair, packing.joined(pair))) for pair in pairs)
    sequences = [[example for item in row for example in item[:2]] for row in packed.items]
    return packing.to_batch(sequences, length=length)


def with_padding(batch: Batch, rng: np.random.Generator) -> Batch:
    """Returns the batch with arbitrary values in its padding, NaN included."""
    empty = batch.segments == 0
    assert empty.any()

    def scramble(name, values):
        if name == 'segments':
            return values
        if name == 'tokens':
            noise = rng.integers(0, CONFIG.vocab_size, values.shape, dtype=np.int32)
        elif name == 'loss_mask':
            noise = np.zeros_like(values)
        elif values.dtype == np.int32:
            noise = rng.integers(0, 30, values.shape, dtype=np.int32)
        else:
            noise = rng.choice(np.float32([np.nan, np.inf, -np.inf, 1e30]), values.shape)
        return np.where(empty, noise, values)

    return Batch(*(scramble(name, x) for name, x in zip(Batch._fields, batch, strict=True)))


@functools.partial(jit, static_argnames=('objective', 'transform', 'num_microbatches'))
def loss_and_grads(model, batch, *, objective, transform=untouched, num_microbatches=1):
    """Compiled `step.loss_and_grads`."""
    return step.loss_and_grads(
        model, batch, objective=objective, transform=transform, num_microbatches=num_microbatches
    )


def assert_trees_close(actual, expected, *, relative: float) -> None:
    """Asserts that each tree is within `relative` of the expected one, in Euclidean norm.

    A single leaf may deviate 20 times as much, because some leaves are sums that nearly cancel.
    """
    for got, want in zip(actual, expected, strict=True):
        errors, sizes = [], []
        leaves = jax.tree_util.tree_leaves_with_path(want)
        for (path, x), y in zip(leaves, jax.tree.leaves(got), strict=True):
            x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
            errors.append(np.linalg.norm(y - x))
            sizes.append(np.linalg.norm(x))
            where = f'{jax.tree_util.keystr(path)}: error {errors[-1]:.2e} of {sizes[-1]:.2e}'
            assert errors[-1] <= 20 * relative * sizes[-1], where
        error = np.linalg.norm(errors) / np.linalg.norm(sizes)
        assert error <= relative, f'relative error {error:.2e}'
