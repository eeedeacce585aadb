"""Step beam search: attempts grow line by line, and the critic's step rewards select the best."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from elenchus.data.records import Episode, Problem, Turn
from elenchus.model.ranges import NonNegativeInt, Range, SampleCount, checked
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import step_scores
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time import votes
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


class _Cost:
    """Tokens, model calls and processed tokens of the search at one problem, by role."""

    def __init__(self):
        self.tokens, self.calls = collections.Counter(), collections.Counter()
        self.processed = collections.Counter()

    def add(self, role: str, *, prompt: int, tokens: int) -> None:
        """Counts one call of a role that read a prompt of so many tokens and sampled so many."""
        self.tokens[role] += tokens
        self.calls[role] += 1
        self.processed[role] += prompt + tokens

    def facts(self) -> dict[str, dict[str, int]]:
        """Returns the facts of an episode that have the cost."""
        return {name: dict(counts) for name, counts in vars(self).items()}


class _Search(NamedTuple):
    """Settings and counters shared by all steps of one search."""

    settings: BeamSettings
    setup: EvaluationSetup
    line_sampler: Sampler
    costs: list[_Cost]  # by problem


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
    beams = [[_empty_beam(sampler, problem)] * settings.width for problem in problems]
    search = _Search(settings, setup, line_sampler, [_Cost() for _ in problems])
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
        if not _has_ended(search.line_sampler, beam)
    ]
    openings = [beams[p][b].attempt for p, b in places]
    first_ids = [
        first_id + p * settings.ids_per_question + (step * settings.width + b) * settings.expansions
        for p, b in places
    ]
    continuations = search.line_sampler.continue_turns(
        setup.models.actor,
        [_before_attempt(beams[p][b].episode) for p, b in places],
        openings,
        spec=SampleSpec(settings.expansions, setup.method, setup.seed, first_ids),
    )
    line_context = search.line_sampler.chat.context
    # Keyed by tokens: the same line sampled twice is one beam.
    expanded: list[dict[tuple[int, ...], Episode]] = [{} for _ in beams]
    for (p, b), opening, turns in zip(places, openings, continuations, strict=True):
        before = _before_attempt(beams[p][b].episode)
        # An earlier step sampled the opening; to this call it is a part of the prompt.
        prompt = len(line_context(before, 'attempt')) + len(opening.tokens)
        for turn in turns:
            new = len(turn.tokens) - len(opening.tokens)
            search.costs[p].add('attempt', prompt=prompt, tokens=new)
            grown = dataclasses.replace(beams[p][b].episode, turns=(*before, turn))
            expanded[p].setdefault(turn.tokens, grown)
    return [list(episodes.values()) for episodes in expanded]


def _score(search: _Search, expanded: Sequence[Sequence[Episode]]) -> list[list[_Beam]]:
    """Criticises all attempts in one batch and aggregates their step rewards."""
    setup = search.setup
    # One call over all problems, so that the engine and the scoring pass run full batches.
    criticised = episode_lib.sample_critiques(
        setup.models.sampler,
        setup.models.critic,
        [episode for episodes in expanded for episode in episodes],
        grammar=setup.models.grammar,
        spec=SampleSpec.greedy(setup.method),
    )
    scored = iter(step_scores.score_steps(setup.models, criticised, scorer=setup.scorer))
    beams = []
    for group, cost in zip(expanded, search.costs, strict=True):
        episodes = [next(scored) for _ in group]
        for episode in episodes:
            prompt = setup.models.sampler.chat.context(episode.turns[:-1], 'critique')
            cost.add('critique', prompt=len(prompt), tokens=len(episode.critique.tokens))
        how = search.settings.aggregate
        scores = [votes.aggregate(e.attempt.step_scores, how) for e in episodes]
        beams.append([_Beam(e, score) for e, score in zip(episodes, scores, strict=True)])
    return beams


def _select(search: _Search, old: Sequence[_Beam], new: Sequence[_Beam]) -> list[_Beam]:
    """Finished beams, and the best new ones in the remaining places; the first of equals."""
    # Old beams that have not ended are not kept: their continuations replace them.
    finished = [beam for beam in old if _has_ended(search.setup.models.sampler, beam)]
    # sorted() is stable, so the first of equal scores stays first on every host.
    best = sorted(new, key=lambda beam: -beam.score)
    return finished + best[: search.settings.width - len(finished)]


def _judge(search: _Search, best: Sequence[_Beam], problems: Sequence[Problem]) -> list[Episode]:
    """Adds the judged facts and the cost of the search to the best beams' episodes."""
    models = search.setup.models
    texts = [models.sampler.text(beam.attempt) for beam in best]
    facts = models.judge(list(zip(problems, texts, strict=True)))
    # The attempt keeps the critic's score of its answer beside the judged facts.
    return [
        beam.episode.with_turn_facts(
            'attempt', **dataclasses.asdict(fact) | {'score': beam.attempt.facts.score}
        ).with_facts(**cost.facts())
        for beam, fact, cost in zip(best, facts, search.costs, strict=True)
    ]


def _empty_beam(sampler: Sampler, problem: Problem) -> _Beam:
    attempt = Turn('attempt', sampler.chat.header('attempt'), ())
    turns = (*sampler.chat.question_turns(problem.question), attempt)
    return _Beam(Episode(problem.id, problem.level, turns), 0.0)


def _before_attempt(episode: Episode) -> tuple[Turn, ...]:
    """The turns before the attempt."""
    return episode.turns[: [turn.role for turn in episode.turns].index('attempt')]


def _has_ended(sampler: Sampler, beam: _Beam) -> bool:
    """True if an attempt has its end token or its maximum length."""
    full = len(beam.attempt.tokens) >= sampler.max_tokens['attempt']
    return full or sampler.chat.is_finished(beam.attempt)


def _rank(sampler: Sampler, beam: _Beam) -> tuple[bool, float]:
    return sampler.chat.is_finished(beam.attempt), beam.score
