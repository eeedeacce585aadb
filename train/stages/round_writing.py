"""Problems and memory that players write for a round of self-improvement, besides responses."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from elenchus.data.records import Episode, Problem
from elenchus.sampling.exploration import guides, making
from elenchus.sampling.exploration.context import counts_as_right
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.writing import Notes
from elenchus.train import distributed
from elenchus.train.config.run_settings import ImproveSettings
from elenchus.train.run.directory import StageFolder, read_json
from elenchus.train.run.samplers import Samplers

DERIVED = 'derived_problems.json'
MEMORY = 'memory.json'


def with_derived_problems(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: ImproveSettings,
    samplers: Samplers,
    number: int,
    seed: int,
    stage: StageFolder,
) -> tuple[list[Problem], dict, int]:
    """Returns the problems followed by new ones made from them, figures, and the tokens sampled.

    The new problems are stored, so that a resumed round has the same.
    """
    if settings.make == 'none':
        return list(problems), {}, 0
    stored = _read(stage, DERIVED)
    if stored is None:
        before = pair.sampler.engine.tokens
        derived, counts = making.make_problems(
            pair,
            [(problem, Notes(number=number - 1)) for problem in problems],
            reference=settings.make,
            spec=_spec(samplers, derive_seed(seed, 'make', number)),
            room=samplers.settings.prompt_room,
        )
        stored = {
            'problems': list(map(dataclasses.asdict, derived)),
            'counts': counts,
            'tokens': pair.sampler.engine.tokens - before,
        }
        stage.write_json(DERIVED, stored)
    new = [Problem(**fields) for fields in stored['problems']]
    return [*problems, *new], {'derived_problems': stored['counts']}, stored['tokens']


def memory_before(
    stage: StageFolder, settings: ImproveSettings, *, number: int
) -> Mapping[str, str]:
    """Returns the memory, texts by name, that the previous round stored; {} without one."""
    if number == 1 or not guides.remembers(settings.explore.player_guide):
        return {}
    path = stage.path.parent / f'round-{number - 1}' / MEMORY
    return distributed.run_on_first(lambda: read_json(path))['memory']


def with_learnt(
    pair: ModelPair,
    problems: Sequence[Problem],
    explored: Sequence[Episode],
    *,
    memory: Mapping[str, str],
    settings: ImproveSettings,
    samplers: Samplers,
    number: int,
    seed: int,
    stage: StageFolder,
) -> tuple[dict, int]:
    """Stores the memory after a round; returns {'memory': its size}, {} without one, and tokens.

    The guide's function learns of every problem with the responses that were explored.
    """
    reference = settings.explore.player_guide
    if not guides.remembers(reference):
        return {}, 0
    stored = _read(stage, MEMORY)
    if stored is None:
        before, text = pair.sampler.engine.tokens, pair.sampler.chat.text
        groups = collections.defaultdict(list)
        for episode in explored:
            groups[episode.problem_id].append(episode.response)
        items = [
            (
                problem,
                Notes(
                    number=number - 1,
                    responses=tuple(map(text, groups[problem.id])),
                    accepted=tuple(map(counts_as_right, groups[problem.id])),
                    memory=memory,
                ),
            )
            for problem in problems
        ]
        kept = guides.learn(
            pair,
            items,
            reference=reference,
            memory=memory,
            spec=_spec(samplers, derive_seed(seed, 'learn', number)),
            room=samplers.settings.prompt_room,
        )
        stored = {'memory': kept, 'tokens': pair.sampler.engine.tokens - before}
        stage.write_json(MEMORY, stored)
    return {'memory': len(stored['memory'])}, stored['tokens']


def _spec(samplers: Samplers, seed: int) -> SampleSpec:
    return SampleSpec(1, samplers.method(), seed, 0)


def _read(stage: StageFolder, name: str) -> dict | None:
    """What the first process finds in a file of the stage's folder; None if there is none."""
    path = stage.path / name
    return distributed.run_on_first(lambda: read_json(path) if path.exists() else None)
