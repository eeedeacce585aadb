"""What every explorer is given: the players, the rules of exploration, and its noise."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import grammars as critique_lib
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.metrics import critic_metrics


@dataclasses.dataclass(frozen=True)
class Players:
    """Who explores, with what, and who judges."""

    sampler: Sampler
    actor: Transformer
    critic: Transformer
    judge: Judge
    grammar: critique_lib.Grammar


@dataclasses.dataclass(frozen=True)
class ExploreSettings:
    """How much is sampled of a question, and how much of it may be kept.

    `num_attempts` for every question; of critique in the loop (arXiv 2411.16579) `num_refinements`
    of each wrong attempt; of explorers that go in rounds (arXiv 2411.00750) one response a round
    to every question with fewer than `enough` right ones. Rounds also end once `token_budget`
    sampled tokens a question are spent on average.
    """

    num_attempts: int
    num_refinements: int
    num_guided_rounds: int
    num_uniform_rounds: int  # of unguided resampling
    enough: int
    token_budget: int  # 0: none
    keep: int  # of a question, at most
    keep_refined: int  # of an attempt's refinements, at most

    @property
    def ids(self) -> int:
        """Request ids a question: what first_id must leave between two of them."""
        return self.num_attempts * max(1, self.num_refinements)


@dataclasses.dataclass(frozen=True)
class Search:
    """One exploration of some questions; the engine of its players is a `Metered` one."""

    settings: ExploreSettings
    players: Players
    method: Method
    seed: int
    first_id: int

    def affordable(self, num_questions: int) -> bool:
        """Whether the token budget of so many questions is not spent yet."""
        budget = self.settings.token_budget * num_questions
        return not budget or self.players.sampler.engine.tokens < budget


class Asked(NamedTuple):
    """A question that gets one more response: what it has so far, and the noise of the next."""

    problem: Problem
    episodes: Sequence[Episode]
    id: int


def note(sampler: Sampler, episode: Episode, problem: Problem, found_by: str) -> Episode:
    """The episode with how its response was found, and whether it is `whole`, no bare answer.

    The shortcut barrier (METHODS, 2) compares a response that was given help with the reference
    and, where it refines one, with the attempt; an attempt without help is always whole.
    """
    roles = {turn.role for turn in episode.turns}
    response = sampler.chat.text(episode.turns[-1])
    models = sampler.chat.text(episode.turn('attempt')) if 'refinement' in roles else None
    helped = found_by not in ('attempt', 'uniform')
    whole = not helped or answers.passes_barrier(
        response, problem.solution, problem.solution if models is None else models
    )
    facts = {'found_by': found_by, 'whole': whole}
    return dataclasses.replace(episode, outcome=episode.outcome | facts)


def well_answered(episode: Episode) -> bool:
    """Whether a noted episode's response is right and no bare answer."""
    return critic_metrics.finally_correct(episode) and episode.outcome['whole']


def as_attempt(sampler: Sampler, episode: Episode) -> Episode:
    """question -> response: the last turn's ids as an attempt, without what led to it.

    A guide, an attempt that was refined and its critique are dropped. What the judge said of a
    refinement is then said of the attempt.
    """
    outcome, last = episode.outcome, episode.turns[-1]
    if last.role == 'refinement':
        told = {
            k.removeprefix('refined_'): v for k, v in outcome.items() if k.startswith('refined_')
        }
        outcome = told | {k: outcome[k] for k in ('found_by', 'whole') if k in outcome}
    response = dataclasses.replace(last, role='attempt', header=sampler.chat.header('attempt'))
    question = tuple(turn for turn in episode.turns if turn.role == 'question')
    return Episode(episode.problem_id, episode.level, (*question, response), outcome)
