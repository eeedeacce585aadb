"""Pre-named contrasts of a study: mean differences over seeds, with intervals and p-values.

A contrast is the difference of two arms in one column. The seeds of a study are its training runs,
each with its own data, so the difference is tested over seeds and not over questions. Few contrasts
are named before the study runs, and their p-values are adjusted together.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenchus.data.text import markdown
from elenchus.sampling.metrics import statistics
from elenchus.sampling.metrics.statistics import Interval
from elenchus.train.config import build

MAX_CONTRASTS = 5
"""Most contrasts of a study: each further one costs all of them power."""
CONFIDENCE = 0.95
NUM_RESAMPLES = 2000

Key = str | int | tuple[str | int, ...]
FigurePath = tuple[Key, ...]
"""Path of a figure in a run's summaries: the stage (or 'last' for the run's last one), then keys
and indices. A tuple of keys means the mean of the figures under each of them."""
Questions = Mapping[str, Mapping[str, Any]]
"""Stage -> its questions.json, of stages that have one."""


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A difference that a study is about: `arm` less `baseline`, in a column of the table."""

    arm: str
    baseline: str
    column: str


class ContrastResult(NamedTuple):
    """Estimates of a contrast over the seeds, in the unit of its column."""

    differences: list[float]  # by seed
    over_seeds: Interval  # Student's t
    over_questions: Interval | None  # seeds and questions resampled; None: no accuracy by question
    design: statistics.Design | None  # of the latter
    p: float | None  # two-sided, of t over seeds
    adjusted: float | None  # by Holm, over the study's contrasts


def check_contrasts(
    contrasts: Sequence[Contrast], *, arms: Collection[str], columns: Collection[str]
) -> None:
    """Raises ValueError if there are too many, or an arm or a column does not exist."""
    if len(contrasts) > MAX_CONTRASTS:
        raise ValueError(
            f'config.comparison.contrasts: {len(contrasts)} contrasts must be at most '
            f'{MAX_CONTRASTS}'
        )
    for contrast in contrasts:
        for field, known in (('arm', arms), ('baseline', arms), ('column', columns)):
            name = getattr(contrast, field)
            if name not in known:
                raise ValueError(
                    f'config.comparison.contrasts: unknown {field}={name!r}; '
                    f'nearest: {build.nearest(name, list(known))!r}'
                )


def compare(
    differences: Sequence[float],
    arm: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    *,
    design: statistics.Design | None,
) -> ContrastResult:
    """Estimates a contrast over seeds; its p-value is not adjusted yet (`adjust`).

    differences: by seed; NaN where a figure is undefined, which leaves everything unknown. arm,
    baseline: the values at each question by seed, [] if unknown.
    """
    if np.isnan(differences).any():
        unknown = Interval(float('nan'), None, None)
        return ContrastResult(list(differences), unknown, None, None, None, None)
    over_questions = None
    sizes = {len(values) for values in (*arm, *baseline)}
    # A resample draws the same number of questions in every run.
    if design and len(sizes) == 1:
        over_questions = statistics.crossed_bootstrap(
            arm, baseline, design=design, num_resamples=NUM_RESAMPLES, seed=0, level=CONFIDENCE
        )
    return ContrastResult(
        list(differences),
        statistics.t_interval(differences, level=CONFIDENCE),
        over_questions,
        design if over_questions else None,
        statistics.t_test(differences),
        None,
    )


def adjust(results: Sequence[ContrastResult]) -> list[ContrastResult]:
    """Returns the results with p-values adjusted over the family by Holm's procedure."""
    adjusted = statistics.holm([result.p for result in results])
    return [r._replace(adjusted=p) for r, p in zip(results, adjusted, strict=True)]


def design_of(arm: Sequence[Questions], baseline: Sequence[Questions]) -> statistics.Design | None:
    """Returns whether the seeds share their questions; None if that or a pairing is not known.

    Each argument has the questions of an arm's seeds.
    """
    digests = [_digests(questions) for questions in arm]
    if not all(digests) or digests != [_digests(questions) for questions in baseline]:
        return None
    return 'crossed' if all(digest == digests[0] for digest in digests) else 'nested'


def _digests(questions: Questions) -> set[str]:
    return {stage['digest'] for stage in questions.values()}


def values_at(questions: Questions, path: FigurePath) -> np.ndarray | None:
    """Returns the values at each question whose mean is the figure at `path`, [Q].

    Paths of accuracies and of differences of two of them have such values, as in
    ('evaluate', 'accuracy', 'refined', 'all', 0); with several levels, a mean of the levels' means.
    None for all other paths, and for stages without values.
    """
    if len(path) != 5 or path[1] not in ('accuracy', 'difference') or path[4] != 0:
        return None
    stage, kind, name, levels, _ = path
    values = questions.get(stage)
    if values is None:
        return None
    arms = [name] if kind == 'accuracy' else name.split('-')
    if any(arm not in values['accuracy'] for arm in arms):
        return None
    first, *others = (np.array(values['accuracy'][arm]) for arm in arms)
    return _of_levels(first - sum(others), values['levels'], levels)


def _of_levels(values: np.ndarray, level_of: Sequence[str], levels: Key) -> np.ndarray:
    """Values of the questions of some levels, scaled so that their mean is that of level means."""
    if levels == 'all':
        return values
    names = np.array(level_of)
    wanted = levels if isinstance(levels, tuple) else (levels,)
    chosen = [values[names == level] for level in wanted]
    total = sum(map(len, chosen))
    return np.concatenate([part * total / (len(chosen) * len(part)) for part in chosen])


def table_lines(contrasts: Sequence[Contrast], results: Sequence[ContrastResult]) -> list[str]:
    """Markdown lines of the contrasts, one row each; a dash stands for what is not known."""
    head = ('contrast', 'mean', 't over seeds', 'seeds x questions', 'p', "Holm's p")
    lines = [markdown.row(head), '|---' * len(head) + '|']
    for contrast, result in zip(contrasts, results, strict=True):
        resampled = _interval(result.over_questions)
        mean = result.over_seeds.mean
        cells = (
            markdown.text(f'{contrast.arm} - {contrast.baseline}: {contrast.column}'),
            '-' if np.isnan(mean) else f'{mean:+.1f}',
            _interval(result.over_seeds),
            f'{resampled} ({result.design})' if result.design and resampled != '-' else resampled,
            *('-' if p is None else f'{p:.3f}' for p in (result.p, result.adjusted)),
        )
        lines.append(markdown.row(cells))
    return lines


def _interval(interval: Interval | None) -> str:
    if interval is None or interval.low is None:
        return '-'
    return f'[{interval.low:+.1f}, {interval.high:+.1f}]'
