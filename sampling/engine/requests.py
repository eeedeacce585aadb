"""Requests to the sampling engine, and their completions."""

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from elenchus.sampling.engine.shapes import EngineSettings


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt, and the largest number of tokens to sample after it.

    The id selects the noise: the same seed and id repeat the same sample, whatever other requests
    run beside it.
    """

    id: int  # unique within one call of generate; below 2 ** 31, as it is an int32 on the device
    prompt: tuple[int, ...]  # token ids, at least one
    max_tokens: int  # at least 1
    opening: int = 0  # last tokens of the prompt that are of the turn itself
    method: int = 0  # index of its sampling method, of a service with several (request_methods.py)

    def __post_init__(self):
        for name in ('id', 'max_tokens', 'opening', 'method'):
            if not isinstance(getattr(self, name), int | np.integer):
                raise ValueError(f'request {self.id!r}: {name}={getattr(self, name)!r} is no int')
        if not isinstance(self.prompt, tuple):
            raise ValueError(
                f'request {self.id}: the prompt is a {type(self.prompt).__name__}; nearest: a tuple'
            )
        if not 0 <= self.id < 2**31:
            raise ValueError(f'request id {self.id} must be in [0, 2**31)')
        if not self.prompt or self.max_tokens < 1:
            raise ValueError(
                f'request {self.id}: {len(self.prompt)} prompt tokens and '
                f'max_tokens={self.max_tokens} must both be at least 1'
            )
        if not 0 <= self.opening < len(self.prompt):
            raise ValueError(
                f'request {self.id}: opening={self.opening} must be in [0, {len(self.prompt)}), '
                'tokens of the prompt'
            )


@dataclasses.dataclass(frozen=True)
class Completion:
    """The tokens that were sampled for one request.

    Raises FloatingPointError that names the request if the distribution of a token was not finite.
    """

    id: int  # of the request
    tokens: tuple[int, ...]  # includes the stop token, if one was sampled
    logprobs: tuple[float, ...]  # of each token, under the distribution it was sampled from
    finished: bool  # True: the last token is a stop token; False: max_tokens, or a pause
    steps: int  # forward passes used; with prompt lookup, one pass may yield several tokens

    def __post_init__(self):
        # A log-probability of NaN or inf is what logits that are NaN, inf or all excluded give; the
        # sum, which is cheap, has it too.
        if not math.isfinite(sum(self.logprobs)):
            at = next((i for i, x in enumerate(self.logprobs) if not math.isfinite(x)), 0)
            raise FloatingPointError(
                f'request {self.id}: the log-probability of token {at} is {self.logprobs[at]}: the '
                'logits are NaN or infinite, or all tokens are banned; check the weights of the '
                'model'
            )


def check_requests(settings: EngineSettings, requests: Sequence[Request], seed: int) -> None:
    """Raises ValueError, with the sizes, if an engine cannot take a request or the seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f'seed={seed} must be in [0, 2**32)')
    longest, max_length = settings.prompt_buckets[-1], settings.max_length
    room = settings.lookup.room
    behind = f', of which reflection takes {room}' if room else ''
    counts = collections.Counter(request.id for request in requests)
    for request in requests:
        length = len(request.prompt)
        if counts[request.id] > 1:
            raise ValueError(
                f'request id {request.id} occurs {counts[request.id]} times; '
                f'use a different id for each request'
            )
        if length > longest:
            raise ValueError(
                f'request {request.id}: {length} prompt tokens exceed the last of '
                f'sampling.engine.prompt_buckets; use at most {longest}'
            )
        most = max_length - room - length
        if request.max_tokens > most:
            nearest = (
                f'max_tokens of at most {most}'
                if most > 0
                else f'at most {max_length - room - 1} prompt tokens'
            )
            raise ValueError(
                f'request {request.id}: {length} prompt tokens and max_tokens='
                f'{request.max_tokens} exceed sampling.engine.max_length={max_length}{behind}; '
                f'use {nearest}'
            )
