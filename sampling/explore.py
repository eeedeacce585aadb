"""Explorers: how the training responses of a self-improvement round are found."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from data import critiques as critique_lib
from data.judge import Judge
from data.records import Episode, Problem
from model.transformer import Transformer
from sampling import episodes as episode_lib
from sampling.episodes import Sampler
from sampling.methods import Greedy, Method

Explorer = Literal['vanilla', 'critique_in_the_loop']


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
    """N attempts a question; each wrong one gets one critique and M refinements (arXiv 2411.16579).

    Of the M at most `keep_refined` correct ones are kept, of a question at most `keep` in all.
    """

    num_attempts: int
    num_refinements: int
    keep: int
    keep_refined: int


def explore(
    settings: ExploreSettings,
    players: Players,
    problems: Sequence[Problem],
    *,
    explorer: Explorer,
    method: Method,
    seed: int,
    first_id: int,
) -> tuple[list[Episode], int]:
    """(kept episodes question -> response, sampled tokens) of one explorer on some problems.

    first_id must leave num_attempts * max(1, num_refinements) ids a problem.
    """
    asked = [p for p in problems for _ in range(settings.num_attempts)]
    attempts = episode_lib.attempts(
        players.sampler,
        players.actor,
        problems,
        judge=players.judge,
        method=method,
        seed=seed,
        num_samples=settings.num_attempts,
        first_id=first_id,
    )
    tokens = episode_lib.sampled_tokens(attempts)
    kept = [_note(e, 'attempt') for e in attempts if e.outcome['correct']]
    if explorer == 'critique_in_the_loop':
        wrong = [(e, p) for e, p in zip(attempts, asked, strict=True) if not e.outcome['correct']]
        refined, more = _refine(
            settings, players, wrong, method=method, seed=seed, first_id=first_id
        )
        kept, tokens = kept + refined, tokens + more
    return _distinct(kept, limit=settings.keep), tokens


def _refine(settings, players: Players, wrong, *, method, seed, first_id):
    """Critique and refine wrong attempts; correct refinements become answers to the question."""
    if not wrong:
        return [], 0
    episodes, problems = zip(*wrong, strict=True)
    greedy = Greedy(method.banned)
    criticised = episode_lib.critiques(
        players.sampler,
        players.critic,
        episodes,
        grammar=players.grammar,
        method=greedy,
        seed=seed + 1,
        first_id=first_id,
    )
    groups = episode_lib.refinements(
        players.sampler,
        players.actor,
        criticised,
        problems,
        judge=players.judge,
        method=method,
        num_samples=settings.num_refinements,
        seed=seed + 2,
        first_id=first_id,
    )
    tokens = sum(len(e.turn('critique').tokens) for e in criticised) + sum(
        len(e.turns[-1].tokens) for group in groups for e in group
    )
    kept = []
    for group, problem in zip(groups, problems, strict=True):
        right = [e for e in group if episode_lib.refined_well(players.sampler, e, problem)]
        answers = [as_attempt(players.sampler, e) for e in right[: settings.keep_refined]]
        kept += [_note(e, 'refinement') for e in answers]
    return kept, tokens


def as_attempt(sampler: Sampler, episode: Episode) -> Episode:
    """question -> refined response: the same token ids, without attempt and critique.

    What the judge said of the refinement is now said of the attempt.
    """
    refined = dataclasses.replace(
        episode.turn('refinement'), role='attempt', header=sampler.chat.open('attempt')
    )
    outcome = {
        k.removeprefix('refined_'): v
        for k, v in episode.outcome.items()
        if k.startswith('refined_')
    }
    given = tuple(turn for turn in episode.turns if turn.role in ('question', 'guide'))
    return Episode(episode.problem_id, episode.level, (*given, refined), outcome)


def _note(episode: Episode, found_by: str) -> Episode:
    return dataclasses.replace(episode, outcome=episode.outcome | {'found_by': found_by})


def _distinct(episodes: Sequence[Episode], *, limit: int) -> list[Episode]:
    """Different responses only, at most `limit` a problem, the first found."""
    seen: dict[str, set] = {}
    kept = []
    for episode in episodes:
        responses = seen.setdefault(episode.problem_id, set())
        tokens = episode.turns[-1].tokens
        if tokens not in responses and len(responses) < limit:
            responses.add(tokens)
            kept.append(episode)
    return kept
