"""The input that all explorers share: settings, models and sampling, and facts of a response."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from elenchus.data.grading import answers
from elenchus.data.records import Episode, Problem, Turn
from elenchus.model.ranges import NonNegativeInt, PositiveInt, Range, SampleCount, checked
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.exploration.acceptance import ACCEPTS
from elenchus.sampling.exploration.guides import OPENINGS, PLAYER_GUIDES
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time.gates import Refine
from elenchus.sampling.trees.search import TreeSearch

Rounds = Annotated[int, Range(0, 10_000)]


@dataclasses.dataclass(frozen=True)
@checked('improve.explore')
class ExploreSettings:
    """Number of responses sampled per question, and number kept for training.

    Every question gets `num_attempts`. Critique in the loop (arXiv 2411.16579) then samples
    `num_refinements` of each wrong attempt. Explorers that run in rounds (arXiv 2411.00750) sample
    one response per round for every question with fewer than `min_correct` correct ones. Rounds
    also end once `token_budget` sampled tokens per question are spent on average.
    """

    num_attempts: SampleCount  # unguided, per question
    num_refinements: SampleCount  # of each refined attempt, in critique in the loop
    refine: Refine  # attempts in the loop: those with a wrong answer, or 'always'
    num_guided_rounds: Rounds  # at most, of the guided explorers
    num_uniform_rounds: Rounds  # at most, of unguided resampling
    min_correct: SampleCount  # a question with so many correct responses gets no more
    token_budget: NonNegativeInt  # per question on average; 0: no limit
    keep: PositiveInt  # correct responses per question, at most
    keep_refined: NonNegativeInt  # refinements per attempt, at most
    critiques: Literal['own', 'shuffled']  # that are followed; 'shuffled': of other questions
    guides: Literal['own', 'shuffled']  # that answer_driven and rationale_driven show
    teacher: Literal['critic', 'reference']  # who criticises for the explorer `interactive`
    accept: Annotated[str, ACCEPTS]  # what counts as right: by its label, or as a function says
    player_guide: Annotated[str, PLAYER_GUIDES]  # of the explorer `self_guided`
    opening: Annotated[str, OPENINGS]  # what its responses begin with

    @property
    def ids_per_question(self) -> int:
        """Number of request ids that one question may use."""
        return self.num_attempts * max(1, self.num_refinements)


@dataclasses.dataclass(frozen=True)
class ExplorationContext:
    """One exploration of some questions: limits, models and sampling.

    `spec` is that of the unguided first attempts. Later samples use its method, and seeds and ids
    derived from its own.
    """

    settings: ExploreSettings
    models: ModelPair
    spec: SampleSpec
    tokens_before: int  # that the engine had sampled when the exploration started
    room: int | None = None  # tokens of a prompt, at most; None: any
    memory: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the rounds before
    trees: TreeSearch | None = None  # of the explorer `tree_search`

    def within_budget(self, num_questions: int) -> bool:
        """Returns whether the token budget of so many questions is not spent yet."""
        # Critiques and dropped responses are counted too.
        budget = self.settings.token_budget * num_questions
        return not budget or self.models.sampler.engine.tokens - self.tokens_before < budget


class ProposalRequest(NamedTuple):
    """A question that gets one more response, with the responses it has so far."""

    problem: Problem
    episodes: Sequence[Episode]
    request_id: int  # selects the noise of the next response


def with_origin(sampler: Sampler, episode: Episode, problem: Problem, *, origin: str) -> Episode:
    """Adds the facts `origin` and `passes_barrier` to the last turn, the response.

    The shortcut barrier (docs/methods.md, "Critique data") rejects bare answers: a response that
    had help is compared with the reference and, if it refines an attempt, with that attempt. An
    attempt without help always passes.
    """
    last = episode.turns[-1]
    response = sampler.chat.text(last)
    attempt = sampler.chat.text(episode.attempt) if last.role == 'refinement' else None
    helped = origin not in ('attempt', 'uniform', 'tree_search')
    passes_barrier = not helped or answers.passes_barrier(
        response, problem.solution, problem.solution if attempt is None else attempt
    )
    return episode.with_turn_facts(last.role, origin=origin, passes_barrier=passes_barrier)


def counts_as_right(turn: Turn) -> bool:
    """Returns whether a response was accepted, or is right where labels decide (`accept`)."""
    facts = turn.facts
    return bool(facts.correct if facts.accepted is None else facts.accepted)


def is_valid_response(episode: Episode) -> bool:
    """Returns whether the response counts as right and passes the barrier; needs `with_origin`."""
    return counts_as_right(episode.response) and bool(episode.response.facts.passes_barrier)


def is_right_response(episode: Episode) -> bool:
    """Returns whether the response is right and passes the barrier, whoever accepted it."""
    facts = episode.response.facts
    return bool(facts.correct and facts.passes_barrier)
