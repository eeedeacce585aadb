"""Adapters for the tiny model of tests/support/tiny_model.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.model import lora, projection
from elenchus.train import step as step_lib
from tests.support import tiny_model

CONFIG = tiny_model.EVERYTHING
ALL_TARGETS = tuple(projection.NUM_INPUT_DIMS)


def adaptation(rank=3, targets=ALL_TARGETS, alpha=6.0) -> lora.Adaptation:
    """Adapters of a base that is saved nowhere."""
    settings = lora.LoraSettings(rank, alpha, targets)
    return lora.Adaptation(settings, '/some/base', 'abc', 'none')


@functools.cache
def base(config=CONFIG):
    """One random base model per config."""
    return tiny_model.make_model(config)


def fresh(seed=0, config=CONFIG, **options) -> lora.Adapters:
    """Adapters before training: b is zero."""
    return lora.init_adapters(config, adaptation(**options), jax.random.key(seed))


def trained(seed=0, **options) -> lora.Adapters:
    """Adapters as after training: b is no longer zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), fresh(**options)
    )


@tiny_model.jit
def loss_grads(trained, frozen):
    """Gradients of an SFT loss with respect to `trained`."""
    return step_lib.loss_and_grads(
        trained,
        tiny_model.random_batch(1),
        objective=tiny_model.SFT,
        transform=tiny_model.untouched,
        num_microbatches=1,
        frozen=frozen,
    )[1]
