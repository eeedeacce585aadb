"""Filters of critique data: refinement success (the soft filter), duplicates and balance.

Every `reject_*` function takes episodes and returns for each the reason for its rejection, or None
if it stays. The reasons are those of the data card (docs/methods.md, "Critique data").
"""

import collections
import random
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.metrics.statistics import evenly_spaced
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed

FLAWED = ('RG2', 'RG3')
"""Constructions of attempts that are meant to be wrong."""

Reasons = list[str | None]
"""Per episode, the reason for its rejection, or None."""


class RefinementResult(NamedTuple):
    """Number of valid refinements after one critique, and the text of the first of them."""

    successes: int
    text: str | None


def sample_refinement_results(
    sampler: Sampler,
    actor: Transformer,
    episodes: Sequence[Episode],
    *,
    problems: Sequence[Problem],
    judge: Judge,
    spec: SampleSpec,
) -> list[RefinementResult]:
    """Samples `spec.num_samples` refinements of each criticised episode and counts valid ones.

    A valid one is correct and passes the shortcut barrier. problems[i] is of episode i.
    """
    groups = episode_lib.sample_refinements(
        sampler, actor, episodes, problems=problems, judge=judge, spec=spec
    )
    results = []
    for group, problem in zip(groups, problems, strict=True):
        valid = [e for e in group if episode_lib.is_valid_refinement(sampler, e, problem)]
        text = sampler.chat.text(valid[0].turn('refinement')) if valid else None
        results.append(RefinementResult(len(valid), text))
    return results


def reject_unhelpful(episodes: Sequence[Episode], *, least: int) -> Reasons:
    """The soft filter, on the facts `correct`, `verdict` and `refinement_successes`.

    'refinements': the critique of a wrong attempt that led to fewer than `least` valid refinements.
    'verdict': the critique of a correct attempt that does not call the final answer correct.
    """
    reasons: Reasons = []
    for episode in episodes:
        critique = episode.critique.facts
        if episode.attempt.facts.correct:
            reasons.append(None if critique.verdict is True else 'verdict')
        else:
            enough = critique.refinement_successes >= least
            reasons.append(None if enough else 'refinements')
    return reasons


def reject_at_random(episodes: Sequence[Episode], *, least: int, seed: int) -> Reasons:
    """The control of the soft filter: rejects as many flawed attempts of each level, at random.

    'random': one of those flawed attempts. 'verdict': as in `reject_unhelpful`. What the
    soft filter gains over this one is due to its choice, and not to the balance of the classes.
    """
    reasons = reject_unhelpful(episodes, least=least)
    flawed, counts = collections.defaultdict(list), collections.Counter()
    for i, episode in enumerate(episodes):
        if not episode.attempt.facts.correct:
            flawed[episode.level].append(i)
            counts[episode.level] += reasons[i] is not None
            reasons[i] = None
    for level in sorted(flawed):
        rng = random.Random(derive_seed(seed, 'filter', level))
        for i in rng.sample(flawed[level], counts[level]):
            reasons[i] = 'random'
    return reasons


def reject_correct(episodes: Sequence[Episode]) -> Reasons:
    """'came_right': an attempt constructed to be flawed (RG2, RG3) whose answer is correct."""
    return [
        'came_right' if e.facts.construction in FLAWED and e.attempt.facts.correct else None
        for e in episodes
    ]


def reject_duplicates(episodes: Sequence[Episode]) -> Reasons:
    """'repeated': the same attempt at the same problem as in an earlier episode."""
    seen, reasons = set(), []
    for episode in episodes:
        key = (episode.problem_id, episode.attempt.tokens)
        reasons.append('repeated' if key in seen else None)
        seen.add(key)
    return reasons


def reject_for_balance(
    episodes: Sequence[Episode], *, correct_share: float, level_balance: float
) -> Reasons:
    """'level': flawed attempts of too common levels; 'share': too many correct attempts.

    Afterwards the rarest level has at least `level_balance` times as many flawed attempts as the
    commonest, ignoring levels without any (0: all stay). Correct attempts are at most
    `correct_share` of each level, so that the level does not reveal the verdict. The remaining ones
    are spread evenly over the given order.
    """
    flawed, correct = collections.defaultdict(list), collections.defaultdict(list)
    for i, episode in enumerate(episodes):
        (correct if episode.attempt.facts.correct else flawed)[episode.level].append(i)
    rarest = min(map(len, flawed.values()), default=0)
    reasons: Reasons = [None] * len(episodes)
    for level in flawed.keys() | correct.keys():
        count = len(flawed[level])
        # level_balance=0 never limits.
        if count * level_balance > rarest:
            count = int(rarest / level_balance)
        # correct / (correct + flawed) <= correct_share, solved for the number of correct ones.
        allowed = min(len(correct[level]), round(count * correct_share / (1 - correct_share)))
        for i in _all_but(flawed[level], count):
            reasons[i] = 'level'
        for i in _all_but(correct[level], allowed):
            reasons[i] = 'share'
    return reasons


def _all_but(indices: Sequence[int], count: int) -> set[int]:
    """Returns the indices except `count` evenly spaced ones."""
    return set(indices) - set(evenly_spaced(indices, count))
