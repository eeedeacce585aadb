"""Searches of the stage `evaluate`: beams and trees, each in its own folder of parts."""

import dataclasses
from collections.abc import Sequence

from elenchus.data.records import Episode, Problem
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.test_time import beam, strategies
from elenchus.sampling.trees.search import TreeSearch, search_trees
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers


def sample_searches(
    setup: strategies.EvaluationSetup,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Sequence[Episode], Sequence[Episode], int]:
    """Runs beam search and tree search, if on; returns (beams, trees, tokens sampled)."""
    beams, trees, num_tokens = [], [], 0
    if settings.beam.width:
        search = dataclasses.replace(setup, seed=derive_seed(seed, 'beam'))
        lines = samplers.lines()
        beams, count = sample_beams(search, problems, settings=settings, lines=lines, stage=stage)
        num_tokens += count
    if settings.tree_problems:
        search, searched = samplers.trees(), problems[: settings.tree_problems]
        setup = dataclasses.replace(setup, seed=derive_seed(seed, 'tree'))
        trees, count = sample_trees(setup, searched, search=search, stage=stage)
        num_tokens += count
    return beams, trees, num_tokens


def sample_beams(
    setup: strategies.EvaluationSetup,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    lines: Sampler,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Runs step beam search on the first test problems; returns the best attempts and tokens."""
    s = settings.beam
    parts = stage.parts('beam', problems[: s.num_problems])
    for part in parts.missing():
        episodes = beam.beam_search(
            s, setup, part.items, line_sampler=lines, first_id=part.first * s.ids_per_question
        )
        part.write(episodes, sum(sum(e.facts.tokens.values()) for e in episodes))
    return parts.read()


def sample_trees(
    setup: strategies.EvaluationSetup,
    problems: Sequence[Problem],
    *,
    search: TreeSearch,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Runs a tree search on each problem; returns the best attempts, and all tokens sampled."""
    each, parts = search.settings.num_nodes, stage.parts('tree', problems)
    for part in parts.missing():
        results = search_trees(
            search,
            setup.models,
            part.items,
            method=setup.method,
            seed=setup.seed,
            first_ids=[(part.first + i) * each for i in range(len(part.items))],
        )
        episodes = [result.best for result in results]
        part.write(episodes, sum(sum(e.facts.tokens.values()) for e in episodes))
    return parts.read()
