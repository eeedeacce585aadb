"""Figures of a critic on labelled solutions, beside critics that always say the same.

The label of a critique is the step that it calls wrong first, NOTHING if it passes all, or None if
it cannot be read, which is wrong whatever the truth is.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elenchus.data.records import Episode
from elenchus.sampling.metrics import cost_curves, critic_metrics, statistics
from elenchus.sampling.test_time import votes
from elenchus.train.config.run_settings import EvaluateSettings

NOTHING = -1
"""Label of a solution without a wrong step."""

MR_WEIGHTS = (0.2, 0.3, 0.5)
"""Of MR-GSM8K's correlation, step and reason."""

Hits = Sequence[float]
"""For each solution the probability that its label is the true one."""


def label_of(episode: Episode) -> int | None:
    """Returns the label of an episode's critique."""
    facts = episode.critique.facts
    if facts.located is not None:
        return facts.located
    return NOTHING if facts.verdict is True else None


def truth_of(episode: Episode) -> int:
    """Returns the true label of an episode's attempt."""
    first = episode.attempt.facts.first_error
    return NOTHING if first is None else first


def summarise(
    s: EvaluateSettings, greedy: Sequence[Episode], voted: Sequence[Sequence[Episode]]
) -> dict[str, Any]:
    """Returns the rows of the table by critic, the hidden errors that it finds, and calibration."""
    truths = [truth_of(episode) for episode in greedy]
    labels = [label_of(episode) for episode in greedy]
    rows = {
        'always right': row(s, truths, constant(truths, NOTHING)),
        'always wrong, at the first step': row(s, truths, constant(truths, 0)),
        'greedy': row(s, truths, hits(truths, labels))
        | {
            'tokens': mean_tokens(greedy),
            'readable': float(np.mean([label is not None for label in labels])),
            'verdict': verdict_accuracy(labels, truths),
            'mcc': matthews(labels, truths),
            'mr_score': mr_score(labels, truths),
        },
    }
    rows |= vote_rows(s, truths, voted)
    hidden = [i for i, e in enumerate(greedy) if e.attempt.facts.correct and truths[i] != NOTHING]
    return {
        'critics': rows,
        'solutions': len(greedy),
        'wrong': sum(truth != NOTHING for truth in truths),
        'hidden_errors': hidden_errors(truths, labels, hidden),
        'calibration': critic_metrics.calibration(list(greedy), num_bins=s.num_bins),
        'critic': critic_metrics.critic(list(greedy)),
    }


def constant(truths: Sequence[int], label: int) -> Hits:
    """Returns the hits of a critic that always says the same."""
    return hits(truths, [label] * len(truths))


def hits(truths: Sequence[int], labels: Sequence[int | None]) -> Hits:
    """Returns 1 where a label is the true one, else 0."""
    return [float(label == truth) for label, truth in zip(labels, truths, strict=True)]


def row(s: EvaluateSettings, truths: Sequence[int], right: Hits) -> dict[str, Any]:
    """Returns F1 and the accuracies of wrong, right and all solutions, each with bounds.

    F1 is ProcessBench's, the harmonic mean of the two. BIG-Bench Mistake's measure is `accuracy`.
    """
    is_wrong = np.array([truth != NOTHING for truth in truths])
    values = np.asarray(right, float)
    options = {'num_resamples': s.num_resamples, 'seed': 0, 'level': s.confidence}
    sides = {'found': values[is_wrong], 'passed': values[~is_wrong], 'accuracy': values}
    intervals = {
        name: list(statistics.bootstrap(side, **options)) if len(side) else None
        for name, side in sides.items()
    }
    return {'f1': f1_interval(values, is_wrong, s)} | intervals


def f1(values: np.ndarray, is_wrong: np.ndarray) -> float | None:
    """Returns the harmonic mean of the accuracies on wrong and right solutions.

    Returns None if there are no wrong, or no right ones.
    """
    if is_wrong.all() or not is_wrong.any():
        return None
    found, passed = values[is_wrong].mean(), values[~is_wrong].mean()
    return float(2 * found * passed / (found + passed)) if found + passed else 0.0


def f1_interval(
    values: np.ndarray, is_wrong: np.ndarray, s: EvaluateSettings
) -> list[float | None] | None:
    """Returns F1 with a percentile bootstrap over solutions; no bounds below MIN_QUESTIONS."""
    mean = f1(values, is_wrong)
    if mean is None:
        return None
    if len(values) < statistics.MIN_QUESTIONS:
        return [mean, None, None]
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(values), size=(s.num_resamples, len(values)))
    drawn = [f1(values[some], is_wrong[some]) for some in chosen]
    known = [value for value in drawn if value is not None]
    low, high = np.quantile(known, [(1 - s.confidence) / 2, (1 + s.confidence) / 2])
    return [mean, float(low), float(high)]


def vote_rows(
    s: EvaluateSettings, truths: Sequence[int], voted: Sequence[Sequence[Episode]]
) -> dict[str, dict]:
    """Returns rows of majorities of 1, 2, 4, ... sampled critiques, with the tokens that they cost.

    A critique that cannot be read has no vote, as in ProcessBench; ties are shared.
    """
    if not voted:
        return {}
    n = len(voted[0])
    labels = [[label_of(episode) for episode in group] for group in voted]
    per_critique = mean_tokens([episode for group in voted for episode in group])
    rows = {}
    for size in cost_curves.sizes(n):
        subsets = statistics.subsets(n, size, num_draws=s.num_draws, seed=0)
        right = [
            float(np.mean([_share([group[i] for i in some], truth) for some in subsets]))
            for group, truth in zip(labels, truths, strict=True)
        ]
        name = 'sampled' if size == 1 else f'majority@{size}'
        rows[name] = row(s, truths, right) | {'tokens': size * per_critique}
    return rows


def _share(labels: Sequence[int | None], truth: int) -> float:
    """Returns the probability that a majority of labels is the true one."""
    texts = [None if label is None else str(label) for label in labels]
    return votes.majority(texts).get(str(truth), 0.0)


def hidden_errors(
    truths: Sequence[int], labels: Sequence[int | None], hidden: Sequence[int]
) -> dict[str, Any]:
    """Returns the shares of solutions with a right answer and a wrong step that are found.

    A reward by the outcome cannot see them. `flagged` are called wrong at any step, `located` at
    the right one. None where there are none.
    """
    share: Callable[[list[bool]], float | None] = (  # noqa: E731
        lambda values: float(np.mean(values)) if values else None
    )
    return {
        'solutions': len(hidden),
        'flagged': share([labels[i] not in (None, NOTHING) for i in hidden]),
        'located': share([labels[i] == truths[i] for i in hidden]),
    }


def verdict_accuracy(labels: Sequence[int | None], truths: Sequence[int]) -> float:
    """Returns the share of solutions for which "some step is wrong" is claimed as it is true."""
    pairs = zip(labels, truths, strict=True)
    return float(
        np.mean([label is not None and (label < 0) == (truth < 0) for label, truth in pairs])
    )


def matthews(labels: Sequence[int | None], truths: Sequence[int]) -> float | None:
    """Returns the correlation of "some step is wrong" with the truth; None if one is constant.

    An unreadable critique counts as the wrong claim. It is a part of MR-GSM8K's score.
    """
    truth = np.array([t != NOTHING for t in truths])
    pairs = zip(labels, truth, strict=True)
    claim = np.array([not t if label is None else label != NOTHING for label, t in pairs])
    if claim.all() or not claim.any() or truth.all() or not truth.any():
        return None
    value = float(np.corrcoef(claim, truth)[0, 1])
    return None if math.isnan(value) else value


def mr_score(labels: Sequence[int | None], truths: Sequence[int]) -> dict[str, float] | None:
    """Returns the bounds of MR-GSM8K's score; None if there are no right or no wrong solutions.

    MR-Score = 0.2 max(0, MCC) + 0.3 step + 0.5 reason (arXiv 2312.17080): `step` is the share of
    wrong solutions that are called wrong at their first error, `reason` the share whose error is
    also explained as it is. A person or a strong model judges reasons, which is not done here:
    `low` is the score if none is right, `high` if each is that goes with the right step. A constant
    claim has the correlation 0, as is usual.
    """
    steps = [label == truth for label, truth in zip(labels, truths, strict=True) if truth >= 0]
    if not steps or len(steps) == len(truths):
        return None
    step, correlation = float(np.mean(steps)), max(0.0, matthews(labels, truths) or 0.0)
    low = MR_WEIGHTS[0] * correlation + MR_WEIGHTS[1] * step
    return {'step': step, 'low': low, 'high': low + MR_WEIGHTS[2] * step}


def mean_tokens(episodes: Sequence[Episode]) -> float:
    """Returns the mean number of tokens of a critique."""
    return float(np.mean([len(e.critique.tokens) for e in episodes]))
