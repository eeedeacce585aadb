"""Old and reference log-probabilities of sampled rows, in passes as large as a microbatch."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from elenchus.data.batching import shared_prompts
from elenchus.data.records import Batch
from elenchus.model import placement
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.logprobs import token_logprobs
from elenchus.model.transformer import Transformer
from elenchus.train.loop import to_device
from elenchus.train.step import TokenNumbers, Transform, batch_logprobs


def make_logprobs(
    *,
    transform: Transform,
    shared: SharedPrompt | None,
    rows: int,
    numbers: TokenNumbers = token_logprobs,
) -> Callable[[Transformer, Batch], np.ndarray]:
    """Returns logprobs(model, batch) -> [B, T]; batch and result are host arrays.

    A pass has `rows` rows (in the layout of `shared`), whatever the size of the batch: with as many
    as a microbatch of the update it needs less memory than the update. With other `numbers`, such
    as values, the result has these numbers of each token.
    """

    @placement.pinned_jit(axes={'batch': placement.ROWS})
    def forward(model: Transformer, batch: Batch) -> jax.Array:
        return batch_logprobs(model, batch, transform, shared=shared, numbers=numbers)[0]

    def logprobs(model: Transformer, batch: Batch) -> np.ndarray:
        batch, restore_layout = change_layout(batch, shared)
        parts = [forward(model, to_device(part)) for part in split_rows(batch, rows)]
        values = np.concatenate(jax.device_get(parts))
        return restore_layout(values[: len(batch.tokens)])

    logprobs.program = forward  # for the dry run, which compiles it
    return logprobs


def split_rows(batch: Batch, rows: int) -> Iterator[Batch]:
    """Yields parts of exactly `rows` rows; the last one repeats its last row where rows lack."""
    total = len(batch.tokens)
    for start in range(0, total, rows):
        index = np.minimum(np.arange(start, start + rows), total - 1)
        yield Batch(*(values[index] for values in batch))


def change_layout(
    batch: Batch, shared: SharedPrompt | None
) -> tuple[Batch, Callable[[np.ndarray], np.ndarray]]:
    """Brings a batch of one sequence per row into the layout of `shared`, on the host.

    Returns it with a function that brings values of the new layout back to one sequence per row.
    """
    if shared is None:
        return batch, lambda values: values
    merged, places = shared_prompts.share_prompts(batch, **shared._asdict())
    return merged, lambda values: places.scatter(values, batch.tokens.shape)
