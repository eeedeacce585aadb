"""Masked thought: some tokens of a solution are noise when they are read, and labels all the same.

A model that reads a partly wrong solution must rely on what is far back, above all on the question.
The share of wrong tokens grows during training.

Formula: each trained token is read as a random one with probability p = min(p_max, 1.5 p_max t / T)
at step t of T; p_max 0.4 on GSM8K.
Source: arXiv 2403.02178; github.com/ChangyuChen347/MaskedThought, 9a467af.
Differs: random tokens are drawn from the solutions in the batch, not from the vocabulary; the
authors' denominator is 2 T / 3 + 1.
"""

import jax
import jax.numpy as jnp

from elenchus.configs import method

MOST = 0.4


def rate(progress):
    """The share of tokens that are replaced."""
    return jnp.minimum(MOST, 1.5 * MOST * progress)


def masked(batch, key, progress):
    """Tokens as they are read."""
    is_replaced, draw = jax.random.split(key)
    trained = batch.loss_mask > 0
    order = jnp.argsort(~trained, axis=None)  # the trained tokens first
    places = jax.random.randint(draw, batch.tokens.shape, 0, jnp.maximum(trained.sum(), 1))
    noise = batch.tokens.ravel()[order[places]]
    chosen = jax.random.uniform(is_replaced, batch.tokens.shape) < rate(progress)
    return jnp.where(chosen & trained, noise, batch.tokens)


CHANGES = {'actor.fit.read': 'elenchus.configs.methods.masked_thought:masked'}
get_config = method.of(CHANGES, stages=method.EVALUATE)
