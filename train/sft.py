"""Supervised fine-tuning (SFT) on weighted examples, and perplexities of a model."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax

from elenchus.data.batching import packing, pipeline
from elenchus.data.records import Batch, Example
from elenchus.model import lora, sharding
from elenchus.model.transformer import Transformer
from elenchus.train.loop import LoopSettings, check_rows, init_train_state, to_device, train_loop
from elenchus.train.metrics import writers
from elenchus.train.objective import SFT
from elenchus.train.optimizer import OptimizerSettings, make_optimizer
from elenchus.train.state import TrainState
from elenchus.train.step import IDENTITY, batch_logprobs, make_train_step


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Length and optimizer of one fit."""

    num_steps: int  # 0 = no training
    optimizer: OptimizerSettings


def fit(
    model: Transformer,
    examples: Sequence[Example],
    *,
    settings: FitSettings,
    loop: LoopSettings,
    folder: pathlib.Path,
    writer: writers.Writer,
    seed: int,
    description: str,
) -> tuple[Transformer, dict[str, float]]:
    """Trains a copy of `model`, or only its adapters if it has any, on packed shuffled examples.

    Continues from the newest checkpoint in folder/checkpoints with the same batches and metrics
    as an uninterrupted run. Returns the model and totals. Raises the errors of train_loop.
    """
    check_rows(loop, sharding.current_mesh())
    optimizer = make_optimizer(settings.optimizer, num_steps=settings.num_steps)
    train_step = make_train_step(
        objective=SFT,
        optimizer=optimizer,
        transform=IDENTITY,
        num_microbatches=loop.num_microbatches,
        skip_nonfinite=loop.nonfinite == 'skip',
    )
    # num_epochs=None repeats the examples without end, in a new order each time.
    dataset = pipeline.make_dataset(
        examples, seed=seed, rows=loop.rows, length=loop.length, num_epochs=None
    )
    batches = iter(dataset)
    trained, frozen = lora.split(model)

    def advance(step: int, state: TrainState):
        batch = next(batches)
        state, metrics = train_step(state, to_device(batch), frozen)
        return state, metrics | {'data/waste': packing.waste(batch)}, [(metrics, batch)]

    state, last_row = train_loop(
        init_train_state(trained, optimizer),
        advance,
        num_steps=settings.num_steps,
        loop=loop,
        folder=folder,
        writer=writer,
        description=description,
        cursor=batches.get_state,
        set_cursor=batches.set_state,
    )
    totals = {'tokens_trained': settings.num_steps * loop.rows * loop.length}
    return lora.join(state.model, frozen), totals | {'final_loss': last_row.get('loss/total')}


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


@jax.jit
def _mean_losses(model: Transformer, batch: Batch) -> jax.Array:
    """Mean negative log-likelihood of each row's trained tokens, [B]."""
    logprobs, _ = batch_logprobs(model, batch, IDENTITY)
    losses = -(logprobs * batch.loss_mask).sum(axis=1) / batch.loss_mask.sum(axis=1)
    return sharding.constrain(losses, (None,))
