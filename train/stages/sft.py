"""Supervised fine-tuning: the stages `base`, `actor` and `critic`, and the fit of other stages."""

from collections.abc import Callable, Sequence

from elenchus.data.records import Example
from elenchus.model.transformer import Transformer
from elenchus.train import sft as sft_loop
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.loop import LoopSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.sft import FitSettings


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


def sft(
    model: Transformer,
    examples: Sequence[Example],
    *,
    settings: FitSettings,
    loop: LoopSettings,
    seed: int,
    stage: StageFolder | None = None,
) -> tuple[Transformer, dict]:
    """Trains a copy of a model on examples; returns it and totals. `seed` orders the data.

    Examples longer than a row (`loop.length`) are dropped and counted. With a `stage`, metrics and
    checkpoints go into its folder, and training resumes from the newest checkpoint there.
    """
    stage = stage or StageFolder.temporary()
    num_examples = len(examples)
    if not isinstance(examples, LazyExamples):
        examples = [e for e in examples if len(e.tokens) <= loop.length]
    if not examples:
        raise ValueError(
            f'{stage.path.name}: all {num_examples} examples are longer than '
            f'train.length={loop.length}; use longer rows or more problems'
        )
    with stage.metrics() as writer:
        model, totals = sft_loop.fit(
            model,
            examples,
            settings=settings,
            loop=loop,
            folder=stage.path,
            writer=writer,
            seed=seed,
            description=stage.path.name,
        )
    dropped = num_examples - len(examples)
    return model, totals | {'examples': len(examples), 'examples_too_long': dropped}


def sft_stage(
    stage: StageFolder,
    *,
    model: Transformer,
    examples: Sequence[Example],
    settings: FitSettings,
    loop: LoopSettings,
    store: ModelStore,
    seed: int,
) -> dict:
    """Trains a model as `sft` does and saves it in the stage's folder; returns totals."""
    model, totals = sft(model, examples, settings=settings, loop=loop, seed=seed, stage=stage)
    store.save(stage.path / 'model', model)
    return totals


def base_stage(stage: StageFolder, *, checkpoint: str, model: Transformer, **options) -> dict:
    """Saves the base model: a checkpoint or fresh weights, trained further if asked to.

    `options` are those of `sft_stage`; with 0 steps the model is saved unchanged.
    """
    if options['settings'].num_steps:
        return sft_stage(stage, model=model, **options)
    options['store'].save(stage.path / 'model', model)
    return {'checkpoint': checkpoint}
