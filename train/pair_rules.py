"""Pair rules: which responses of a group are preferred to which. The slot `prefer.pairs`.

A rule gets all groups of a round: the responses to one question, or the critiques of one attempt.
The last turn of an episode is what is compared; its facts say what is known of it.
"""

import collections
import math
import numbers
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from elenchus.data.records import PLAYER_OF_ROLE, Episode, RolloutGroup
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot

FIELD = 'prefer.pairs'


class Pair(NamedTuple):
    """Two episodes of one problem, whose last turns are compared."""

    chosen: Episode
    rejected: Episode
    offset: float  # that the margin must exceed


def is_right(episode: Episode) -> bool | None:
    """Returns whether the last turn is right: of a critique, its verdict; None if not known."""
    last = episode.turns[-1]
    if last.role != 'critique':
        return last.facts.correct
    attempt = episode.attempt.facts.correct
    return None if attempt is None else last.facts.verdict == attempt


def value_of(episode: Episode) -> float | None:
    """Returns the critic's score of a response, or the helpfulness of a critique; None: unknown."""
    last = episode.turns[-1]
    return last.facts.helpful if last.role == 'critique' else last.facts.score


def right_wrong(groups: Sequence[RolloutGroup]) -> list[Pair]:
    """Pairs a right response of a group with a wrong one; each is in one pair at most."""
    return [
        Pair(right, wrong, 0.0)
        for group in groups
        for right, wrong in zip(
            [e for e in group if is_right(e)],
            [e for e in group if is_right(e) is False],
            strict=False,
        )
    ]


def refined(groups: Sequence[RolloutGroup]) -> list[Pair]:
    """Pairs a right refinement with the wrong attempt that it refines."""
    return [
        Pair(episode, before_refinement(episode), 0.0)
        for group in groups
        for episode in group
        if episode.turns[-1].role == 'refinement'
        and episode.turns[-1].facts.correct
        and episode.attempt.facts.correct is False
    ]


def before_refinement(episode: Episode) -> Episode:
    """Returns the conversation up to its last attempt."""
    places = [i for i, turn in enumerate(episode.turns) if turn.role == 'attempt']
    return Episode(episode.problem_id, episode.level, episode.turns[: places[-1] + 1])


def best_worst(groups: Sequence[RolloutGroup]) -> list[Pair]:
    """Pairs the response of the best score with that of the worst, where they differ."""
    pairs = []
    for group in groups:
        known = [e for e in group if value_of(e) is not None]
        if known:
            best, worst = max(known, key=value_of), min(known, key=value_of)
            pairs += [Pair(best, worst, 0.0)] * (value_of(best) > value_of(worst))
    return pairs


def at_random(groups: Sequence[RolloutGroup]) -> list[Pair]:
    """A control: pairs responses of a group whatever they are worth, each once at most."""
    pairs = []
    for number, group in enumerate(groups):
        shuffled = list(group)
        random.Random(f'{group.problem.id}/{number}').shuffle(shuffled)
        pairs += [Pair(*two, 0.0) for two in zip(shuffled[::2], shuffled[1::2], strict=False)]
    return pairs


best_worst.reads_scores = True

PAIR_RULES = Slot(
    '(groups) -> [(chosen, rejected, offset)]',
    {
        'right_wrong': right_wrong,
        'refined': refined,
        'best_worst': best_worst,
        'random': at_random,
    },
)
"""Attribute, off where absent: `reads_scores`, the critic scores the responses first."""


def find_pairs(
    groups: Sequence[RolloutGroup], *, rule: str, keep: int, player: str, takes_offsets: bool
) -> list[Pair]:
    """Returns the pairs of a rule of PAIR_RULES, the first `keep` of each question.

    Raises ValueError if the rule returns anything but pairs of turns that the player wrote.
    """
    function, pairs, counts = PAIR_RULES.find(rule, FIELD), [], collections.Counter()
    path, line = user_functions.location(getattr(function, 'function', function))
    field = f'{FIELD}={rule!r} ({path}:{line})'
    result, known = function(tuple(groups)), {group.problem.id for group in groups}
    if not isinstance(result, Iterable):
        raise ValueError(f'{field} returned {type(result).__name__}, not a list of pairs')
    for number, item in enumerate(result):
        pair = checked_pair(item, f'{field}: pair {number}', player)
        if pair.chosen.problem_id not in known:
            raise ValueError(
                f'{field}: pair {number} is of {pair.chosen.problem_id!r}, a problem of no group'
            )
        if pair.offset and not takes_offsets:
            raise ValueError(
                f'{field}: pair {number} has an offset of {pair.offset:g}, which is for '
                "prefer.loss.kind='dpo' and 'ipo'; nearest: 0.0"
            )
        counts[pair.chosen.problem_id] += 1
        if counts[pair.chosen.problem_id] <= keep:
            pairs.append(pair)
    return pairs


def checked_pair(item: object, place: str, player: str) -> Pair:
    """Returns a rule's item as a pair. Raises ValueError, naming the `place`, if it is none."""
    if not isinstance(item, tuple | list) or len(item) != 3:
        raise ValueError(f'{place} is not (chosen, rejected, offset)')
    chosen, rejected, offset = item
    if not (isinstance(chosen, Episode) and isinstance(rejected, Episode)):
        names = [type(side).__name__ for side in (chosen, rejected)]
        raise ValueError(f'{place} has {names}, not two episodes')
    if chosen is rejected:
        raise ValueError(f'{place} has one episode twice')
    roles = [side.turns[-1].role if side.turns else 'none' for side in (chosen, rejected)]
    if {PLAYER_OF_ROLE.get(role) for role in roles} != {player}:
        raise ValueError(f'{place} ends with the turns {roles}, which the {player} does not write')
    if not (chosen.turns[-1].tokens and rejected.turns[-1].tokens):
        raise ValueError(f'{place} ends with a turn without tokens')
    if chosen.problem_id != rejected.problem_id:
        raise ValueError(f'{place} is of {chosen.problem_id!r} and {rejected.problem_id!r}')
    is_number = isinstance(offset, numbers.Real) and not isinstance(offset, bool)
    if not is_number or not math.isfinite(offset):
        raise ValueError(f'{place} has the offset {str(offset)[:40]}, which must be a number')
    return Pair(chosen, rejected, float(offset))
