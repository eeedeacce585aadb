"""Step beam search: attempts grow line by line, and the critic's step rewards select the best."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from elenchus.data.records import Episode, Problem, Turn
from elenchus.model.ranges import NonNegativeInt, Range, SampleCount, checked
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time import partial_attempts, votes
from elenchus.sampling.test_time.partial_attempts import Cost
from elenchus.sampling.test_time.strategies import EvaluationSetup


@dataclasses.dataclass(frozen=True)
@checked('evaluate.beam')
class BeamSettings:
    """Settings of step beam search: `width` beams, each continued `expansions` times per step."""

    width: Annotated[int, Range(1, 10_000, off=0)]  # 0: no beam search
    expansions: SampleCount
    max_steps: SampleCount  # lines of an attempt
    aggregate: votes.Aggregate  # of the step rewards of the attempt so far
    num_problems: NonNegativeInt  # the first so many test questions are searched

    @property
    def ids_per_question(self) -> int:
        """Number of request ids that one question may use."""
        return self.width * self.expansions * self.max_steps


class _Beam(NamedTuple):
    """An unfinished or finished attempt, with its critique once it has a line."""

    episode: Episode
    score: float

    @property
    def attempt(self) -> Turn:
        """The attempt so far."""
        return self.episode.attempt


class _Search(NamedTuple):
    """Settings and counters shared by all steps of one search."""

    settings: BeamSettings
    setup: EvaluationSetup
    line_sampler: Sampler
    costs: list[Cost]  # by problem


def beam_search(
    settings: BeamSettings,
    setup: EvaluationSetup,
    problems: Sequence[Problem],
    *,
    line_sampler: Sampler,
    first_id: int,
) -> list[Episode]:
    """Returns the best attempt at each problem, judged, with the critique that scored it last.

    `line_sampler` must have an engine that also stops at line breaks. A step continues each
    unfinished beam by one line, `expansions` times; the first step starts from `width` empty beams.
    Finished beams keep their places; the other places go to the different continuations with the
    best aggregated step rewards. At the end a finished beam beats an unfinished one, then the score
    decides. The facts count all sampled `tokens` and model `calls`, also those of dropped beams.
    Question i uses the ids from first_id + i * settings.ids_per_question.
    """
    sampler = setup.models.sampler
    beams = [
        [_Beam(partial_attempts.empty_attempt(sampler, problem), 0.0)] * settings.width
        for problem in problems
    ]
    search = _Search(settings, setup, line_sampler, [Cost() for _ in problems])
    for step in range(settings.max_steps):
        expanded = _expand(search, beams, first_id=first_id, step=step)
        if not any(expanded):
            break
        scored = _score(search, expanded)
        beams = [_select(search, old, new) for old, new in zip(beams, scored, strict=True)]
    best = [max(group, key=lambda beam: _rank(sampler, beam)) for group in beams]
    return _judge(search, best, problems)


def _expand(
    search: _Search, beams: Sequence[Sequence[_Beam]], *, first_id: int, step: int
) -> list[list[Episode]]:
    """Samples the next line of every unfinished beam; returns the different attempts by problem."""
    settings, setup = search.settings, search.setup
    places = [
        (p, b)
        for p, group in enumerate(beams)
        for b, beam in enumerate(group)
        if not partial_attempts.has_ended(search.line_sampler, beam.attempt)
    ]
    first_ids = [
        first_id + p * settings.ids_per_question + (step * settings.width + b) * settings.expansions
        for p, b in places
    ]
    continuations = partial_attempts.continue_attempts(
        search.line_sampler,
        setup.models,
        [beams[p][b].episode for p, b in places],
        spec=SampleSpec(settings.expansions, setup.method, setup.seed, first_ids),
        costs=[search.costs[p] for p, _ in places],
    )
    # Keyed by tokens: the same line sampled twice is one beam.
    expanded: list[dict[tuple[int, ...], Episode]] = [{} for _ in beams]
    for (p, _), episodes in zip(places, continuations, strict=True):
        for episode in episodes:
            expanded[p].setdefault(episode.attempt.tokens, episode)
    return [list(episodes.values()) for episodes in expanded]


def _score(search: _Search, expanded: Sequence[Sequence[Episode]]) -> list[list[_Beam]]:
    """Criticises all attempts in one batch and aggregates their step rewards."""
    scored = iter(
        partial_attempts.score_attempts(
            search.setup.models,
            [episode for episodes in expanded for episode in episodes],
            scorer=search.setup.scorer,
            method=search.setup.method,
            costs=[cost for cost, group in zip(search.costs, expanded, strict=True) for _ in group],
        )
    )
    beams = []
    for group in expanded:
        episodes = [next(scored) for _ in group]
        how = search.settings.aggregate
        scores = [votes.aggregate(e.attempt.step_scores, how) for e in episodes]
        beams.append([_Beam(e, score) for e, score in zip(episodes, scores, strict=True)])
    return beams


def _select(search: _Search, old: Sequence[_Beam], new: Sequence[_Beam]) -> list[_Beam]:
    """Returns the finished beams and, in the remaining places, the new ones of highest score."""
    # Old beams that have not ended are not kept: their continuations replace them.
    sampler = search.setup.models.sampler
    finished = [beam for beam in old if partial_attempts.has_ended(sampler, beam.attempt)]
    # sorted() is stable, so the first of equal scores stays first on every host.
    best = sorted(new, key=lambda beam: -beam.score)
    return finished + best[: search.settings.width - len(finished)]


def _judge(search: _Search, best: Sequence[_Beam], problems: Sequence[Problem]) -> list[Episode]:
    """Adds the judged facts and the cost of the search to the best beams' episodes."""
    judged = partial_attempts.judge_attempts(
        search.setup.models, [beam.episode for beam in best], problems
    )
    return [e.with_facts(**cost.facts()) for e, cost in zip(judged, search.costs, strict=True)]


def _rank(sampler: Sampler, beam: _Beam) -> tuple[bool, float]:
    return sampler.chat.is_finished(beam.attempt), beam.score
