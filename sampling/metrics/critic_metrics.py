"""Metrics of critic and actor: pure functions of episodes and their facts.

The share of an empty set is None. An attempt without a refinement counts as unchanged. Facts about
steps (`first_error`, `kind`, `steps_correct`) are known on the lab only; elsewhere they are None.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenchus.data.records import Episode

Share = float | None
"""A share in [0, 1], or None if there was nothing to count."""


def finally_correct(episode: Episode) -> bool:
    """Returns whether the refinement is correct, or the attempt if there is no refinement."""
    return bool(episode.response.facts.correct)


def final_answer(episode: Episode) -> str | None:
    """Returns the refinement's answer, or the attempt's if there is no refinement."""
    return episode.response.facts.answer


def by_level(
    episodes: Sequence[Episode], measure: Callable[[Sequence[Episode]], Any]
) -> dict[str, Any]:
    """Applies a measure to all episodes, and to those of each level."""
    levels = collections.defaultdict(list)
    for episode in episodes:
        levels[str(episode.level)].append(episode)
    return {'all': measure(episodes)} | {n: measure(levels[n]) for n in sorted(levels, key=int)}


# Verdicts of the critic


def critic(episodes: Sequence[Episode]) -> dict[str, Share]:
    """Agreement of the critic's verdicts with the truth.

    `discriminability` is the share of parsable critiques whose final verdict agrees with the truth,
    over all attempts and for right and wrong ones separately. `passed` (right attempts) and `found`
    (wrong attempts) are shares of all critiques, so an unparsable critique is a miss. These figures
    take the final answer as the truth, so a perfect judge of steps has less than 1 if right answers
    have wrong steps. `by_steps` has the same shares with the steps as the truth. `processbench_f1`
    and `first_error_micro_f1` measure located errors; the two can differ widely. If steps are not
    known, `by_steps` is None and these two are absent.
    """
    measures = _agreement(
        [(e.critique.facts.verdict, bool(e.attempt.facts.correct)) for e in episodes]
    )
    measures['parse_rate'] = _share(e.critique.facts.verdict is not None for e in episodes)
    if not knows_steps(episodes):
        return measures | {'by_steps': None}
    pairs = [(e.critique.facts.located, e.attempt.facts.first_error) for e in episodes]
    steps = [(e.critique.facts.verdict, bool(e.attempt.facts.steps_correct)) for e in episodes]
    claims = [
        Claim(e.critique.facts.located, e.critique.facts.verdict is True, true)
        for e, (_, true) in zip(episodes, pairs, strict=True)
    ]
    return measures | {
        'by_steps': _agreement(steps),
        'processbench_f1': processbench_f1(claims),
        'first_error_micro_f1': first_error_micro_f1(pairs),
    }


def _agreement(judged: Sequence[tuple[bool | None, bool]]) -> dict[str, Share]:
    """Returns the shares of (verdict, truth) that agree; a verdict of None is one not readable."""
    sides = {
        '': judged,
        '_right': [pair for pair in judged if pair[1]],
        '_wrong': [pair for pair in judged if not pair[1]],
    }
    agree = lambda pairs: _share(verdict is truth for verdict, truth in pairs)  # noqa: E731
    parsed = {name: [p for p in pairs if p[0] is not None] for name, pairs in sides.items()}
    return {f'discriminability{name}': agree(pairs) for name, pairs in parsed.items()} | {
        'passed': agree(sides['_right']),
        'found': agree(sides['_wrong']),
    }


def first_error_micro_f1(pairs: Sequence[tuple[int | None, int | None]]) -> float:
    """Micro F1 of (located, true) first errors: 2 hits / (claimed + actual).

    A hit is the same line; None means "no error". Right attempts count only if they are called
    wrong, so a critic that passes few of them can still score high: see `processbench_f1`.
    """
    hits = sum(located == true for located, true in pairs if true is not None)
    claimed, actual = (sum(pair[i] is not None for pair in pairs) for i in (0, 1))
    return 2 * hits / (claimed + actual) if claimed + actual else 0.0


class Claim(NamedTuple):
    """What a critique says of an attempt's steps, and the truth."""

    located: int | None  # the first line that it calls wrong
    passes: bool  # it says that the final answer is correct
    first_error: int | None  # the first line that is wrong; None: none is


def processbench_f1(claims: Sequence[Claim]) -> Share:
    """ProcessBench's F1: the harmonic mean of two accuracies (arXiv 2412.06559).

    They are the share of wrong attempts whose very first error is located, and the share of right
    attempts that pass: no line is called wrong and the answer is called correct. So an unreadable
    critique is a miss in both. None if there are no wrong or no right attempts.
    """
    found = _share(c.located == c.first_error for c in claims if c.first_error is not None)
    passed = _share(c.passes and c.located is None for c in claims if c.first_error is None)
    if found is None or passed is None:
        return None
    return 2 * found * passed / (found + passed) if found + passed else 0.0


def detection(episodes: Sequence[Episode]) -> dict[str, dict[str, float]]:
    """Number of attempts with each kind of mistake, and the shares that the critic detects.

    `found` is a final verdict of "wrong"; `located` is the same line as the true first error. A
    mistake counts even if the answer happens to be correct. Source: arXiv 2406.13439, which
    evaluates critics on mistakes of known kinds.
    """
    kinds = collections.defaultdict(list)
    for episode in episodes:
        if episode.attempt.facts.kind is not None:
            kinds[episode.attempt.facts.kind].append(episode)
    return {
        kind: {
            'attempts': len(members),
            'found': _share(e.critique.facts.verdict is False for e in members),
            'located': _share(
                e.critique.facts.located == e.attempt.facts.first_error for e in members
            ),
        }
        for kind, members in sorted(kinds.items())
    }


def uncertainty(groups: Sequence[Sequence[Episode]], *, num_bins: int) -> list[dict[str, Any]]:
    """The critic's metrics as a function of the actor's uncertainty about a question.

    groups: the attempts at each question. Uncertainty is `vote_entropy`, in [0, 1]. The bins have
    equal width; those without questions are omitted. Source: arXiv 2310.04815, section 4.3.
    """
    bins = collections.defaultdict(list)
    for group in groups:
        bins[bin_of(vote_entropy(group), num_bins)].append(group)
    table = []
    for index, chosen in sorted(bins.items()):
        episodes = [e for group in chosen for e in group]
        table.append(
            {
                'low': index / num_bins,
                'high': (index + 1) / num_bins,
                'questions': len(chosen),
                'uncertainty': float(np.mean([vote_entropy(group) for group in chosen])),
                'accuracy': _share(e.attempt.facts.correct for e in episodes),
                **critic(episodes),
            }
        )
    return table


def vote_entropy(group: Sequence[Episode]) -> float:
    """Entropy of the answers to one question, divided by its maximum log(attempts).

    "No answer" counts as an answer of its own. 0 for a single attempt.
    """
    # None, "no answer", is counted like any other key.
    counts = collections.Counter(e.attempt.facts.answer for e in group).values()
    shares = [count / len(group) for count in counts]
    if len(shares) == 1:
        return 0.0
    return -sum(share * math.log(share) for share in shares) / math.log(len(group))


# Effect of refinement


def transitions(episodes: Sequence[Episode]) -> dict[str, Share]:
    """Shares of attempts by correctness before and after refinement: c correct, i incorrect.

    delta = accuracy after - before = i2c - c2i; helpfulness = i2c / incorrect attempts.
    """
    counts = _changes(episodes)
    shares = {name: counts[name] / len(episodes) for name in ('c2c', 'c2i', 'i2c', 'i2i')}
    return shares | {
        'delta': shares['i2c'] - shares['c2i'],
        'helpfulness': _ratio(counts['i2c'], counts['i2c'] + counts['i2i']),
    }


def confidence_and_critique(episodes: Sequence[Episode]) -> dict[str, Share]:
    """Self-correction as confidence CL and critique score CS, and their relative score RSS.

    CL = P(right stays right) and CS = P(wrong becomes right). With accuracy a before and b after,
    b = a CL + (1 - a) CS. RSS places b between a^2, which has CL = a and CS = 0, and 2a - a^2,
    which has CL = 1 and CS = a: RSS = (b - a^2) / (2a - 2a^2), which is 0.5 for b = a.
    Source: arXiv 2412.19513.
    """
    counts = _changes(episodes)
    before = (counts['c2c'] + counts['c2i']) / len(episodes)
    after = (counts['c2c'] + counts['i2c']) / len(episodes)
    return {
        'before': before,
        'after': after,
        'CL': _ratio(counts['c2c'], counts['c2c'] + counts['c2i']),
        'CS': _ratio(counts['i2c'], counts['i2c'] + counts['i2i']),
        'RSS': _ratio(after - before**2, 2 * before - 2 * before**2),
    }


def spurious_share(episodes: Sequence[Episode]) -> Share:
    """Share of correct answers reached through a wrong step; None if steps are not known."""
    right = [e for e in episodes if e.attempt.facts.correct]
    return _share(not e.attempt.facts.steps_correct for e in right) if knows_steps(right) else None


def knows_steps(episodes: Sequence[Episode]) -> bool:
    """Returns whether every episode's first wrong step is known."""
    return all(e.attempt.facts.steps_correct is not None for e in episodes)


# Calibration


def calibration(episodes: Sequence[Episode], *, num_bins: int) -> dict[str, Any]:
    """Calibration of the critic's scores as probabilities, for final answers and for steps.

    `final` is about final answers. The other keys are present only if first errors are known:
    `steps` is about all known step scores, `positions` the same by position in the attempt, from 1.
    A score of exactly 0 belongs to a step after the critique's end: `unjudged` is the share of
    steps with such a score or an unknown one, and `judged` is about the others.
    """
    finals = [
        (facts.score, bool(facts.correct))
        for facts in (e.attempt.facts for e in episodes)
        if facts.score is not None
    ]
    final = {'final': reliability(finals, num_bins=num_bins)}
    if not knows_steps(episodes):
        return final
    positions, num_unknown = collections.defaultdict(list), 0
    for episode in episodes:
        for position, (score, right) in enumerate(known_steps(episode), 1):
            num_unknown += score is None and episode.attempt.facts.num_reached is not None
            if score is not None:
                positions[position].append((score, right))
    steps = [pair for pairs in positions.values() for pair in pairs]
    return final | {
        'steps': reliability(steps, num_bins=num_bins),
        'judged': reliability([pair for pair in steps if pair[0] > 0], num_bins=num_bins),
        'unjudged': _share([True] * num_unknown + [score == 0 for score, _ in steps]),
        'positions': {
            str(position): _without_curve(reliability(pairs, num_bins=num_bins))
            for position, pairs in sorted(positions.items())
        },
    }


def known_steps(episode: Episode) -> list[tuple[float | None, bool]]:
    """Returns (score, is it right) of an attempt's steps up to and including its first wrong one.

    Later steps build on a wrong one, so their truth is unknown. A score may be unknown (None).
    """
    scores, first = episode.attempt.step_scores, episode.attempt.facts.first_error
    known = scores if first is None else scores[: first + 1]
    return [(score, i != first) for i, score in enumerate(known)]


def reliability(pairs: Sequence[tuple[float, bool]], *, num_bins: int) -> dict[str, Any]:
    """Reliability curve, expected calibration error and Brier score of (score, right) pairs.

    Scores are in [0, 1]. `curve` has bins of equal width, without the empty ones; `ece` is the mean
    distance between a bin's mean score and its share of right ones, weighted by count
    (arXiv 1706.04599); `brier` is the mean squared error.
    """
    if not pairs:
        return {'count': 0, 'score': None, 'right': None, 'ece': None, 'brier': None, 'curve': []}
    bins = collections.defaultdict(list)
    for score, right in pairs:
        bins[bin_of(score, num_bins)].append((score, right))
    curve = [
        {'low': i / num_bins, 'high': (i + 1) / num_bins, 'count': len(members)} | _means(members)
        for i, members in sorted(bins.items())
    ]
    gaps = [b['count'] * abs(b['score'] - b['right']) for b in curve]
    return {
        'count': len(pairs),
        **_means(pairs),
        'ece': sum(gaps) / len(pairs),
        'brier': float(np.mean([(score - right) ** 2 for score, right in pairs])),
        'curve': curve,
    }


# Shares, means and bins


def _changes(episodes: Sequence[Episode]) -> collections.Counter:
    return collections.Counter(
        f'{"ic"[bool(e.attempt.facts.correct)]}2{"ic"[finally_correct(e)]}' for e in episodes
    )


def _share(values) -> Share:
    values = list(values)
    return float(np.mean(values)) if values else None


def _ratio(part: float, whole: float) -> Share:
    return part / whole if whole else None


def _means(pairs: Sequence[tuple[float, bool]]) -> dict[str, float]:
    return {
        'score': float(np.mean([score for score, _ in pairs])),
        'right': float(np.mean([right for _, right in pairs])),
    }


def _without_curve(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != 'curve'}


def bin_of(value: float, num_bins: int) -> int:
    """Returns the index of a value's bin in [0, 1]; the last bin includes 1."""
    return min(int(value * num_bins), num_bins - 1)
