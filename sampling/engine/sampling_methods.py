"""How a token is chosen: frozen values that map logits to the distribution sampled from.

`transform` is the whole of a method's distribution, so a trainer that passes it to
model.logprobs.token_logprobs recomputes exactly what the sampler recorded.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from elenchus.model import logprobs


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The most likely token; recorded are log-probabilities at temperature 1, untruncated.

    `banned` ids are never chosen and have no probability.
    """

    banned: tuple[int, ...]

    def __post_init__(self):
        _check_banned(self.banned)

    def transform(self, logits: jax.Array) -> jax.Array:
        """logits [..., V] -> float32 [..., V], -inf where excluded."""
        return _ban(logits, self.banned)

    def sample(self, noise: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """logits [..., V] -> (token [...] int32, its log-probability [...]), whatever the noise."""
        logits = self.transform(logits)
        return _with_logprob(logits, _argmax(logits))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """A draw from the tempered, then truncated distribution.

    Truncations work on what the one before left, in the order top_k, top_p, min_p, and keep every
    token that ties with the last one kept. Off are top_k=0, top_p=1 and min_p=0. top_p is the
    nucleus of arXiv 1904.09751, min_p the share of the best token's probability (2407.01082).
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    banned: tuple[int, ...]

    def __post_init__(self):
        _check_banned(self.banned)
        if not (_is_number(self.temperature) and 0 < self.temperature < math.inf):
            raise ValueError(
                f'temperature={self.temperature} must be above 0; for the most likely token '
                f'use Greedy'
            )
        if not _is_number(self.top_k) or self.top_k != int(self.top_k) or self.top_k < 0:
            raise ValueError(f'top_k={self.top_k} must be a whole number; 0 is off')
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f'top_p={self.top_p} must be in (0, 1]; 1.0 is off')
        if not _is_number(self.min_p) or not 0 <= self.min_p < 1:
            raise ValueError(f'min_p={self.min_p} must be in [0, 1); 0.0 is off')

    def transform(self, logits: jax.Array) -> jax.Array:
        """logits [..., V] -> float32 [..., V], -inf where excluded."""
        logits = _ban(logits, self.banned) / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = _keep(logits, _top_k_threshold(logits, self.top_k))
        if self.top_p < 1:
            logits = _keep(logits, _top_p_threshold(logits, self.top_p))
        if self.min_p > 0:
            logits = _keep(logits, logits.max(axis=-1, keepdims=True) + math.log(self.min_p))
        return logits

    def sample(self, noise: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """logits [..., V] -> (token [...] int32, its log-probability [...]).

        noise [..., 2] is uniform in [0, 1).
        """
        logits = self.transform(logits)
        return _with_logprob(logits, _draw(noise, logits))


Method = Greedy | Sampling


def _ban(logits: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    logits = logits.astype('float32')
    return logits.at[..., list(banned)].set(-jnp.inf) if banned else logits


def _keep(logits: jax.Array, threshold: jax.Array) -> jax.Array:
    return jnp.where(logits >= jax.lax.stop_gradient(threshold), logits, -jnp.inf)


def _top_k_threshold(logits: jax.Array, k: int) -> jax.Array:
    return jax.lax.top_k(logits, k)[0][..., -1:]


def _top_p_threshold(logits: jax.Array, p: float) -> jax.Array:
    """The least logit of the smallest set of likeliest tokens that holds probability p."""
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before < p) & (descending > -jnp.inf)
    return jnp.where(kept, descending, jnp.inf).min(axis=-1, keepdims=True)


def _draw(noise: jax.Array, logits: jax.Array) -> jax.Array:
    """A draw [...] from logits [..., V]: a block of tokens by its sum, then a token in it.

    It takes two random numbers, where the Gumbel trick takes V: 4 to 8 times as fast on CPU. With a
    number for each choice, shares down to 2 ** -46 are drawn.
    """
    V = logits.shape[-1]
    size = 1 << (V.bit_length() // 2)
    shares = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = jnp.pad(shares, [(0, 0)] * (logits.ndim - 1) + [(0, -V % size)])
    blocks = shares.reshape(*shares.shape[:-1], -1, size)
    block = _reached(blocks.sum(axis=-1), noise[..., 0])
    chosen = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return jnp.minimum(block * size + _reached(chosen, noise[..., 1]), V - 1)


def _reached(shares: jax.Array, noise: jax.Array) -> jax.Array:
    """The first index [...] at which the sum of shares [..., n] passes `noise` [...] of it all.

    Never one without a share, though sums of floats, made in a tree, need not ascend.
    """
    n = shares.shape[-1]
    sums = jnp.where(shares > 0, jnp.cumsum(shares, axis=-1), 0.0)
    passed = sums > noise[..., None] * sums.max(axis=-1, keepdims=True)
    return jnp.where(passed, jnp.arange(n, dtype='int32'), n - 1).min(axis=-1)


def _argmax(values: jax.Array) -> jax.Array:
    """The first index of the maximum, by two plain reductions.

    jnp.argmax is one reduction of pairs, which the CPU backend neither vectorises nor keeps apart
    from the noise: a draw with it takes 2.8 times as long.
    """
    V = values.shape[-1]
    best = values >= values.max(axis=-1, keepdims=True)
    return jnp.where(best, jnp.arange(V, dtype='int32'), V - 1).min(axis=-1)


def _with_logprob(logits: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    return token, logprobs.log_softmax_at(logits, token)[0]


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_banned(banned) -> None:
    if not isinstance(banned, tuple) or not all(isinstance(i, int) and i >= 0 for i in banned):
        raise ValueError(f'banned={banned!r} must be a tuple of token ids; () bans none')
