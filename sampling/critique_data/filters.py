"""Which critiques are kept: the soft Monte Carlo filter, and balance (METHODS 2).

Every pure filter takes episodes and gives a list beside them: the reason why an episode is left
out, or None where it stays.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler

Reasons = list[str | None]


class Refined(NamedTuple):
    """How many refinements of an attempt are right and no shortcut, and the text of the first."""

    successes: int
    text: str | None


def refine(
    sampler: Sampler,
    actor: Transformer,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    judge: Judge,
    num_samples: int,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Refined]:
    """What becomes of `num_samples` refinements of each criticised episode.

    problems[i] is episode i's.
    """
    groups = episode_lib.refinements(
        sampler,
        actor,
        episodes,
        problems,
        judge=judge,
        num_samples=num_samples,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    result = []
    for group, problem in zip(groups, problems, strict=True):
        right = [e for e in group if episode_lib.refined_well(sampler, e, problem)]
        text = sampler.chat.text(right[0].turn('refinement')) if right else None
        result.append(Refined(len(right), text))
    return result


def unhelpful(episodes: Sequence[Episode], *, least: int) -> Reasons:
    """The soft filter, on the outcomes `correct`, `verdict` and `refinement_successes`.

    'refinements': a wrong path's critique that led to fewer than `least` of them. 'verdict': a
    right path's critique that does not find the final answer right.
    """

    def reason(told: dict) -> str | None:
        if told['correct']:
            return None if told['verdict'] is True else 'verdict'
        return None if told['refinement_successes'] >= least else 'refinements'

    return [reason(episode.outcome) for episode in episodes]


def came_right(episodes: Sequence[Episode]) -> Reasons:
    """'came_right': a path made to be flawed (RG2, RG3) whose answer is right."""
    return [
        'came_right' if e.outcome['construction'] != 'RG1' and e.outcome['correct'] else None
        for e in episodes
    ]


def repeated(episodes: Sequence[Episode]) -> Reasons:
    """'repeated': the same attempt at the same problem as an earlier episode's."""
    seen, reasons = set(), []
    for episode in episodes:
        key = (episode.problem_id, episode.turn('attempt').tokens)
        reasons.append('repeated' if key in seen else None)
        seen.add(key)
    return reasons


def unbalanced(
    episodes: Sequence[Episode], *, correct_share: float, level_balance: float
) -> Reasons:
    """'level': flawed paths of too common levels; 'share': more right paths than allowed.

    After it the rarest level has at least `level_balance` times as many flawed paths as the
    commonest, levels without any apart (0: all stay), and right paths are at most `correct_share`
    of those of each level, so that the level tells nothing about the verdict. What stays is spread
    evenly over the episodes given.
    """
    flawed, right = collections.defaultdict(list), collections.defaultdict(list)
    for i, episode in enumerate(episodes):
        (right if episode.outcome['correct'] else flawed)[episode.level].append(i)
    rarest = min(map(len, flawed.values()), default=0)
    reasons: Reasons = [None] * len(episodes)
    for level in flawed.keys() | right.keys():
        count = len(flawed[level])
        if count * level_balance > rarest:
            count = int(rarest / level_balance)
        allowed = min(len(right[level]), round(count * correct_share / (1 - correct_share)))
        for i in _all_but(flawed[level], count):
            reasons[i] = 'level'
        for i in _all_but(right[level], allowed):
            reasons[i] = 'share'
    return reasons


def _all_but(indices: Sequence[int], count: int) -> set[int]:
    """Indices without `count` of them at even distances."""
    return set(indices) - {indices[i * len(indices) // count] for i in range(count)}
