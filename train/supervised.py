"""Fitting a model to examples: SFT and every weighted form of it."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import optax

from data import packing, pipeline
from data.records import Batch, Example
from model import lora, sharding
from model.transformer import Transformer
from train import metrics
from train.checkpoint import Checkpointer
from train.objective import SFT
from train.optimizer import OptimizerSettings, make_optimizer
from train.state import TrainState, init_state
from train.step import Transform, batch_logprobs, make_train_step


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """Shapes and intervals that all training shares."""

    rows: int  # of a batch, over all processes
    length: int  # of a row
    num_microbatches: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """One fit: how long and how."""

    num_steps: int
    optimizer: OptimizerSettings


State = TypeVar('State')
"""What a training loop carries: a TrainState, or one of each player."""

IDENTITY: Transform = lambda logits: logits  # noqa: E731
"""The transform of plain likelihood; one object, so that jit compiles once."""


def to_device(batch: Batch) -> Batch:
    """A global batch from this process's rows, sharded over the mesh in force."""
    place = sharding.batch_sharding(jax.sharding.get_mesh())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), batch)


def start(
    model: Transformer | lora.Adapters, optimizer: optax.GradientTransformation
) -> TrainState:
    """A fresh state around a copy of `model`, which a donating train step may then consume."""
    copy = jax.tree.map(lambda x: x.copy(), model)
    return jax.jit(lambda model: init_state(model, optimizer), donate_argnums=0)(copy)


def fit(
    model: Transformer,
    examples: Sequence[Example],
    *,
    settings: FitSettings,
    loop: LoopSettings,
    folder: pathlib.Path,
    writer: metrics.Writer,
    seed: int,
    description: str,
) -> tuple[Transformer, dict[str, float]]:
    """Trains a copy of `model`, or of its adapters, on packed, shuffled, repeated examples.

    Continues from the newest checkpoint in folder/checkpoints, with the same batches and metrics
    as if it had never stopped. Returns the model and totals. Raises FloatingPointError, naming
    the step, where the loss is not finite; the last checkpoint stays.
    """
    check_rows(loop, jax.sharding.get_mesh())
    optimizer = make_optimizer(settings.optimizer, num_steps=settings.num_steps)
    train_step = make_train_step(
        objective=SFT,
        optimizer=optimizer,
        transform=IDENTITY,
        num_microbatches=loop.num_microbatches,
    )
    batches = iter(make_batches(examples, loop=loop, seed=seed))
    trained, frozen = lora.split(model)

    def advance(step: int, state: TrainState):
        batch = next(batches)
        state, values = train_step(state, to_device(batch), frozen)
        return state, values | {'data/waste': packing.waste(batch)}

    state, last = train_loop(
        start(trained, optimizer),
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
    return lora.join(state.model, frozen), totals | {'final_loss': last.get('loss/total')}


@jax.jit
def _nats(model: Transformer, batch: Batch) -> jax.Array:
    """Mean negative log-likelihood of each row's trained tokens, [B]."""
    values, _ = batch_logprobs(model, batch, IDENTITY)
    return -(values * batch.loss_mask).sum(axis=1) / batch.loss_mask.sum(axis=1)


def perplexities(model: Transformer, examples: Sequence[Example], *, rows: int) -> list[float]:
    """exp of the mean negative log-likelihood of each example's trained tokens."""
    if not examples:
        return []
    length = -(-max(len(example.tokens) for example in examples) // 64) * 64
    found: list[float] = []
    for start in range(0, len(examples), rows):
        some = examples[start : start + rows]
        filled = [*some, *[some[-1]] * (rows - len(some))]
        nats = _nats(model, to_device(packing.pad(filled, length=length)))
        found += jax.device_get(nats)[: len(some)].tolist()
    return [math.exp(value) for value in found]


def make_batches(
    examples: Sequence[Example], *, loop: LoopSettings, seed: int
) -> pipeline.PackedDataset:
    """This process's share of endless, shuffled, packed batches."""
    return pipeline.make_dataset(
        examples,
        seed=seed,
        rows=loop.rows // jax.process_count(),
        length=loop.length,
        num_epochs=None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def train_loop(
    state: State,
    advance: Callable[[int, State], tuple[State, dict]],
    *,
    num_steps: int,
    loop: LoopSettings,
    folder: pathlib.Path,
    writer: metrics.Writer,
    description: str,
    cursor: Callable[[], dict],
    set_cursor: Callable[[dict], None],
    watch: Callable[[int, dict[str, float]], None] = lambda step, row: None,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[State, dict[str, float]]:
    """Runs advance(step, state) -> (state, metrics) from the newest checkpoint to num_steps.

    A checkpoint holds the state and the caller's cursor, plain JSON, in one atomic step, so that
    a run that was stopped anywhere continues as if it had not been. `watch` sees every row that
    is written; once `enough` no further step begins. Returns the state and the last metrics
    written, {} where none were. Raises FloatingPointError where a loss is not finite.
    """
    check = functools.partial(check_row, watch=watch)
    done = 0
    checkpointer = Checkpointer(folder / 'checkpoints', keep=loop.keep_checkpoints)
    restored = checkpointer.restore(state)
    if restored is not None:
        done, state, saved = restored
        set_cursor(saved)
    writer.truncate(done if done else -1)
    delayed = metrics.Delayed(writer)
    with metrics.progress(num_steps, unit='steps', description=description) as bar:
        bar.advance(done)
        for step in range(done + 1, num_steps + 1):
            if enough():
                break
            state, values = advance(step, state)
            if step % loop.log_every == 0 or step == num_steps:
                check(delayed.push(step, values))
            if step % loop.checkpoint_every == 0 and step < num_steps:
                check(delayed.flush())
                checkpointer.save(step, state, cursor())
            bar.advance(1)
    last = delayed.flush()
    check(last)
    checkpointer.close()
    return state, last[1] if last else {}


def check_row(
    row: tuple[int, dict[str, float]] | None, *, watch: Callable[[int, dict[str, float]], None]
) -> None:
    """Shows a written row to `watch`. Raises FloatingPointError where a loss is not finite."""
    if row is None:
        return
    step, values = row
    watch(step, values)
    for name, value in values.items():
        if name.startswith('loss/') and name.endswith('/total') and not math.isfinite(value):
            raise FloatingPointError(
                f'step {step}: {name} is {value}; lower the '
                'learning rate or restart from the last checkpoint'
            )


def check_rows(loop: LoopSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError where a batch does not divide over the mesh and the microbatches."""
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * loop.num_microbatches
    if loop.rows % parts or loop.rows % jax.process_count():
        raise ValueError(
            f'train.rows={loop.rows} does not divide over data * fsdp * '
            f'num_microbatches = {parts}; '
            f'nearest: {max(1, loop.rows // parts) * parts}'
        )
