"""A value head: one output column, which turns hidden states into values of tokens.

A value model is a Transformer whose output head [D, V] is a head [D, 1]. So what trains, places,
adapts and stores a Transformer does the same with a value model.
"""

from typing import Any

import jax
import jax.numpy as jnp

from elenchus.model import layers, lora
from elenchus.model.projection import project
from elenchus.model.transformer import Transformer

AXES = ('embed', None)
"""Logical axes of a value head [D, 1]: on a mesh it is split as the embedding's columns are."""


def split_value_model(
    player: Transformer,
) -> tuple[Transformer | lora.HeadedAdapters, Transformer | None]:
    """Returns the (trainable, frozen) parts of a value model that begins as a player.

    They are those of `lora.split`, the first with a value head. The head is zero, and so are all
    values at first; other arrays are the player's.
    """
    trained, frozen = lora.split(player)
    c = player.config
    dtype = c.param_dtype if frozen is None else 'float32'  # as adapters
    head = layers.init_zeros((c.embed_dim, 1), axes=AXES, dtype=dtype)
    if frozen is not None:
        return lora.HeadedAdapters(trained.a, trained.b, trained.adaptation, head), frozen
    model = jax.tree.map(lambda x: x, trained)  # a copy of the tree, not of its arrays
    model.head = head
    return model, None


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
