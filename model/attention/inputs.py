"""Inputs of attention that all layers with the same window share, and the shared-prompt layout."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class SharedPrompt(NamedTuple):
    """Row layout [prompt, sample 1, ..., sample n]: samples of one prompt read it only once.

    The prompt is padded on the left and every sample on the right, so that a sample always starts
    at a fixed index. Source: Prefix Grouper (arXiv 2506.05433).
    """

    samples: int  # samples per row
    prompt: int  # tokens reserved for the prompt
    response: int  # tokens reserved for each sample

    @property
    def length(self) -> int:
        """Tokens in one row."""
        return self.prompt + self.samples * self.response

    @property
    def sample_length(self) -> int:
        """Tokens of one sample together with its prompt."""
        return self.prompt + self.response

    def split_samples(self, x: jax.Array) -> jax.Array:
        """Splits rows into one row per sample, each behind a copy of its prompt.

        [B, length, ...] -> [B * samples, sample_length, ...].
        """
        prompt, responses = jnp.split(x, [self.prompt], axis=1)
        responses = responses.reshape(-1, self.response, *x.shape[2:])
        return jnp.concatenate([jnp.repeat(prompt, self.samples, axis=0), responses], axis=1)

    def split_heads(self, x: jax.Array) -> jax.Array:
        """`split_samples` of keys or values [B, K, length, H]."""
        return self.split_samples(x.swapaxes(1, 2)).swapaxes(1, 2)

    def join_samples(self, x: jax.Array) -> jax.Array:
        """Inverse of `split_samples`; takes the prompt of the first sample of each row.

        [B * samples, sample_length, ...] -> [B, length, ...].
        """
        prompt, responses = jnp.split(x, [self.prompt], axis=1)
        responses = responses.reshape(-1, self.samples * self.response, *x.shape[2:])
        return jnp.concatenate([prompt[:: self.samples], responses], axis=1)


class AttentionInputs(NamedTuple):
    """Inputs of attention that all layers with the same window share.

    `mask` is for the einsum, `segments` and `windows` are for the kernels, and `window_index`
    selects the window. With a shared prompt, mask and segments describe the rows after
    `SharedPrompt.split_samples`.
    """

    rotary: tuple[jax.Array, jax.Array]  # (cos, sin) from layers.rotary_table
    mask: jax.Array | None  # [B, T, S], True = attended; None for a kernel
    segments: jax.Array | None = None  # [B, T]; None: each row is one segment
    windows: tuple[int, ...] = (0,)  # keys that a query may attend to; 0 = all
    window_index: jax.Array | int = 0  # index into windows; may be known only on the device
    shared: SharedPrompt | None = None  # None: rows have no shared prompt
    write_at: jax.Array | None = None  # [B, T], indices of new tokens in a cache; None: no cache
    # Mesh axes that split the residual stream by position; with 'context', queries are a part.
    stream: tuple[str, ...] = ()


def select_inputs(candidates: Sequence[AttentionInputs], index: jax.Array) -> AttentionInputs:
    """Returns candidates[index] for an index that is known only on the device."""
    if len(candidates) == 1:
        return candidates[0]
    select = lambda *leaves: jax.lax.select_n(index, *leaves)  # noqa: E731
    rotary, mask = jax.tree.map(select, *((inputs.rotary, inputs.mask) for inputs in candidates))
    windows = tuple(window for inputs in candidates for window in inputs.windows)
    first = candidates[0]
    return AttentionInputs(
        rotary, mask, first.segments, windows, index, first.shared, stream=first.stream
    )
