"""Charts of a run's episodes and of its health, as the episode browser has them, for files.

The browser draws those of the episodes that a filter keeps; here are all, source by source.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from matplotlib import figure as figures

from elenchus.data.files import episode_files
from elenchus.data.text.printable import printable
from elenchus.train.report import plots
from elenchus.train.report.browser import health, rows, sources
from elenchus.train.report.browser.filters import SAYS
from elenchus.train.report.charts import Chart

NUM_BINS = 10
VERDICTS = tuple(f'{truth}, called {says}' for truth in ('right', 'wrong') for says in SAYS)
MAX_LABEL = 40

Counts = dict[str, collections.Counter]
"""Label of a source -> kind -> episodes."""


class Tally(NamedTuple):
    """What is counted of the episodes of a run, by source."""

    changes: Counts  # attempt and answer right or wrong: rows.TRANSITIONS
    verdicts: Counts  # truth of the attempt and what the critic says: VERDICTS
    rewards: dict[str, list[float]]


def charts_of(workdir: epath.Path) -> Iterator[Chart]:
    """Yields the charts of all episodes, and one of health for each stage with such metrics."""
    tally = count(workdir)
    if tally.changes:
        caption = 'Attempt, then answer: c right, i wrong.'
        yield stacked('change', tally.changes, rows.TRANSITIONS, caption=caption)
    if tally.verdicts:
        caption = 'Attempts by truth and verdict of the critic.'
        yield stacked('verdicts', tally.verdicts, VERDICTS, caption=caption)
    if tally.rewards:
        yield rewards(tally.rewards)
    series = collections.defaultdict(list)
    for metric in health.read_series(workdir):
        series[metric['stage']].append(metric)
    for stage, metrics in series.items():
        yield health_of(stage, metrics)


def count(workdir: epath.Path) -> Tally:
    """Counts the episodes of a run; those of which something is not known do not count in it."""
    tally = Tally({}, {}, {})
    for source in sources.find_sources(workdir):
        label = label_of(source)
        values = sources.read_values(source)
        for place, episode in enumerate(episode_files.read_episodes(source.folder)):
            own = values[place] if values else None
            row = rows.make_row(episode, values=own, end_id=None)
            if row['transition'] is not None:
                counter = tally.changes.setdefault(label, collections.Counter())
                counter[rows.TRANSITIONS[row['transition']]] += 1
            if row['judged'] is not None and row['before'] is not None:
                counter = tally.verdicts.setdefault(label, collections.Counter())
                counter[VERDICTS[len(SAYS) * (1 - row['before']) + row['judged']]] += 1
            if own is not None and row['reward'] is not None:
                tally.rewards.setdefault(label, []).append(row['reward'])
    return tally


def label_of(source: sources.Source) -> str:
    """Returns the name of a source: stage, part and round."""
    parts = [source.stage, *([] if source.part == sources.MAIN else [source.part])]
    parts += [] if source.round is None else [str(source.round)]
    return printable(' '.join(parts))


def stacked(name: str, counts: Counts, kinds: Sequence[str], *, caption: str) -> Chart:
    """Shares of the kinds of episodes, a bar for each source."""
    table = [
        (label, kind, counter[kind], counter[kind] / counter.total())
        for label, counter in counts.items()
        for kind in kinds
    ]
    return Chart(
        f'episodes {name}',
        caption,
        lambda: _draw_stacked(counts, kinds),
        ('source', 'kind', 'episodes', 'share'),
        table,
    )


def rewards(values: Mapping[str, Sequence[float]]) -> Chart:
    """Distribution of rewards in the iterations that reinforcement learning stored."""
    table = [(label, reward) for label, numbers in values.items() for reward in numbers]
    return Chart(
        'episodes reward',
        'Rewards as reinforcement learning computed them, by stored iteration.',
        lambda: _draw_rewards(values),
        ('source', 'reward'),
        table,
    )


def health_of(stage: str, metrics: Sequence[Mapping[str, Any]]) -> Chart:
    """Metrics of a stage that have a healthy range, which is shaded."""
    table = [
        (m['name'], step, value, m['low'], m['high'])
        for m in metrics
        for step, value in m['points']
    ]
    return Chart(
        f'health {stage}',
        'Metrics with a healthy range (shaded), by step.',
        lambda: _draw_health(metrics),
        ('metric', 'step', 'value', 'low', 'high'),
        table,
    )


def _draw_stacked(counts: Counts, kinds: Sequence[str]) -> figures.Figure:
    figure, (axes,) = plots.make_panels(1, columns=1, size=(7.6, 0.9 + 0.28 * len(counts)))
    labels, below = [label[:MAX_LABEL] for label in counts], [0.0] * len(counts)
    for index, kind in enumerate(kinds):
        shares = [100 * counter[kind] / counter.total() for counter in counts.values()]
        places = range(len(counts))
        axes.barh(places, shares, 0.8, left=below, color=plots.colour_of(index), label=kind)
        below = [low + share for low, share in zip(below, shares, strict=True)]
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis='y', visible=False)
    axes.set(xlabel='episodes, %', xlim=(0, 100))
    figure.legend(loc='outside lower center', ncols=3, frameon=False)
    return figure


def _draw_rewards(values: Mapping[str, Sequence[float]]) -> figures.Figure:
    figure, grid = plots.make_panels(len(values), columns=3, size=(3.1, 2.1))
    every = [reward for numbers in values.values() for reward in numbers]
    span = (
        (min(every), max(every))
        if min(every) < max(every)
        else (min(every) - 0.5, max(every) + 0.5)
    )
    for axes, (label, numbers) in zip(grid, values.items(), strict=True):
        axes.hist(numbers, NUM_BINS, range=span, color=plots.colour_of(1))
        axes.set(title=label[:MAX_LABEL], xlabel='reward', ylabel='episodes')
    return figure


def _draw_health(metrics: Sequence[Mapping[str, Any]]) -> figures.Figure:
    figure, grid = plots.make_panels(len(metrics), columns=3, size=(3.1, 2.1), fixed=True)
    for axes, metric in zip(grid, metrics, strict=True):
        known = [point for point in metric['points'] if point[1] is not None]
        steps, values = zip(*known, strict=True) if known else ((), ())
        axes.plot(steps, values, color=plots.colour_of(1), lw=1.2)
        low, high = axes.get_ylim()
        end = high if metric['high'] is None else metric['high']
        axes.axhspan(
            metric['low'], max(end, metric['low']), color=plots.colour_of(4), alpha=0.15, lw=0
        )
        axes.set_ylim(low, high)  # of the values: a range may be far wider
        axes.set(title=metric['name'], xlabel='step')
    return figure
