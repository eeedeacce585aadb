"""Supervised fine-tuning: the stages `base`, `actor` and `critic`, and the fit of other stages."""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from elenchus.data.batching import packing, pipeline
from elenchus.data.records import Batch, Example
from elenchus.model import lora
from elenchus.model.transformer import Transformer
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.loop import LoopSettings, init_train_state, to_device, train_loop
from elenchus.train.metrics import speed
from elenchus.train.nonfinite import Update
from elenchus.train.replayed_texts import Replay
from elenchus.train.run.directory import StageFolder
from elenchus.train.sft import FitSettings, make_fit_step
from elenchus.train.state import TrainState


class LazyExamples:
    """A corpus whose examples are made when they are read, so that it takes no memory.

    `examples[i]` is `make(i)`. All must fit into a row, since none is known before it is read.
    """

    def __init__(self, count: int, make: Callable[[int], Example]):
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        return self._make(int(index))


class CountedBatches:
    """Endless batches of packed examples, reshuffled every epoch, with counts of their tokens.

    The cursor, plain JSON, is the position in the data and the counts up to there.
    """

    def __init__(self, examples: Sequence, rows: int, length: int, *, seed: int):
        shape = {'rows': rows, 'length': length}
        self._batches = iter(pipeline.make_dataset(examples, seed=seed, num_epochs=None, **shape))
        self.counts = {'tokens_trained': 0, 'tokens_padding': 0}

    def __next__(self) -> Batch:
        return self.count(next(self._batches))

    def count(self, batch: Batch) -> Batch:
        """Adds the tokens of a batch to the counts, and returns the batch."""
        for name, count in packing.token_counts(batch).items():
            self.counts[name] += count
        return batch

    def cursor(self) -> dict[str, Any]:
        """Returns the position after the last batch."""
        return self._batches.get_state() | self.counts

    def set_cursor(self, cursor: dict[str, Any]) -> None:
        """Continues after the batch at which the cursor was taken."""
        self._batches.set_state(cursor)
        self.counts = {name: cursor[name] for name in self.counts}


def sft(
    model: Transformer,
    examples: Sequence[Example],
    *,
    settings: FitSettings,
    loop: LoopSettings,
    seed: int,
    stage: StageFolder | None = None,
    replay: Replay | None = None,
) -> tuple[Transformer, dict]:
    """Trains a copy of a model, or only its adapters if it has any; returns it and totals.

    Examples are packed into rows and shuffled by `seed`; those longer than a row are dropped and
    counted. With a `stage`, metrics and checkpoints go into its folder, and training continues from
    the newest checkpoint there, with the same batches as an uninterrupted run. Each step adds the
    loss of the texts of `replay`.
    """
    stage = stage or StageFolder.temporary()
    num_examples, examples = len(examples), drop_too_long(examples, loop, name=stage.path.name)
    extra_loss = None if replay is None else replay.loss
    optimizer, train_step = make_fit_step(settings, loop, seed=seed, extra_loss=extra_loss)
    batches = CountedBatches(examples, loop.rows, loop.length, seed=seed)
    trained, frozen = lora.split(model)

    def advance(step: int, state: TrainState):
        batch = next(batches)
        more = {} if replay is None else {'extra': replay.inputs(step, model, rows=loop.rows)}
        state, metrics = train_step(state, to_device(batch), frozen, **more)
        return state, metrics | {'data/waste': packing.waste(batch)}, [Update(metrics, batch)]

    with stage.metrics() as writer:
        state, last_row = train_loop(
            functools.partial(init_train_state, trained, optimizer),
            advance,
            num_steps=settings.num_steps,
            loop=loop,
            folder=stage.path,
            writer=writer,
            description=stage.path.name,
            cursor=batches.cursor,
            set_cursor=batches.set_cursor,
            flops_per_token=speed.training_flops_per_token(model, length=loop.length),
        )
    return lora.join(state.model, frozen), {
        **batches.counts,
        'final_loss': last_row.get('loss/total'),
        'examples': len(examples),
        'examples_too_long': num_examples - len(examples),
    }


def drop_too_long(
    examples: Sequence[Example], loop: LoopSettings, *, name: str
) -> Sequence[Example]:
    """Returns the examples that fit into a row. Raises ValueError if none does."""
    if isinstance(examples, LazyExamples):
        return examples
    if not examples:
        raise ValueError(f'{name}: there are no examples to train on')
    fitting = [e for e in examples if len(e.tokens) <= loop.length]
    if not fitting:
        raise ValueError(
            f'{name}: all {len(examples)} examples are longer than train.length={loop.length}; '
            'use longer rows or more problems'
        )
    return fitting


def sft_stage(
    stage: StageFolder,
    *,
    model: Transformer,
    examples: Sequence[Example],
    settings: FitSettings,
    loop: LoopSettings,
    store: ModelStore,
    seed: int,
    omitted: Mapping[str, int] = types.MappingProxyType({}),
    replay: Replay | None = None,
) -> dict:
    """Trains a model as `sft` does and saves it in the stage's folder; returns totals.

    `omitted` counts by reason what the caller could not make an example of; it is printed and
    returned.
    """
    options = {'settings': settings, 'loop': loop, 'seed': seed, 'stage': stage, 'replay': replay}
    before = model
    model, totals = sft(model, examples, **options)
    if replay is not None:
        totals['replay'] = replay.figures(before, model, rows=loop.rows)
    store.save(stage.path / 'model', model)
    totals |= omitted
    counts = {'examples_too_long': totals['examples_too_long'], **omitted}
    if any(counts.values()):
        listed = ', '.join(f'{n} {name.replace("_", " ")}' for name, n in counts.items() if n)
        print(f'   left out: {listed}')
    return totals


def base_stage(stage: StageFolder, *, checkpoint: str, model: Transformer, **options) -> dict:
    """Saves the base model: a checkpoint or fresh weights, trained further if asked to.

    `options` are those of `sft_stage`; with 0 steps the model is saved unchanged.
    """
    if options['settings'].num_steps:
        return sft_stage(stage, model=model, **options)
    options['store'].save(stage.path / 'model', model)
    return {'checkpoint': checkpoint}
