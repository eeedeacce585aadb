"""Weight average: an actor whose weights are the mean of those of other actors (a model soup)."""

from collections.abc import Callable, Mapping, Sequence

import jax

from elenchus.data.records import Problem
from elenchus.model import lora
from elenchus.model.transformer import Transformer
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config.prefer_settings import AverageSettings
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.evaluate import evaluate_actor


def average_models(
    loads: Sequence[Callable[[], Transformer]], weights: Sequence[float] = ()
) -> Transformer:
    """Returns the weighted mean of models, with adapters merged into their bases first.

    `loads` load the models one after the other, so that at most two are in memory. `weights` are
    divided by their sum; () means equal weights. Sums are float32. arXiv 2203.05482.

    Raises ValueError if the models have different shapes.
    """
    weights = list(weights) or [1.0] * len(loads)
    total, shapes, dtypes = None, [], None
    for load, weight in zip(loads, weights, strict=True):
        model, share = lora.merge(load()), weight / sum(weights)
        part = jax.tree.map(lambda x, share=share: share * x.astype('float32'), model)
        if total is None:
            total, shapes = part, _shapes(part)
            dtypes = jax.tree.map(lambda x: x.dtype, model)
            continue
        if _shapes(part) != shapes:
            raise ValueError('average.stages: the models have different shapes')
        total = jax.tree.map(lambda a, b: a + b, total, part)
    return jax.tree.map(lambda x, dtype: x.astype(dtype), total, dtypes)


def _shapes(model: Transformer) -> list[tuple]:
    return [(path, x.shape) for path, x in jax.tree_util.tree_leaves_with_path(model)]


def average_stage(
    stage: StageFolder,
    *,
    loads: Mapping[str, Callable[[], Transformer]],
    settings: AverageSettings,
    test_problems: Sequence[Problem],
    evaluation: EvaluateSettings,
    store: ModelStore,
    samplers: Samplers,
    seed: int,
) -> dict:
    """Averages the actors of the stages in `loads`, saves the result and evaluates it."""
    model = average_models([loads[name] for name in settings.stages], settings.weights)
    store.save(stage.path / 'model', model)
    options = {'settings': evaluation, 'samplers': samplers, 'seed': seed, 'stage': stage}
    return {'averaged': list(settings.stages)} | evaluate_actor(model, test_problems, **options)
