"""Rewards of a turn: named pure functions of what is known of it, weighted by the config."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from elenchus.data.records import Episode, Turn


class Written(NamedTuple):
    """A turn and what rewards may know of it."""

    turn: Turn
    outcome: Mapping[str, Any]  # the episode's; of a refinement, its own facts under plain names
    limit: int  # tokens that a turn of its role may have
    overlong_tokens: int  # before the limit, over which the penalty of length sets in


@dataclasses.dataclass(frozen=True)
class ActorRewards:
    """The weight of each term in the reward of an attempt or refinement."""

    correct: float  # 1 where the final answer is right
    format: float  # 1 where there is an answer to check
    length: float  # the overlong penalty, in [-1, 0]
    steps: float  # mean of the critic's step rewards
    verdict: float  # the critic's score of the final answer


@dataclasses.dataclass(frozen=True)
class CriticRewards:
    """The weight of each term in the reward of a critique."""

    verdict: float  # discrimination: 1 where the final verdict is right
    located: float  # 1 where the first error is the very line, or rightly none (lab)
    helpful: float  # refinements put right minus refinements made wrong, a refinement
    format: float  # 1 where the critique can be parsed
    length: float


def overlong(length: int, *, limit: int, overlong_tokens: int) -> float:
    """0 up to limit - overlong_tokens tokens, from there down to -1 at the limit.

    Source: DAPO's soft overlong punishment, arXiv 2503.14476.
    """
    return -min(max(length - (limit - overlong_tokens), 0) / overlong_tokens, 1.0)


def _length(written: Written) -> float:
    return overlong(
        len(written.turn.tokens), limit=written.limit, overlong_tokens=written.overlong_tokens
    )


def _steps(written: Written) -> float:
    scores = written.turn.step_scores
    return sum(scores) / len(scores) if scores else 0.0


def helpfulness(correct: bool, refined: list[bool]) -> float:
    """Mean over refinements: 1 put right, -1 made wrong, 0 as it was."""
    return sum(float(after) - float(correct) for after in refined) / len(refined)


Term = Callable[[Written], float]

ACTOR_TERMS: dict[str, Term] = {
    'correct': lambda w: float(w.outcome['correct']),
    'format': lambda w: float(w.outcome['answer'] is not None),
    'length': _length,
    'steps': _steps,
    'verdict': lambda w: w.outcome.get('score') or 0.0,
}

CRITIC_TERMS: dict[str, Term] = {
    'verdict': lambda w: float(w.outcome['verdict'] is bool(w.outcome['correct'])),
    'located': lambda w: float(
        w.outcome['verdict'] is not None and w.outcome['located'] == w.outcome['first_error']
    ),
    'helpful': lambda w: w.outcome['helpful'],
    'format': lambda w: float(w.outcome['verdict'] is not None),
    'length': _length,
}


def terms(weights: ActorRewards | CriticRewards, written: Written) -> dict[str, float]:
    """The value of each term whose weight is not 0, not yet multiplied by it."""
    known = ACTOR_TERMS if isinstance(weights, ActorRewards) else CRITIC_TERMS
    return {
        name: known[name](written)
        for name, weight in dataclasses.asdict(weights).items()
        if weight != 0
    }


def total(weights: ActorRewards | CriticRewards, values: Mapping[str, float]) -> float:
    """The weighted sum of terms."""
    return sum(getattr(weights, name) * value for name, value in values.items())


def facts_of(episode: Episode, turn: Turn) -> dict[str, Any]:
    """What the outcome says of a turn: a refinement's facts are there under a prefix."""
    if turn.role != 'refinement':
        return episode.outcome
    told = episode.outcome.items()
    return {k.removeprefix('refined_'): v for k, v in told if k.startswith('refined_')}
