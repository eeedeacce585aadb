"""A value head: a linear head with one output, which maps hidden states to values of tokens.

A value model is a Transformer with a head [D, 1] in place of the output head [D, V], so it is
trained, sharded, adapted and stored by the same code.
"""

from typing import Any

import jax
import jax.numpy as jnp

from elenchus.model import layers, lora
from elenchus.model.config import ModelConfig
from elenchus.model.projection import project
from elenchus.model.transformer import Transformer

AXES = ('embed', None)
"""Logical axes of a value head [D, 1]: on a mesh it is split as the embedding's columns are."""


def with_value_head(
    trained: Transformer | lora.Adapters, config: ModelConfig
) -> Transformer | lora.HeadedAdapters:
    """Returns the trained part of a player with a value head in place of the player's own head.

    The head is zero, and so are all values at first; other arrays are the player's.
    """
    is_adapted = isinstance(trained, lora.Adapters)
    dtype = 'float32' if is_adapted else config.param_dtype
    head = layers.init_zeros((config.embed_dim, 1), axes=AXES, dtype=dtype)
    if is_adapted:
        return lora.HeadedAdapters(trained.a, trained.b, trained.adaptation, head)
    model = jax.tree.map(lambda x: x, trained)  # a copy of the tree, not of its arrays
    model.head = head
    return model


def token_values(
    model: Transformer, hidden: jax.Array, tokens: jax.Array, **_: Any
) -> tuple[jax.Array, jax.Array]:
    """Values [B, T] float32 of the texts before each token, and zeros in place of entropies.

    It takes the place of `logprobs.token_logprobs` in a pass, with its arguments: a value stands
    where the log-probability of the token that follows it would. At a row's first token it is 0.
    """
    values = project(hidden, model.head_matrix, contract=1, dtype='float32')[..., 0]
    values = jnp.pad(values[:, :-1], ((0, 0), (1, 0)))
    return values, jnp.zeros_like(values)
