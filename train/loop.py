"""The training loop that SFT and reinforcement share: steps, metrics, checkpoints, preemption."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import optax

from elenchus.data.files import atomic
from elenchus.data.records import Batch
from elenchus.model import lora, placement
from elenchus.model.ranges import Length, NonNegativeInt, PositiveInt, checked
from elenchus.model.transformer import Transformer
from elenchus.train import distributed, preemption
from elenchus.train.checkpoints.training_state import Checkpointer
from elenchus.train.early_end import early_end
from elenchus.train.metrics import profiling, progress, writers
from elenchus.train.metrics.activity import activity
from elenchus.train.metrics.speed import TrainingSpeed
from elenchus.train.nonfinite import FiniteGuard, Update
from elenchus.train.state import TrainState, init_state


@dataclasses.dataclass(frozen=True)
@checked('train')
class LoopSettings:
    """Batch shape and intervals that all training stages share."""

    rows: PositiveInt  # rows of a batch, over all processes
    length: Length  # tokens of a row
    num_microbatches: PositiveInt  # gradient accumulation; does not change the loss
    log_every: PositiveInt  # steps between rows of metrics
    checkpoint_every: PositiveInt  # steps between checkpoints
    keep_checkpoints: PositiveInt  # older checkpoints are deleted
    keep_finished_checkpoints: NonNegativeInt  # of a stage or round whose model is saved
    nonfinite: Literal['stop', 'skip']  # reaction to a NaN or infinite loss or gradient
    # Steps between comparisons of weights across processes; 0 = off.
    compare_hosts_every: NonNegativeInt


WRITTEN = 'written'
"""Key of a checkpoint's cursor: what `Writer.written` returned when it was saved."""

State = TypeVar('State')
"""State of a training loop: a TrainState, or one TrainState of each player."""

Updates = Sequence[Update]
"""The updates of a step."""


def to_device(batch: Batch) -> Batch:
    """Shards a batch of host arrays by row over the current mesh.

    Every process has the whole batch and copies only the rows of its own devices. Raises ValueError
    if the rows do not divide over the mesh.
    """
    return placement.current().place(batch, placement.ROWS)


def init_train_state(
    model: Transformer | lora.Adapters, optimizer: optax.GradientTransformation
) -> TrainState:
    """Builds the initial state around a copy of `model`, each optimizer moment like its weight.

    The train step donates its state; without the copy it would delete the caller's weights.
    """
    return placement.current().init(state_initializer(optimizer), model)


def state_initializer(optimizer: optax.GradientTransformation):
    """Returns the function of `init_train_state`: model -> state around a copy of it."""
    return lambda model: init_state(jax.tree.map(jnp.copy, model), optimizer)


def train_loop(
    init: Callable[[], State],
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
    should_stop: Callable[[], bool] = lambda: False,
    flops_per_token: float = 0.0,
) -> tuple[State, dict[str, float]]:
    """Runs advance(step, state) -> (state, metrics, updates), from the newest checkpoint on.

    A checkpoint holds the state and the cursor (plain JSON), so a killed run continues bit for bit.
    Returns the state and the last row. Raises FloatingPointError (an update is not finite),
    RuntimeError (processes disagree) and Preempted (SIGTERM; the state is saved). If `advance`
    raises Interrupted, the state before its step is saved; if StepInterrupted, that within it.
    """
    checkpointer = Checkpointer(folder / 'checkpoints', keep=loop.keep_checkpoints)
    done, state = restore_or_init(checkpointer, init, set_cursor, writer=writer)
    guard = FiniteGuard(folder, loop.nonfinite)
    reporter = LoopReporter(writers.Delayed(writer), guard, watch, TrainingSpeed(flops_per_token))
    saver = LoopSaver(checkpointer, reporter, folder, cursor, description)
    bar = progress.progress(num_steps, unit='steps', description=description)
    with checkpointer, bar, profiling.StepTrace(writer.name) as trace:
        bar.skip(done)
        for step in range(done + 1, num_steps + 1):
            if should_stop():  # read before each step
                break
            with saver.leaving(step, state):
                state, metrics, updates = advance(step, state)
            is_logged = step % loop.log_every == 0 or step == num_steps
            speeds = reporter.push(step, updates, row=metrics if is_logged else None)
            compare_hosts(step, state, cursor, every=loop.compare_hosts_every)
            preempted = preemption.requests.is_requested()
            if step < num_steps and (preempted or step % loop.checkpoint_every == 0):
                saver.save(step, state)
                if preempted:
                    saver.leave(step)
            bar.advance(1, **speeds)
            trace.tick()
        last_row = reporter.flush()
    saver.close()
    return state, last_row


def restore_or_init(
    checkpointer: Checkpointer,
    init: Callable[[], State],
    set_cursor: Callable[[dict], None],
    *,
    writer: writers.Writer,
) -> tuple[int, State]:
    """Returns (steps taken, state): of the newest checkpoint, or (0, init()) if there is none.

    A restored state has the shardings of a new one, which is not created beside it. Rows of later
    steps are removed: these were lost with the killed process and are repeated now.
    """
    abstract = placement.current().abstract(jax.eval_shape(init))
    restored = checkpointer.restore(abstract)
    activity.mark('restoring')
    if restored is None:
        writer.truncate(-1)
        return 0, init()
    step, state, cursor = restored
    written = cursor.pop(WRITTEN, None)
    set_cursor(cursor)
    writer.truncate(step if step else -1)
    if written is not None:  # a checkpoint of an earlier version does not say it
        writer.check(step, written)
    return step, state


class StepInterrupted(preemption.Interrupted):
    """Leaves a step after some of its updates; the cursor says which of them were taken."""

    def __init__(self, state: Any, updates: Updates):
        super().__init__()
        self.state, self.updates = state, updates


class LoopReporter(NamedTuple):
    """Checks the updates of a step and writes its metrics, both one step late.

    Reading a device scalar waits for its computation; a step later it is there already, so the
    host never stalls the device.
    """

    rows: writers.Delayed
    guard: FiniteGuard
    watch: Callable[[int, dict[str, float]], None]
    speed: TrainingSpeed

    def push(self, step: int, updates: Updates, *, row: dict | None) -> dict[str, float]:
        """Takes a step's updates and its row of metrics; None if the step is not logged.

        Returns the speeds since the logged step before, which are written too.
        """
        self.guard.push(step, updates)
        self.speed.push(update.batch for update in updates)
        activity.mark('steps')
        if row is None:
            return {}
        speeds = self.speed.row()
        self._watch_row(self.rows.push(step, row | {f'time/{n}': x for n, x in speeds.items()}))
        return speeds

    def flush(self) -> dict[str, float]:
        """Reports the pending step; returns its row, {} if none was pending."""
        self.guard.flush()
        return self._watch_row(self.rows.flush())

    def _watch_row(self, row: tuple[int, dict[str, float]] | None) -> dict[str, float]:
        if row is None:
            return {}
        self.watch(*row)
        progress.show(**progress.figures_of(row[1]))
        return row[1]


class LoopSaver(NamedTuple):
    """Saves the state of a training loop, and leaves the loop on a request to stop."""

    checkpointer: Checkpointer
    reporter: LoopReporter
    folder: pathlib.Path
    cursor: Callable[[], dict]
    description: str

    @contextlib.contextmanager
    def leaving(self, step: int, state: Any) -> Iterator[None]:
        """Saves and raises Preempted if a request to stop interrupts the block, which is a step."""
        try:
            yield
            early_end.has_steps = True
        except StepInterrupted as stop:
            self.reporter.guard.push(step, stop.updates)
            self.leave(step - 1, stop.state)
        except preemption.Interrupted:
            # The initial state takes no longer to make than to restore.
            is_saved = step == 1 or self.checkpointer.newest == step - 1
            self.leave(step - 1, None if is_saved else state)

    def save(self, step: int, state: Any) -> None:
        """Starts to save the state after a step, if it is finite; the metrics are written first."""
        self.reporter.flush()  # raises first, so that a non-finite state is never saved
        distributed.run_on_first(lambda: atomic.check_exists(self.folder))
        cursor = self.cursor() | {WRITTEN: self.reporter.rows.written()}
        self.checkpointer.save(step, state, cursor)
        activity.mark('saving')

    def close(self) -> None:
        """Waits until everything is written."""
        self.checkpointer.close()
        activity.mark('saving')

    def leave(self, step: int, state: Any = None) -> NoReturn:
        """Saves the state, if one is given, waits until all is written, and raises Preempted."""
        with preemption.requests.saving():
            if state is not None:
                self.save(step, state)
            self.close()
        raise preemption.Preempted(f'{self.description} is saved at step {step}') from None


def compare_hosts(step: int, state: State, cursor: Callable[[], dict], *, every: int) -> None:
    """Raises RuntimeError that names each process with another data position or other weights."""
    if jax.process_count() == 1 or not every or step % every:
        return
    position = json.dumps(cursor(), sort_keys=True).encode()
    distributed.check_same(f'data after step {step}', position)
    is_state = lambda x: isinstance(x, TrainState)  # noqa: E731
    models = jax.tree.map(lambda s: s.model, state, is_leaf=is_state)
    weights = dict(enumerate(jax.tree.leaves(models)))
    distributed.check_same(f'weights after step {step}', distributed.sum_bits(weights))


def check_rows(loop: LoopSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError if a batch does not divide over the mesh and the microbatches."""
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * loop.num_microbatches
    if loop.rows % parts:
        raise ValueError(
            f'train.rows={loop.rows} does not divide over data * fsdp * '
            f'num_microbatches = {parts}; '
            f'nearest: {max(1, loop.rows // parts) * parts}'
        )
