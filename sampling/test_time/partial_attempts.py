"""Attempts that grow line by line in a search: their lines, critiques, and what both cost."""

import collections
import dataclasses
from collections.abc import Sequence

from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import step_scores
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.step_scores import StepScorer


class Cost:
    """Tokens, model calls and processed tokens of the search at one problem, by role."""

    def __init__(self):
        self.tokens, self.calls = collections.Counter(), collections.Counter()
        self.processed = collections.Counter()

    def add(self, role: str, *, prompt: int, tokens: int) -> None:
        """Counts one call of a role that read a prompt of so many tokens and sampled so many."""
        self.tokens[role] += tokens
        self.calls[role] += 1
        self.processed[role] += prompt + tokens

    def add_turn(self, turn: Turn, *, prompt: int) -> None:
        """Counts the call that sampled a turn; what a tool wrote in it is read, as a prompt is."""
        self.add(turn.role, prompt=prompt + len(turn.forced), tokens=turn.num_sampled)

    def facts(self) -> dict[str, dict[str, int]]:
        """Returns the facts of an episode that have the cost."""
        return {name: dict(counts) for name, counts in vars(self).items()}


def empty_attempt(sampler: Sampler, problem: Problem) -> Episode:
    """Returns an attempt without a line."""
    attempt = Turn('attempt', sampler.chat.header('attempt'), ())
    turns = (*sampler.chat.question_turns(problem.question), attempt)
    return Episode(problem.id, problem.level, turns)


def before_attempt(episode: Episode) -> tuple[Turn, ...]:
    """Returns the turns before the attempt."""
    return episode.turns[: [turn.role for turn in episode.turns].index('attempt')]


def without_critique(episode: Episode) -> Episode:
    """Returns an episode up to its attempt."""
    return dataclasses.replace(episode, turns=(*before_attempt(episode), episode.attempt))


def has_ended(sampler: Sampler, attempt: Turn) -> bool:
    """Returns whether an attempt has its end token or its maximum length."""
    full = len(attempt.tokens) >= sampler.max_tokens['attempt']
    return full or sampler.chat.is_finished(attempt)


def continue_attempts(
    sampler: Sampler,
    models: ModelPair,
    attempts: Sequence[Episode],
    *,
    spec: SampleSpec,
    costs: Sequence[Cost],
) -> list[list[Episode]]:
    """Samples `spec.num_samples` continuations of each attempt, as far as the sampler writes.

    costs[i] is of attempts[i], whose critiques are dropped.
    """
    befores = [before_attempt(episode) for episode in attempts]
    openings = [episode.attempt for episode in attempts]
    groups = sampler.continue_turns(models.actor, befores, openings, spec=spec)
    grown = []
    for episode, before, opening, turns, cost in zip(
        attempts, befores, openings, groups, costs, strict=True
    ):
        # An earlier call sampled the opening; to this call it is a part of the prompt.
        prompt = len(sampler.chat.context(before, 'attempt')) + len(opening.tokens)
        for turn in turns:
            new = turn.num_sampled - opening.num_sampled  # not what a tool wrote
            read = prompt + len(turn.forced) - len(opening.forced)
            cost.add('attempt', prompt=read, tokens=new)
        grown.append([dataclasses.replace(episode, turns=(*before, turn)) for turn in turns])
    return grown


def score_attempts(
    models: ModelPair,
    attempts: Sequence[Episode],
    *,
    scorer: StepScorer,
    method: Method,
    costs: Sequence[Cost],
) -> list[Episode]:
    """Adds to attempts, ended or not, a greedy critique and the critic's step scores.

    One call for all, so that engine and scoring pass run full batches. costs[i] is of attempts[i].
    """
    criticised = episode_lib.sample_critiques(
        models.sampler,
        models.critic,
        attempts,
        grammar=models.grammar,
        spec=SampleSpec.greedy(method),
    )
    scored = step_scores.score_steps(models, criticised, scorer=scorer)
    for episode, cost in zip(scored, costs, strict=True):
        prompt = models.sampler.chat.context(episode.turns[:-1], 'critique')
        cost.add_turn(episode.critique, prompt=len(prompt))
    return scored


def judge_attempts(
    models: ModelPair, episodes: Sequence[Episode], problems: Sequence[Problem]
) -> list[Episode]:
    """Adds the judged facts to attempts, beside the critic's score of the answer."""
    texts = [models.sampler.text(episode.attempt) for episode in episodes]
    facts = models.judge(list(zip(problems, texts, strict=True)))
    return [
        episode.with_turn_facts(
            'attempt', **dataclasses.asdict(fact) | {'score': episode.attempt.facts.score}
        )
        for episode, fact in zip(episodes, facts, strict=True)
    ]
