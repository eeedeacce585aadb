"""Fitting a model to examples: SFT and every weighted form of it."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import optax

from elenchus.data.batching import packing, pipeline
from elenchus.data.files import atomic
from elenchus.data.records import Batch, Example
from elenchus.model import lora, sharding
from elenchus.model.transformer import Transformer
from elenchus.train import distributed
from elenchus.train.checkpoints.checkpoint import Checkpointer
from elenchus.train.metrics import writers
from elenchus.train.nonfinite import FiniteGuard
from elenchus.train.objective import SFT
from elenchus.train.optimizer import OptimizerSettings, make_optimizer
from elenchus.train.state import TrainState, init_state
from elenchus.train.step import Transform, batch_logprobs, make_train_step


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """Shapes and intervals that all training shares."""

    rows: int  # of a batch, over all processes
    length: int  # of a row
    num_microbatches: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    nonfinite: Literal['stop', 'skip']  # what a loss or gradient that is no number leads to
    compare_hosts_every: int  # steps after which processes compare weights and data; 0: never


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """One fit: how long and how."""

    num_steps: int
    optimizer: OptimizerSettings


State = TypeVar('State')
"""What a training loop carries: a TrainState, or one of each player."""

Updates = Sequence[tuple[Mapping[str, Any], Batch]]
"""Metrics on the device and host batch of each update."""

IDENTITY: Transform = lambda logits: logits  # noqa: E731
"""The transform of plain likelihood; one object, so that jit compiles once."""


def to_device(batch: Batch) -> Batch:
    """The batch, which every process has whole, sharded by row over the mesh in force.

    A process gives its own devices their rows and no others.
    """
    place = sharding.batch_sharding(jax.sharding.get_mesh())
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, place, lambda index: x[index]), batch
    )


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
    writer: writers.Writer,
    seed: int,
    description: str,
) -> tuple[Transformer, dict[str, float]]:
    """Trains a copy of `model`, or of its adapters, on packed, shuffled, repeated examples.

    Continues from the newest checkpoint in folder/checkpoints, with the same batches and metrics
    as if it had never stopped. Returns the model and totals. Raises as train_loop does.
    """
    check_rows(loop, jax.sharding.get_mesh())
    optimizer = make_optimizer(settings.optimizer, num_steps=settings.num_steps)
    train_step = make_train_step(
        objective=SFT,
        optimizer=optimizer,
        transform=IDENTITY,
        num_microbatches=loop.num_microbatches,
        skip_nonfinite=loop.nonfinite == 'skip',
    )
    batches = iter(make_batches(examples, loop=loop, seed=seed))
    trained, frozen = lora.split(model)

    def advance(step: int, state: TrainState):
        batch = next(batches)
        state, values = train_step(state, to_device(batch), frozen)
        return state, values | {'data/waste': packing.waste(batch)}, [(values, batch)]

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
    nats = -(values * batch.loss_mask).sum(axis=1) / batch.loss_mask.sum(axis=1)
    return sharding.constrain(nats, (None,))


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
    """Endless, shuffled, packed batches, the same on every process."""
    return pipeline.make_dataset(
        examples,
        seed=seed,
        rows=loop.rows,
        length=loop.length,
        num_epochs=None,
    )


def train_loop(
    state: State,
    advance: Callable[[int, State], tuple[State, dict, Updates]],
    *,
    num_steps: int,
    loop: LoopSettings,
    folder: pathlib.Path,
    writer: writers.Writer,
    description: str,
    cursor: Callable[[], dict],
    set_cursor: Callable[[dict], None],
    watch: Callable[[int, dict[str, float]], None] = lambda step, row: None,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[State, dict[str, float]]:
    """Runs advance(step, state) -> (state, metrics, updates) from the newest checkpoint on.

    A checkpoint holds the state and the caller's cursor, plain JSON, in one atomic step, so that
    a run that was stopped anywhere continues as if it had not been. `watch` sees every row that
    is written; once `enough` no further step begins. Returns the state and the last metrics
    written, {} where none were. Raises FloatingPointError (`nonfinite`), RuntimeError (processes
    apart), Preempted (SIGTERM).
    """
    checkpointer = Checkpointer(folder / 'checkpoints', keep=loop.keep_checkpoints)
    done, state, saved = checkpointer.restore(state) or (0, state, None)
    if saved is not None:
        set_cursor(saved)
    writer.truncate(done if done else -1)
    told = _Told(writers.Delayed(writer), FiniteGuard(folder, loop.nonfinite), watch)
    with writers.progress(num_steps, unit='steps', description=description) as bar:
        bar.advance(done)
        for step in range(done + 1, num_steps + 1):
            if enough():
                break
            state, values, updates = advance(step, state)
            shown = step % loop.log_every == 0 or step == num_steps
            told.push(step, updates, values if shown else None)
            compare_hosts(step, state, cursor, every=loop.compare_hosts_every)
            due, leaving = step % loop.checkpoint_every == 0, distributed.leaving()
            if step < num_steps and (due or leaving):
                told.flush()
                distributed.from_first(lambda: atomic.check_exists(folder))
                checkpointer.save(step, state, cursor())
                if leaving:
                    checkpointer.close()
                    raise distributed.Preempted(f'{description} is saved at step {step}')
            bar.advance(1)
    last = told.flush()
    checkpointer.close()
    return state, last


class _Told(NamedTuple):
    """What a loop has told of its steps: updates are guarded, rows written and shown."""

    rows: writers.Delayed
    guard: FiniteGuard
    watch: Callable[[int, dict[str, float]], None]

    def push(self, step: int, updates: Updates, row: dict | None) -> None:
        self.guard.push(step, updates)
        if row is not None:
            self._show(self.rows.push(step, row))

    def flush(self) -> dict[str, float]:
        """The last row, {} where none was pending."""
        self.guard.flush()
        return self._show(self.rows.flush())

    def _show(self, row: tuple[int, dict[str, float]] | None) -> dict[str, float]:
        if row is None:
            return {}
        self.watch(*row)
        return row[1]


def compare_hosts(step: int, state: State, cursor: Callable[[], dict], *, every: int) -> None:
    """Raises RuntimeError that names a process whose data position or weights are another's."""
    if jax.process_count() == 1 or not every or step % every:
        return
    told = json.dumps(cursor(), sort_keys=True).encode()
    distributed.check_same(f'data after step {step}', told)
    is_state = lambda x: isinstance(x, TrainState)  # noqa: E731
    models = jax.tree.map(lambda s: s.model, state, is_leaf=is_state)
    weights = dict(enumerate(jax.tree.leaves(models)))
    distributed.check_same(f'weights after step {step}', distributed.sum_bits(weights))


def check_rows(loop: LoopSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError where a batch does not divide over the mesh and the microbatches."""
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * loop.num_microbatches
    if loop.rows % parts:
        raise ValueError(
            f'train.rows={loop.rows} does not divide over data * fsdp * '
            f'num_microbatches = {parts}; '
            f'nearest: {max(1, loop.rows // parts) * parts}'
        )
