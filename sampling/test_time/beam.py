"""Step beam search: attempts grow line by line, and those that the critic finds best go on."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.test_time import votes
from elenchus.sampling.test_time.strategies import Conditions, score_steps


@dataclasses.dataclass(frozen=True)
class BeamSettings:
    """W beams, each continued E times a step; width 0 is no search."""

    width: int
    expansions: int
    max_steps: int  # lines of an attempt
    aggregate: votes.Aggregate  # of the step rewards of the attempt so far
    num_problems: int  # questions searched, the first ones

    def __post_init__(self):
        for name, least in (('width', 0), ('expansions', 1), ('max_steps', 1)):
            if getattr(self, name) < least:
                raise ValueError(f'beam.{name}={getattr(self, name)} must be at least {least}')

    @property
    def ids(self) -> int:
        """Request ids that a question takes."""
        return self.width * self.expansions * self.max_steps


class _Beam(NamedTuple):
    """An attempt so far, with its critique once it has a line."""

    episode: Episode
    score: float

    @property
    def attempt(self) -> Turn:
        return self.episode.turn('attempt')


def beam_search(
    settings: BeamSettings,
    conditions: Conditions,
    lines: Sampler,
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> list[Episode]:
    """The best attempt found at each problem, judged, with the critique that scored it last.

    `lines` must be a sampler whose engine stops at line breaks as well. A step continues each
    unfinished beam by a line, E times; the first step begins with W empty beams. Of the different
    continuations, the best by aggregated step reward take the places that finished beams, which
    stay, have left. At the end a finished beam goes before an unfinished one, then the score
    decides. The outcome counts all sampled `tokens` and model `calls`, dropped beams' included.
    first_id must leave `settings.ids` ids a problem.
    """
    sampler = conditions.players.sampler
    beams = [[_empty(sampler, problem)] * settings.width for problem in problems]
    costs = [_Cost() for _ in problems]
    for step in range(settings.max_steps):
        expanded = _expand(settings, conditions, lines, beams, costs, first_id=first_id, step=step)
        if not any(expanded):
            break
        scored = _score(settings, conditions, expanded, costs)
        beams = [
            _survivors(settings, sampler, old, new) for old, new in zip(beams, scored, strict=True)
        ]
    best = [max(found, key=lambda beam: _rank(sampler, beam)) for found in beams]
    return _judged(conditions, best, problems, costs)


class _Cost:
    """What the search at one problem has cost: tokens and calls by role."""

    def __init__(self):
        self.tokens, self.calls = collections.Counter(), collections.Counter()

    def add(self, role: str, tokens: int) -> None:
        self.tokens[role] += tokens
        self.calls[role] += 1


def _expand(settings, conditions, lines: Sampler, beams, costs, *, first_id, step):
    """By problem, the different attempts that its unfinished beams go on to."""
    places = [
        (p, b)
        for p, found in enumerate(beams)
        for b, beam in enumerate(found)
        if not _ended(lines, beam)
    ]
    openings = [beams[p][b].attempt for p, b in places]
    first = [
        first_id + p * settings.ids + (step * settings.width + b) * settings.expansions
        for p, b in places
    ]
    made = lines.continued(
        conditions.players.actor,
        [_given(beams[p][b].episode) for p, b in places],
        openings,
        num_samples=settings.expansions,
        method=conditions.method,
        seed=conditions.seed,
        first_id=first,
    )
    expanded: list[dict[tuple[int, ...], Episode]] = [{} for _ in beams]
    for (p, b), opening, turns in zip(places, openings, made, strict=True):
        for turn in turns:
            costs[p].add('attempt', len(turn.tokens) - len(opening.tokens))
            episode = beams[p][b].episode
            grown = dataclasses.replace(episode, turns=(*_given(episode), turn), outcome={})
            expanded[p].setdefault(turn.tokens, grown)
    return [list(found.values()) for found in expanded]


def _score(settings, conditions, expanded, costs) -> list[list[_Beam]]:
    """The critic's aggregated step rewards of every attempt, in one batch."""
    scored = iter(
        score_steps(
            conditions.players,
            [episode for found in expanded for episode in found],
            scorer=conditions.scorer,
            greedy=Greedy(conditions.method.banned),
            seed=conditions.seed,
        )
    )
    beams = []
    for found, cost in zip(expanded, costs, strict=True):
        episodes = [next(scored) for _ in found]
        for episode in episodes:
            cost.add('critique', len(episode.turn('critique').tokens))
        scores = [
            votes.aggregate(e.turn('attempt').step_scores, settings.aggregate) for e in episodes
        ]
        beams.append([_Beam(e, score) for e, score in zip(episodes, scores, strict=True)])
    return beams


def _survivors(settings, sampler: Sampler, old: list[_Beam], new: list[_Beam]) -> list[_Beam]:
    """Finished beams, and the best new ones in the places left; the first among equals."""
    stay = [beam for beam in old if _ended(sampler, beam)]
    best = sorted(new, key=lambda beam: -beam.score)
    return stay + best[: settings.width - len(stay)]


def _judged(conditions, best: Sequence[_Beam], problems, costs) -> list[Episode]:
    players = conditions.players
    texts = [players.sampler.text(beam.attempt) for beam in best]
    facts = players.judge(list(zip(problems, texts, strict=True)))
    return [
        dataclasses.replace(
            beam.episode,
            outcome=fact
            | beam.episode.outcome
            | {'tokens': dict(cost.tokens), 'calls': dict(cost.calls)},
        )
        for beam, fact, cost in zip(best, facts, costs, strict=True)
    ]


def _empty(sampler: Sampler, problem: Problem) -> _Beam:
    attempt = Turn('attempt', sampler.chat.header('attempt'), ())
    turns = (*sampler.chat.question_turns(problem.question), attempt)
    return _Beam(Episode(problem.id, problem.level, turns, {}), 0.0)


def _given(episode: Episode) -> tuple[Turn, ...]:
    """The turns before the attempt."""
    return episode.turns[: [turn.role for turn in episode.turns].index('attempt')]


def _ended(sampler: Sampler, beam: _Beam) -> bool:
    """Whether an attempt came to its end token, or to the limit of its length."""
    full = len(beam.attempt.tokens) >= sampler.max_tokens['attempt']
    return full or sampler.chat.is_finished(beam.attempt)


def _rank(sampler: Sampler, beam: _Beam) -> tuple[bool, float]:
    return sampler.chat.is_finished(beam.attempt), beam.score
