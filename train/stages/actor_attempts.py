"""Attempts of an actor alone at the test problems, plain or after a guide."""

import functools
from collections.abc import Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.metrics import measures
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.evaluate_figures import by_level


def sample_attempts(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    judge: Judge,
    method: Method,
    seed: int,
    num_samples: int,
    first: int,
    condition: measures.Condition | None = None,
) -> list[Episode]:
    """Samples attempts at test problems from index `first` on: the same noise for every actor."""
    return episode_lib.sample_attempts(
        sampler,
        actor,
        problems,
        judge=judge,
        spec=SampleSpec(num_samples, method, seed, first * num_samples),
        guides=[condition(problem) for problem in problems] if condition else (),
    )


def sample_actor(
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
    name: str,
    condition: measures.Condition | None = None,
) -> tuple[Sequence[Episode], int]:
    """Samples an actor's attempts alone, into the folder `name`, with the noise of `evaluate`."""
    parts = stage.parts(name, problems, description='evaluate')
    for part in parts.missing():
        episodes = sample_attempts(
            samplers.whole_turns(),
            actor,
            part.items,
            judge=samplers.inputs.judge,
            method=samplers.method(),
            seed=derive_seed(seed, 'evaluate'),
            num_samples=settings.num_attempts,
            first=part.first,
            condition=condition,
        )
        part.write(episodes, episode_lib.sampled_tokens(episodes))
    return parts.read()


def evaluate_conditions(
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[dict[str, dict], dict[str, list[RolloutGroup]], int]:
    """Samples attempts after the guides of `settings.conditions`.

    Returns {'conditions': figures by name}, or {} without any; the groups by name; and the tokens.
    """
    figures, by_name, num_tokens = {}, {}, 0
    for reference in settings.conditions:
        name = reference.rpartition(':')[2]
        episodes, count = sample_actor(
            actor,
            problems,
            settings=settings,
            samplers=samplers,
            seed=seed,
            stage=stage,
            name=f'conditions/{name}',
            condition=functools.partial(measures.guide, reference),
        )
        groups = by_name[name] = records.group_episodes(problems, episodes)
        right = [np.mean([e.attempt.facts.correct for e in group]) for group in groups]
        figures[name] = {'accuracy': by_level(settings, problems, right), 'tokens': count}
        num_tokens += count
    return ({'conditions': figures} if figures else {}), by_name, num_tokens
