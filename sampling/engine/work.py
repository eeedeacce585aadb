"""Counts of what an engine has done, equal on all hosts; speeds and progress are from them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Work:
    """Sums over all calls of an engine; the difference of two is what happened between them."""

    sampled: int = 0  # tokens, those of requests that are still running included
    steps: int = 0  # decode steps
    slot_steps: int = 0  # steps times the slots that the program computed
    cache_positions: int = 0  # slot steps times the cache length that they read
    prompt_tokens: int = 0  # that prefill read; of prompts shared by samples once
    prefilled: int = 0  # tokens that prefill computed: rows times their length
    seconds: float = 0.0  # of `generate`

    def __add__(self, other: 'Work') -> 'Work':
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Work(*(a + b for a, b in pairs))

    def __sub__(self, other: 'Work') -> 'Work':
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Work(*(a - b for a, b in pairs))

    @property
    def slot_use(self) -> float | None:
        """Share of the computed slot steps that sampled a token; None if there were none."""
        return self.sampled / self.slot_steps if self.slot_steps else None

    @property
    def padded_prefill(self) -> float | None:
        """Share of the prefilled tokens that were padding; None if there were none."""
        return 1 - self.prompt_tokens / self.prefilled if self.prefilled else None

    @property
    def tokens_per_s(self) -> float | None:
        """Sampled tokens a second; None before anything took time."""
        return self.sampled / self.seconds if self.seconds else None


def chunk_work(advances, *, slots: int, length: int, tokens_per_step: int) -> Work:
    """Work of one chunk of decoding: `advances` are the tokens that each running slot sampled.

    The loop ends with its last running slot, which samples 1 to `tokens_per_step` tokens a step; so
    with drafts the number of steps is a lower bound.
    """
    steps = -(-int(max(advances, default=0)) // tokens_per_step)
    return Work(
        sampled=int(sum(advances)),
        steps=steps,
        slot_steps=steps * slots,
        cache_positions=steps * slots * length,
    )
