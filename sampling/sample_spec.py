"""Sampling specification: number of samples, sampling method and noise."""

import dataclasses
from collections.abc import Sequence

from elenchus.sampling.engine.sampling_methods import Method, greedy_of


@dataclasses.dataclass(frozen=True)
class SampleSpec:
    """Number of samples per prompt, how tokens are chosen, and which random numbers are used.

    The noise of a token is a function of (seed, request id, position) alone, so a sample does not
    depend on the other requests of its batch. Sample j of prompt i has the request id

        first_id + i * num_samples + j    where first_id is an integer,
        first_id[i] + j                   where it lists one id per prompt.

    Two calls with the same seed draw the same noise for the same id. Compared strategies share
    samples that way, and a part of a data set is sampled as in the whole: give the part that
    starts at prompt k `first_id=k * num_samples`. Calls that must be independent need another
    seed or disjoint ids.

    >>> from elenchus.sampling.engine.sampling_methods import Greedy
    >>> list(SampleSpec(num_samples=2, method=Greedy(()), seed=0, first_id=10).first_ids(3))
    [10, 12, 14]
    """

    num_samples: int  # per prompt
    method: Method
    seed: int  # in [0, 2 ** 32)
    first_id: int | Sequence[int]  # request ids are below 2 ** 31

    @classmethod
    def greedy(cls, method: Method) -> 'SampleSpec':
        """Returns the specification of the most likely turn; it has no noise to select.

        Tokens are banned, and rules apply, as in `method`.
        """
        return cls(num_samples=1, method=greedy_of(method), seed=0, first_id=0)

    def first_ids(self, num_prompts: int) -> Sequence[int]:
        """Returns the request id of each prompt's first sample."""
        if isinstance(self.first_id, int):
            end = self.first_id + num_prompts * self.num_samples
            return range(self.first_id, end, self.num_samples)
        return self.first_id
