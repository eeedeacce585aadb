"""Explorers: how the training responses of a self-improvement round are found."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence

from elenchus.data.records import Episode, Problem
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.engine import Metered
from elenchus.sampling.engine.sampling_methods import Greedy, Method
from elenchus.sampling.exploration import proposals
from elenchus.sampling.exploration.context import (
    Asked,
    ExploreSettings,
    Players,
    Search,
    note,
    well_answered,
)

Explorer = Callable[[Search, Sequence[Problem]], list[Episode]]
"""Every judged response to some questions, right or wrong, as noted whole conversations."""


def explore(
    settings: ExploreSettings,
    players: Players,
    problems: Sequence[Problem],
    *,
    explorer: str,
    method: Method,
    seed: int,
    first_id: int,
) -> tuple[list[Episode], int]:
    """(what one explorer of EXPLORERS found on some problems, sampled tokens).

    All explorers begin with the same `num_attempts` unguided attempts. first_id must leave
    settings.ids ids a problem.
    """
    meter = Metered(players.sampler.engine)
    players = dataclasses.replace(
        players, sampler=dataclasses.replace(players.sampler, engine=meter)
    )
    search = Search(settings, players, method, seed, first_id)
    return EXPLORERS[explorer](search, problems), meter.tokens


def vanilla(search: Search, problems: Sequence[Problem]) -> list[Episode]:
    """Unguided attempts; with a token budget, one more at every question until it is spent."""
    attempts = _attempts(search, problems)
    rounds = search.settings.num_uniform_rounds if search.settings.token_budget else 0
    return _in_rounds(
        search, problems, attempts, proposals.unguided, num_rounds=rounds, everyone=True
    )


def critique_in_the_loop(search: Search, problems: Sequence[Problem]) -> list[Episode]:
    """Unguided attempts; each wrong one gets one greedy critique and `num_refinements`.

    Refinements tell in `of` which attempt they are of.
    """
    s, sampler = search.settings, search.players.sampler
    attempts = _attempts(search, problems)
    asked = [p for p in problems for _ in range(s.num_attempts)]
    wrong = [i for i, episode in enumerate(attempts) if not episode.outcome['correct']]
    criticised = episode_lib.critiques(
        sampler,
        search.players.critic,
        [attempts[i] for i in wrong],
        grammar=search.players.grammar,
        method=Greedy(search.method.banned),
        seed=search.seed + 1,
        first_id=search.first_id,
    )
    groups = episode_lib.refinements(
        sampler,
        search.players.actor,
        criticised,
        [asked[i] for i in wrong],
        judge=search.players.judge,
        method=search.method,
        num_samples=s.num_refinements,
        seed=search.seed + 2,
        first_id=search.first_id,
    )
    refined = []
    for i, group in zip(wrong, groups, strict=True):
        noted = (note(sampler, e, asked[i], 'refinement') for e in group)
        refined += [dataclasses.replace(e, outcome=e.outcome | {'of': i}) for e in noted]
    return attempts + refined


def resampling(search: Search, problems: Sequence[Problem], *, by: str) -> list[Episode]:
    """Unguided attempts, then rounds of one proposal for each question with too few right ones."""
    s = search.settings
    rounds = s.num_uniform_rounds if by == 'uniform' else s.num_guided_rounds
    attempts, propose = _attempts(search, problems), proposals.PROPOSALS[by]
    return _in_rounds(search, problems, attempts, propose, num_rounds=rounds, everyone=False)


def _attempts(search: Search, problems: Sequence[Problem]) -> list[Episode]:
    players, n = search.players, search.settings.num_attempts
    made = episode_lib.attempts(
        players.sampler,
        players.actor,
        problems,
        judge=players.judge,
        method=search.method,
        seed=search.seed,
        num_samples=n,
        first_id=search.first_id,
    )
    asked = (p for p in problems for _ in range(n))
    return [note(players.sampler, e, p, 'attempt') for e, p in zip(made, asked, strict=True)]


def _in_rounds(
    search: Search,
    problems: Sequence[Problem],
    attempts: Sequence[Episode],
    propose: Callable[..., list[Episode]],
    *,
    num_rounds: int,
    everyone: bool,
) -> list[Episode]:
    """The attempts, and proposals a round for everyone or for questions with too few right ones."""
    found, groups = list(attempts), collections.defaultdict(list)
    for episode in attempts:
        groups[episode.problem_id].append(episode)
    for number in range(num_rounds):
        asked = [
            Asked(problem, groups[problem.id], search.first_id + i)
            for i, problem in enumerate(problems)
            if everyone or sum(map(well_answered, groups[problem.id])) < search.settings.enough
        ]
        if not asked or not search.affordable(len(problems)):
            break
        made = propose(search, asked, number=number)
        for episode in made:
            groups[episode.problem_id].append(episode)
        found += made
    return found


EXPLORERS: dict[str, Explorer] = {
    'vanilla': vanilla,
    'critique_in_the_loop': critique_in_the_loop,
    **{by: functools.partial(resampling, by=by) for by in proposals.PROPOSALS},
}
