"""Methods of requests: a service may have several sampling methods, and a request names its own.

    methods = Methods((TemperatureSampling(...), Greedy(...)))
    service = engine.serve(model, method=methods, seed=0)
    service.submit(Request(7, prompt, max_tokens=64, method=1))  # greedily

So attempts by temperature and greedy critiques of one model can be in one set of slots. A method
with rules (sampling_methods.with_rules) gives its requests a logits rule and a stop rule too. Every
method samples every slot, and a slot keeps the token of its own: a step costs what all of them do.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.sampling_methods import Method, RuledMethod
from elenchus.sampling.engine.token_rules import Place


@dataclasses.dataclass(frozen=True)
class Methods:
    """Sampling methods that requests choose from by their index."""

    methods: tuple[Method, ...]

    def __post_init__(self):
        is_tuple = isinstance(self.methods, tuple) and bool(self.methods)
        if not is_tuple or not all(isinstance(method, Method) for method in self.methods):
            raise ValueError(f'methods={self.methods!r} must be a tuple of one or more methods')


AnyMethod = Method | Methods


class Drawn(NamedTuple):
    """Tokens drawn from logits [..., V]."""

    token: jax.Array  # [...] int32
    logprob: jax.Array  # [...] float32
    pauses: jax.Array | None  # [...] bool, whether the turn pauses after the token; None: never


def draw(
    method: AnyMethod, noise: jax.Array, logits: jax.Array, *, place: Place, index: jax.Array
) -> Drawn:
    """Draws from logits [..., V] by the method; of several, by that of `index`.

    noise is [..., 2], `place` has fields [...], and `index` has a shape that broadcasts to [...].
    """
    if isinstance(method, Methods):
        return _choose(
            [draw(m, noise, logits, place=place, index=index) for m in method.methods], index
        )
    if not isinstance(method, RuledMethod):
        return Drawn(*method.sample(noise, logits), pauses=None)
    token, logprob = method.sample(noise, logits, place)
    pauses = method.pause.pauses(token, logits, place) if method.pause else None
    return Drawn(token, logprob, pauses)


def _choose(drawn: list[Drawn], index: jax.Array) -> Drawn:
    """Returns, at each place, what the method of `index` has drawn there."""
    token, logprob, pauses = drawn[0]
    never = jnp.zeros(token.shape, bool)
    pauses = never if pauses is None else pauses
    for i, other in enumerate(drawn[1:], start=1):
        is_it = index == i
        token = jnp.where(is_it, other.token, token)
        logprob = jnp.where(is_it, other.logprob, logprob)
        pauses = jnp.where(is_it, never if other.pauses is None else other.pauses, pauses)
    return Drawn(token, logprob, pauses)


def check_method(method: AnyMethod, request: Request) -> None:
    """Raises ValueError if the service has no method of the request's index."""
    count = len(method.methods) if isinstance(method, Methods) else 1
    if not 0 <= request.method < count:
        raise ValueError(
            f'request {request.id}: method={request.method} must be in [0, {count}), the methods '
            'of its service'
        )
