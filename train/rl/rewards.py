"""Rewards of a turn: named terms, pure functions of the judged turn, weighted by the config.

A term is None where the critic's opinion is unknown: that is neither good nor bad.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from elenchus.data.records import Turn
from elenchus.model.ranges import SignedCoefficient, checked


class JudgedTurn(NamedTuple):
    """A turn with what its reward depends on."""

    turn: Turn
    attempt: Turn  # the episode's attempt, which a critique judges
    limit: int  # longest turn of this role, in tokens
    overlong_tokens: int  # tokens before the limit over which the length penalty grows


@dataclasses.dataclass(frozen=True)
@checked('reinforce.rewards')
class ActorRewards:
    """Weight of each term in the reward of an attempt or refinement; 0 = off, below 0 a penalty."""

    correct: SignedCoefficient  # 1 if the final answer is right
    format: SignedCoefficient  # 1 if there is a final answer to check
    length: SignedCoefficient  # overlong penalty, in [-1, 0]
    steps: SignedCoefficient  # mean of the critic's known step scores
    verdict: SignedCoefficient  # critic's score of the final answer


@dataclasses.dataclass(frozen=True)
@checked('reinforce.critic_rewards')
class CriticRewards:
    """Weight of each term in the reward of a critique; 0 = off, below 0 a penalty."""

    verdict: SignedCoefficient  # 1 if the final verdict is right (discrimination)
    verdict_of: Literal['answer', 'steps']  # the truth of a verdict; 'steps': all right (lab only)
    # 1 if the first error is located exactly, or correctly denied (lab only).
    located: SignedCoefficient
    helpful: SignedCoefficient  # (refinements corrected - refinements broken) / refinements
    format: SignedCoefficient  # 1 if the critique can be parsed
    length: SignedCoefficient  # overlong penalty, in [-1, 0]


def overlong(length: int, *, limit: int, overlong_tokens: int) -> float:
    """Returns 0 up to `limit - overlong_tokens` tokens, then linearly down to -1 at the limit.

    Soft overlong punishment of DAPO, arXiv 2503.14476.
    """
    return -min(max(length - (limit - overlong_tokens), 0) / overlong_tokens, 1.0)


def _length(t: JudgedTurn) -> float:
    return overlong(len(t.turn.tokens), limit=t.limit, overlong_tokens=t.overlong_tokens)


def _steps(t: JudgedTurn) -> float | None:
    """Mean of the known scores; None without any, or if the critique was cut off."""
    known = [score for score in t.turn.step_scores if score is not None]
    if not known or t.turn.facts.critique_finished is False:
        return None
    return sum(known) / len(known)


def helpfulness(correct: bool, refined: list[bool]) -> float:
    """Mean over refinements of 1 (corrected), -1 (broken) or 0 (unchanged)."""
    return sum(float(after) - float(correct) for after in refined) / len(refined)


Term = Callable[[JudgedTurn], float | None]
TermValues = Mapping[str, float | None]
"""Name of a term -> its value before weighting; None = unknown."""

ACTOR_TERMS: dict[str, Term] = {
    'correct': lambda t: float(t.turn.facts.correct),
    'format': lambda t: float(t.turn.facts.answer is not None),
    'length': _length,
    'steps': _steps,
    'verdict': lambda t: t.turn.facts.score,
}

SCORED_TERMS = ('steps', 'verdict')
"""Terms of the actor that are the critic's scores, and so may be unknown."""

VERDICT_TERMS: dict[str, Term] = {
    'answer': lambda t: float(t.turn.facts.verdict is bool(t.attempt.facts.correct)),
    'steps': lambda t: float(t.turn.facts.verdict is t.attempt.facts.steps_correct),
}
"""What a verdict is about -> its reward. On the lab a reward by the answer pays for passing right
answers with wrong steps."""
CRITIC_TERMS: dict[str, Term] = {
    'located': lambda t: float(
        t.turn.facts.verdict is not None and t.turn.facts.located == t.attempt.facts.first_error
    ),
    'helpful': lambda t: t.turn.facts.helpful,
    'format': lambda t: float(t.turn.facts.verdict is not None),
    'length': _length,
}


def terms(weights: ActorRewards | CriticRewards, judged: JudgedTurn) -> dict[str, float | None]:
    """Returns the value of each term whose weight is not 0, before weighting; None if unknown.

    Terms of weight 0 are not computed: their facts may be missing (no refinement was sampled).
    """
    if isinstance(weights, ActorRewards):
        functions = ACTOR_TERMS
    else:
        functions = {'verdict': VERDICT_TERMS[weights.verdict_of]} | CRITIC_TERMS
    return {
        name: function(judged) for name, function in functions.items() if getattr(weights, name)
    }


def fill_unknown(group: Sequence[TermValues]) -> list[dict[str, float]]:
    """Replaces the unknown terms of a group's turns by the mean of the known ones, 0 without any.

    An advantage is a distance from the group's mean: at the mean, an unknown term neither raises
    nor lowers a turn, and the others are compared among themselves.
    """
    means = {name: known_mean([values[name] for values in group]) for name in group[0]}
    return [
        {name: means[name] or 0.0 if value is None else value for name, value in values.items()}
        for values in group
    ]


def known_mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are known, None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def total(weights: ActorRewards | CriticRewards, values: TermValues) -> float:
    """Returns the weighted sum of the known terms."""
    return sum(getattr(weights, name) * v for name, v in values.items() if v is not None)
