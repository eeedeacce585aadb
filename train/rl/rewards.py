"""Rewards of a turn: named terms, pure functions of a group's judged turns, weighted by the config.

A term is None where the critic's opinion is unknown: that is neither good nor bad.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from elenchus.data.records import Problem, Turn
from elenchus.model.ranges import SignedCoefficient, checked
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot


class JudgedTurn(NamedTuple):
    """A turn with what its reward depends on."""

    turn: Turn
    attempt: Turn  # the episode's attempt, which a critique judges
    problem: Problem
    limit: int  # longest turn of this role, in tokens
    overlong_tokens: int  # tokens before the limit over which the length penalty grows
    read: Callable[[Turn], str]  # the text of a turn

    @property
    def text(self) -> str:
        """What the turn says."""
        return self.read(self.turn)

    @property
    def lines(self) -> list[str]:
        """What each of its steps says."""
        ends = self.turn.step_ends
        parts = (self.turn.tokens[start:end] for start, end in itertools.pairwise((0, *ends)))
        # A part of a turn: what it was sampled with describes the whole.
        bare = dataclasses.replace(self.turn, logprobs=(), steps=(), forced=(), tools=())
        return [self.read(dataclasses.replace(bare, tokens=part)).strip() for part in parts]


Reward = Callable[[Sequence[JudgedTurn]], Sequence[float | None]]
"""Value of each turn of a group, None = unknown; the turns are at the same place of its episodes.
An attempt that is not refined stands in the place of its refinement, too.

A function that reads the critic's scores has the attribute `reads_scores = True`, so that they are
sampled."""

REWARDS = Slot('(turns of a group) -> a number for each, or None', {})
WeightedFunctions = tuple[tuple[Annotated[str, REWARDS], SignedCoefficient], ...]


@dataclasses.dataclass(frozen=True)
@checked('reinforce.rewards')
class ActorRewards:
    """Weight of each term in the reward of an attempt or refinement; 0 = off, below 0 a penalty."""

    correct: SignedCoefficient  # 1 if the final answer is right
    format: SignedCoefficient  # 1 if there is a final answer to check
    length: SignedCoefficient  # overlong penalty, in [-1, 0]
    steps: SignedCoefficient  # mean of the critic's known step scores
    verdict: SignedCoefficient  # critic's score of the final answer
    functions: WeightedFunctions  # terms of one's own, (function, weight)


@dataclasses.dataclass(frozen=True)
@checked('reinforce.critic_rewards')
class CriticRewards:
    """Weight of each term in the reward of a critique; 0 = off, below 0 a penalty."""

    verdict: SignedCoefficient  # 1 if the final verdict is right (discrimination)
    # The truth of a verdict; 'steps': all right, on the lab or by reinforce.num_rollouts.
    verdict_of: Literal['answer', 'steps']
    # 1 if the first error is located exactly, or correctly denied; its truth as for 'steps'.
    located: SignedCoefficient
    helpful: SignedCoefficient  # (refinements corrected - refinements broken) / refinements
    format: SignedCoefficient  # 1 if the critique can be parsed
    length: SignedCoefficient  # overlong penalty, in [-1, 0]
    functions: WeightedFunctions  # terms of one's own, (function, weight)


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


TermValues = Mapping[str, float | None]
"""Name of a term -> its value before weighting; None = unknown."""


def each(value: Callable[[JudgedTurn], float | None]) -> Reward:
    """Returns the reward that values each turn by itself."""
    return lambda turns: [value(turn) for turn in turns]


ACTOR_TERMS: dict[str, Reward] = {
    'correct': each(lambda t: float(t.turn.facts.correct)),
    'format': each(lambda t: float(t.turn.facts.answer is not None)),
    'length': each(_length),
    'steps': each(_steps),
    'verdict': each(lambda t: t.turn.facts.score),
}

SCORED_TERMS = ('steps', 'verdict')
"""Terms of the actor that are the critic's scores, and so may be unknown."""

VERDICT_TERMS: dict[str, Reward] = {
    'answer': each(lambda t: float(t.turn.facts.verdict is bool(t.attempt.facts.correct))),
    'steps': each(lambda t: float(t.turn.facts.verdict is t.attempt.facts.steps_correct)),
}
"""What a verdict is about -> its reward. On the lab a reward by the answer pays for passing right
answers with wrong steps."""
CRITIC_TERMS: dict[str, Reward] = {
    'located': each(
        lambda t: float(
            t.turn.facts.verdict is not None and t.turn.facts.located == t.attempt.facts.first_error
        )
    ),
    'helpful': each(lambda t: t.turn.facts.helpful),
    'format': each(lambda t: float(t.turn.facts.verdict is not None)),
    'length': each(_length),
}


class WeightedTerm(NamedTuple):
    """A term of a reward."""

    reward: Reward
    weight: float


def weighted_terms(settings: ActorRewards | CriticRewards) -> dict[str, WeightedTerm]:
    """Returns the terms whose weight is not 0, by name; a function's name is what follows ':'.

    Raises ValueError if two terms have one name.
    """
    if isinstance(settings, ActorRewards):
        built_in, section = ACTOR_TERMS, 'rewards'
    else:
        built_in = {'verdict': VERDICT_TERMS[settings.verdict_of]} | CRITIC_TERMS
        section = 'critic_rewards'
    terms = {
        name: WeightedTerm(reward, getattr(settings, name)) for name, reward in built_in.items()
    }
    for reference, weight in settings.functions:
        name = reference.rpartition(':')[2]
        if name in terms:
            raise ValueError(
                f'reinforce.{section}.functions has a second term {name!r}: rename the function'
            )
        function = REWARDS.find(reference, f'reinforce.{section}.functions')
        terms[name] = WeightedTerm(function, weight)
    return {name: term for name, term in terms.items() if term.weight}


def reads_scores(settings: ActorRewards | CriticRewards) -> bool:
    """Returns whether a term is, or reads, the critic's scores of what the actor wrote."""
    return isinstance(settings, ActorRewards) and any(
        name in SCORED_TERMS or getattr(term.reward, 'reads_scores', False)
        for name, term in weighted_terms(settings).items()
    )


def reads_labels(settings: CriticRewards) -> bool:
    """Returns whether a term reads which steps of the attempt are right."""
    return bool(settings.located or (settings.verdict and settings.verdict_of == 'steps'))


def terms(
    settings: ActorRewards | CriticRewards, turns: Sequence[JudgedTurn]
) -> list[dict[str, float | None]]:
    """Returns the value of each term of each turn, before weighting; None if unknown.

    `turns` are at the same place of a group's episodes. Terms of weight 0 are not computed: their
    facts may be missing (no refinement was sampled). Raises ValueError where a function of a user's
    does not return a finite number, or None, for every turn.
    """
    columns = {}
    for name, term in weighted_terms(settings).items():
        returned = term.reward(turns)
        try:
            values = [None if v is None else user_functions.as_float(v) for v in returned]
        except (TypeError, ValueError):
            values = []
        if isinstance(returned, Mapping):  # its keys are no rewards
            values = []
        if len(values) != len(turns) or not all(v is None or math.isfinite(v) for v in values):
            wanted = f'a finite number, or None, for each of the {len(turns)} turns of a group'
            user_functions.refuse(term.reward, returned, wanted, field=f'the reward {name!r}')
        columns[name] = values
    return [{name: values[i] for name, values in columns.items()} for i in range(len(turns))]


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
    if known and all(value == known[0] for value in known):
        return known[0]  # their sum may be rounded
    return sum(known) / len(known) if known else None


def total(settings: ActorRewards | CriticRewards, values: TermValues) -> float:
    """Returns the weighted sum of the known terms."""
    weighted = weighted_terms(settings)
    return sum(weighted[name].weight * v for name, v in values.items() if v is not None)
