"""Generator: the interface of everything that samples completions.

`Engine` (engine.py) and `PrefixCachedEngine` (prefix_cached_engine.py) implement it, and so do the
scripted engines of the tests. Code that only samples should depend on this interface.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.requests import Completion, Request
from elenchus.sampling.engine.sampling_methods import Method


@runtime_checkable
class Generator(Protocol):
    """Samples completions of prompts and counts what this costs.

    The counters never go down. The cost of a series of calls is the difference of a counter
    before and after it.
    """

    @property
    def tokens(self) -> int:
        """Tokens of all completions so far."""

    @property
    def steps(self) -> int:
        """Forward passes of all completions so far, counted for each sequence on its own."""

    def generate(
        self, model: Transformer, requests: Sequence[Request], *, method: Method, seed: int
    ) -> list[Completion]:
        """Samples one completion per request and returns them in the order of `requests`.

        A completion is a function of (model, request, method, seed), not of the other requests.
        Raises ValueError if a request is too long or if two requests have the same id.
        """

    def with_prefix_cache(self) -> 'Generator':
        """This generator with an empty prefix cache, or unchanged if the cache is off.

        Later prompts then reuse the keys and values of earlier sequences that they start with.
        """
