"""Sampling methods: greedy, and temperature sampling with top-k, top-p and min-p truncation.

A method is a frozen value that selects the traced program. `transform` maps logits to the whole
distribution that is sampled from. A trainer that passes it to model.logprobs.token_logprobs
therefore recomputes the log-probabilities that the sampler recorded. `with_rules` adds functions of
a user's own (token_rules.py).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from elenchus.model import logprobs, numerics, platforms
from elenchus.model.ranges import Range, checked
from elenchus.sampling.engine.token_rules import Place, TokenRule

Temperature = Annotated[float, Range(0.01, 100.0, note='0.01 is nearly Greedy')]
TopK = Annotated[int, Range(1, 1 << 24, off=0)]
TopP = Annotated[float, Range(1e-6, 1.0, note='1.0 is off')]
MinP = Annotated[float, Range(0.0, 0.999, note='0.0 is off')]

MIN_BLOCK, MAX_BLOCK = 64, 256
"""Sizes of the blocks of a vocabulary in which `_argmax` looks, if they divide it."""


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Selects the most likely token; its log-probability is that at temperature 1, untruncated."""

    banned: tuple[int, ...]  # token ids with probability 0

    def __post_init__(self):
        _check_banned(self.banned)

    def transform(self, logits: jax.Array) -> jax.Array:
        """Maps logits [..., V] to float32 [..., V], with -inf for excluded tokens."""
        return _ban(logits, self.banned)

    def sample(self, noise: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Selects from logits [..., V] -> (token [...] int32, its log-probability [...]).

        The noise is not used.
        """
        logits = self.transform(logits)
        return _with_logprob(logits, _argmax(logits))


@dataclasses.dataclass(frozen=True)
@checked('sampling')
class TemperatureSampling:
    """Draws from the distribution after temperature, top-k, top-p and min-p, in this order.

    Each truncation renormalises what the previous one kept, and keeps all tokens that tie with its
    least likely one.
    """

    temperature: Temperature  # logits are divided by it
    top_k: TopK  # number of most likely tokens to keep; 0 = off
    top_p: TopP  # probability of the nucleus to keep (arXiv 1904.09751); 1.0 = off
    min_p: MinP  # least share of the best token's probability (arXiv 2407.01082); 0.0 = off
    banned: tuple[int, ...]  # token ids with probability 0

    def __post_init__(self):
        _check_banned(self.banned)
        if not isinstance(self.top_k, int):
            raise ValueError(f'sampling.top_k={self.top_k} must be an integer; 0 is off')

    def transform(self, logits: jax.Array) -> jax.Array:
        """Maps logits [..., V] to float32 [..., V], with -inf for excluded tokens."""
        logits = _ban(logits, self.banned) / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = _keep(logits, _top_k_threshold(logits, self.top_k))
        if self.top_p < 1:
            threshold = functools.partial(_top_p_threshold, p=self.top_p)
            logits = _keep(logits, numerics.by_rows(threshold, logits))
        if self.min_p > 0:
            logits = _keep(logits, logits.max(axis=-1, keepdims=True) + math.log(self.min_p))
        return logits

    def sample(self, noise: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws from logits [..., V] -> (token [...] int32, its log-probability [...]).

        noise [..., 2] is uniform in [0, 1).
        """
        logits = self.transform(logits)
        return _with_logprob(logits, _draw(noise, logits))


@dataclasses.dataclass(frozen=True)
class RuledTransform:
    """The `transform` of a RuledMethod: a logits rule, then the method; it needs token places."""

    method: Greedy | TemperatureSampling
    rule: TokenRule
    reads_places: ClassVar[bool] = True

    def __call__(self, logits: jax.Array, place: Place) -> jax.Array:
        """Maps logits [..., V] to float32 [..., V]; `place` has fields [...]."""
        return self.method.transform(self.rule.logits(logits, place))


@dataclasses.dataclass(frozen=True)
class RuledMethod:
    """A method whose logits a rule changes first, and a rule that pauses turns; None = no rule."""

    method: Greedy | TemperatureSampling
    logits: TokenRule | None
    pause: TokenRule | None

    @property
    def banned(self) -> tuple[int, ...]:
        """Token ids with probability 0."""
        return self.method.banned

    @property
    def transform(self) -> Callable[..., jax.Array]:
        """The method's `transform`; with a logits rule, a RuledTransform."""
        return RuledTransform(self.method, self.logits) if self.logits else self.method.transform

    def sample(
        self, noise: jax.Array, logits: jax.Array, place: Place
    ) -> tuple[jax.Array, jax.Array]:
        """Samples as the method does, from the logits that the rule changes."""
        return self.method.sample(
            noise, self.logits.logits(logits, place) if self.logits else logits
        )


Method = Greedy | TemperatureSampling | RuledMethod


def with_rules(
    method: Greedy | TemperatureSampling, logits: TokenRule | None, pause: TokenRule | None
) -> Method:
    """Returns the method with these rules; itself without any."""
    return RuledMethod(method, logits, pause) if logits or pause else method


def without_rules(method: Method) -> Greedy | TemperatureSampling:
    """Returns the method without its rules."""
    return method.method if isinstance(method, RuledMethod) else method


def of_role(method: Method, role: str, *, pauses: bool) -> Method:
    """Returns the method with the rules for turns of a role; a pause rule only with `pauses`."""
    if not isinstance(method, RuledMethod):
        return method
    logits, pause = (
        rule if rule is not None and role in rule.roles else None
        for rule in (method.logits, method.pause)
    )
    return with_rules(method.method, logits, pause if pauses else None)


def greedy_of(method: Method) -> Method:
    """Returns greedy decoding with the banned tokens and the rules of a method."""
    greedy = Greedy(method.banned)
    if not isinstance(method, RuledMethod):
        return greedy
    return with_rules(greedy, method.logits, method.pause)


def _ban(logits: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    logits = logits.astype('float32')
    return logits.at[..., list(banned)].set(-jnp.inf) if banned else logits


def _keep(logits: jax.Array, threshold: jax.Array) -> jax.Array:
    # NaN is below nothing and so stays: it must become an error, and not an excluded token.
    return jnp.where(logits < jax.lax.stop_gradient(threshold), -jnp.inf, logits)


def _top_k_threshold(logits: jax.Array, k: int) -> jax.Array:
    return jax.lax.top_k(logits, k)[0][..., -1:]


def _top_p_threshold(logits: jax.Array, p: float) -> jax.Array:
    """Least logit [..., 1] of the smallest set of most likely tokens with probability >= p."""
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before < p) & (descending > -jnp.inf)
    return jnp.where(kept, descending, jnp.inf).min(axis=-1, keepdims=True)


def _draw(noise: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws tokens [...] from logits [..., V]: first a block of about sqrt(V), then one in it.

    This needs two random numbers per token instead of V Gumbel numbers, which is 4 to 8 times as
    fast on a CPU. Two numbers of 23 random bits also reach probabilities down to 2 ** -46.
    """
    V = logits.shape[-1]
    size = 1 << (V.bit_length() // 2)
    shares = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = jnp.pad(shares, [(0, 0)] * (logits.ndim - 1) + [(0, -V % size)])
    blocks = shares.reshape(*shares.shape[:-1], -1, size)
    block = _invert_cdf(blocks.sum(axis=-1), noise[..., 0])
    chosen = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    # Logits that are NaN would give an index past the end.
    return jnp.minimum(block * size + _invert_cdf(chosen, noise[..., 1]), V - 1)


def _invert_cdf(shares: jax.Array, noise: jax.Array) -> jax.Array:
    """First index [...] where the cumulative sum of shares [..., n] exceeds noise [...] * total."""
    n = shares.shape[-1]
    # XLA sums in a tree, so a cumulative sum of floats may decrease. Setting it to 0 for indices
    # without a share makes sure that none of these is drawn.
    sums = jnp.where(shares > 0, jnp.cumsum(shares, axis=-1), 0.0)
    passed = sums > noise[..., None] * sums.max(axis=-1, keepdims=True)
    return jnp.where(passed, jnp.arange(n, dtype='int32'), n - 1).min(axis=-1)


def _argmax(values: jax.Array) -> jax.Array:
    """First index of the maximum; on a CPU by plain reductions.

    jnp.argmax is one reduction of (value, index) pairs, which XLA does not vectorise on a CPU: a
    draw with it takes 2.8 times as long. The maximum's block is found first, so that of a large
    vocabulary only one array is read, and none written.
    """
    if platforms.target_platform() != 'cpu':
        return jnp.argmax(values, axis=-1).astype('int32')
    V = values.shape[-1]
    size = math.gcd(V, MAX_BLOCK)
    if size < MIN_BLOCK or V <= MAX_BLOCK:
        return _first_of_maximum(values)
    blocks = values.reshape(*values.shape[:-1], -1, size)
    block = _first_of_maximum(blocks.max(axis=-1))
    chosen = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * size + _first_of_maximum(chosen)


def _first_of_maximum(values: jax.Array) -> jax.Array:
    """First index of the maximum over the last dimension; the last index if it is NaN."""
    V = values.shape[-1]
    best = values >= values.max(axis=-1, keepdims=True)
    return jnp.where(best, jnp.arange(V, dtype='int32'), V - 1).min(axis=-1)


def _with_logprob(logits: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    return token, logprobs.log_softmax_at(logits, token)[0]


def _check_banned(banned) -> None:
    if not isinstance(banned, tuple) or not all(isinstance(i, int) and i >= 0 for i in banned):
        raise ValueError(f'banned={banned!r} must be a tuple of token ids; () = none')
