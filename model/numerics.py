"""Canonical numerics: a token's numbers do not depend on what is computed beside it.

XLA for CPU selects the order of a sum and the code of `exp` by the shape of the whole operation. So
a token has other last bits in a step of decoding than in a row of training, and a small fault looks
like rounding. With `model.numerics='canonical'` operations work on tiles of one fixed shape, and
attention adds in the order of positions: the log-probabilities of sampler and trainer are then
equal bit for bit, and any other bit is a fault. docs/design.md has its price.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

TILE_ROWS = 32
TILE_WIDTH = 16
"""Width of the tiles of functions that are applied to each number by itself."""

_canonical = jax.make_user_context(default_value=False)


def is_canonical() -> bool:
    """Returns whether the operations that are traced now have canonical numerics."""
    return _canonical.value


def as_configured(method: Callable) -> Callable:
    """Decorates a method of a model, which is traced with the numerics of its config."""

    @functools.wraps(method)
    def traced(model, *args, **kwargs):
        with of(model.config):
            return method(model, *args, **kwargs)

    return traced


def of(config):
    """Context in which operations are traced with the numerics of a ModelConfig."""
    return _canonical(config.numerics == 'canonical')


def fast():
    """Context in which operations are traced with fast numerics."""
    return _canonical(False)


def constant(fn: Callable):
    """Returns fn(), which reads no traced array; canonical: computed once, while it is traced.

    One program would fold it while it is compiled, and another compute it as it runs.
    """
    if not is_canonical():
        return fn()
    with jax.ensure_compile_time_eval():
        return fn()


def by_rows(fn: Callable, *arrays: jax.Array):
    """Returns fn(*arrays) of a function that treats each row alike; canonical: by tiles of rows.

    The arrays are [*lead, ...], where the first is [*lead, D]. So are the results, which may be a
    tree.
    """
    if not is_canonical():
        return fn(*arrays)
    lead = arrays[0].shape[:-1]
    num_rows = arrays[0].size // max(arrays[0].shape[-1], 1)

    def split(x):
        rows = x.reshape(num_rows, *x.shape[len(lead) :])
        # Two tiles at least: XLA would dissolve a loop over one.
        padded = max(2, -(-num_rows // TILE_ROWS)) * TILE_ROWS
        rows = jnp.pad(rows, ((0, padded - num_rows), *[(0, 0)] * (rows.ndim - 1)))
        return rows.reshape(-1, TILE_ROWS, *rows.shape[1:])

    # Behind barriers, so that no tile is fused with an operation of another shape.
    results = jax.lax.map(
        lambda tile: jax.lax.optimization_barrier(fn(*jax.lax.optimization_barrier(tile))),
        tuple(map(split, arrays)),
    )
    return jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:])[:num_rows].reshape(*lead, *x.shape[2:]), results
    )


def by_number(fn: Callable, x: jax.Array) -> jax.Array:
    """Returns fn(x) of a function of each number by itself, such as `jnp.exp`."""
    if not is_canonical():
        return fn(x)
    flat = jnp.pad(x.reshape(-1), (0, -x.size % TILE_WIDTH)).reshape(-1, TILE_WIDTH)
    return by_rows(fn, flat).reshape(-1)[: x.size].reshape(x.shape)
