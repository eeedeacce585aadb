"""Supervised fine-tuning (SFT) on weighted examples, and perplexities of a model."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

import jax

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Example
from elenchus.model import placement, sharding
from elenchus.model.ranges import Range, checked
from elenchus.model.transformer import Transformer
from elenchus.train.input_transforms import READINGS, make_reader
from elenchus.train.loop import LoopSettings, check_rows, to_device
from elenchus.train.loss_weights import REWEIGHTINGS
from elenchus.train.objective import SFT, Objective
from elenchus.train.optimizer import OptimizerSettings, make_optimizer
from elenchus.train.step import IDENTITY, ExtraLoss, batch_logprobs, make_train_step


@dataclasses.dataclass(frozen=True)
@checked('fit')
class FitSettings:
    """Length and optimizer of one fit."""

    num_steps: Annotated[int, Range(0, 10_000_000)]  # 0 = no training
    optimizer: OptimizerSettings
    reweigh: Annotated[str, REWEIGHTINGS]  # factor of a token's weight, from the loss
    read: Annotated[str, READINGS]  # tokens that the model reads, instead of those it predicts


def make_fit_step(
    settings: FitSettings,
    loop: LoopSettings,
    *,
    objective: Objective = SFT,
    seed: int = 0,
    extra_loss: ExtraLoss | None = None,
):
    """Returns optimizer and train step of a fit. Raises ValueError if its rows do not divide.

    `seed` is that of the input transform's noise, `extra_loss` that of `make_train_step`.
    """
    check_rows(loop, sharding.current_mesh())
    optimizer = make_optimizer(settings.optimizer, num_steps=settings.num_steps)
    train_step = make_train_step(
        objective=dataclasses.replace(objective, reweigh=settings.reweigh),
        optimizer=optimizer,
        transform=IDENTITY,
        num_microbatches=loop.num_microbatches,
        skip_nonfinite=loop.nonfinite == 'skip',
        read=make_reader(settings.read, seed=seed, num_steps=settings.num_steps),
        extra_loss=extra_loss,
    )
    return optimizer, train_step


def perplexities(model: Transformer, examples: Sequence[Example], *, rows: int) -> list[float]:
    """Returns exp(mean negative log-likelihood) of each example's trained tokens.

    `rows` is the batch size of the forward passes.
    """
    if not examples:
        return []
    # Lengths in steps of 64: fewer shapes, so fewer compilations over the calls of a run.
    length = -(-max(len(example.tokens) for example in examples) // 64) * 64
    losses: list[float] = []
    for start in range(0, len(examples), rows):
        chunk = examples[start : start + rows]
        filled = [*chunk, *[chunk[-1]] * (rows - len(chunk))]
        row_losses = _mean_losses(model, to_device(packing.pad(filled, length=length)))
        losses += jax.device_get(row_losses)[: len(chunk)].tolist()
    return [math.exp(loss) for loss in losses]


@placement.pinned_jit(axes={'batch': placement.ROWS})
def _mean_losses(model: Transformer, batch: Batch) -> jax.Array:
    """Mean negative log-likelihood of each row's trained tokens, [B]."""
    logprobs, _ = batch_logprobs(model, batch, IDENTITY)
    return -(logprobs * batch.loss_mask).sum(axis=1) / batch.loss_mask.sum(axis=1)
