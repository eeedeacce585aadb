"""Makes report.html, one self-contained page about a run, and accuracy.png, its main plot.

    python -m scripts.report --workdir runs/lab

Everything comes from the files that the stages left; what is not there is shown as not run.
"""

import collections
import html
import io
import itertools
import json
import os
import pathlib
import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from absl import flags
from matplotlib import figure as figures

from data import records, tokenizer
from train import metrics, settings

TEMPLATE = pathlib.Path(__file__).with_name('report_template.html')
NOT_RUN = '<div class="missing">not run</div>'
INK = '#123456'  # stands for the page's text colour in a plot; replaced by currentColor
COLOURS = ('#8a94a6', '#3f86d4', '#e08a2e', '#8c6bd1', '#2f9e77', '#d1587f')
MARKERS = 'osD^vP'
MAX_POINTS = 400  # of a plotted curve
NUM_EPISODES = 10
TRANSITIONS = {
    'c2c': 'right, stays right',
    'c2i': 'right, made wrong',
    'i2c': 'wrong, put right',
    'i2i': 'wrong, stays wrong',
}
CRITIC = {
    'discriminability': 'final verdict matches the truth',
    'found': 'wrong attempts called wrong',
    'passed': 'right attempts called right',
    'first_error_f1': 'first error located (F1)',
    'parse_rate': 'critiques that parse',
}

Stages = dict[str, dict[str, Any]]


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `workdir`/report.html and accuracy.png from what is there; returns the page's path."""
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise ValueError(f'--workdir={workdir} is no folder; nearest: {workdir.parent}')
    stages = load_stages(workdir)
    evaluations = {name: s for name, s in stages.items() if s.get('accuracy')}
    sections = {
        'Result': _headline(evaluations),
        'Accuracy by level': _accuracy(evaluations),
        'Accuracy against tokens': _tokens(evaluations),
        'The critic': _critic(evaluations),
        'Loss and reward': _curves(workdir, stages),
        'Episodes to read': _episodes(workdir, stages),
        'Cost': _cost(stages),
    }
    if evaluations:
        _save_png(lambda: _plot_levels(evaluations), workdir / 'accuracy.png')
    _replace(workdir / 'report.html', _page(workdir, sections).encode())
    return workdir / 'report.html'


def load_stages(workdir: pathlib.Path) -> Stages:
    """Summaries of all stages in order; empty for a stage that has begun and not ended."""
    stages = {path.name: {} for path in workdir.glob('stages/*') if path.is_dir()}
    for path in workdir.glob('stages/*/summary.json'):
        stages[path.parent.name] = json.loads(path.read_text(encoding='utf-8'))
    if (workdir / 'summary.json').exists():
        whole = json.loads((workdir / 'summary.json').read_text(encoding='utf-8'))
        stages |= whole.get('stages', {})
    return dict(sorted(stages.items()))


# Sections


def _headline(evaluations: Stages) -> str:
    if not evaluations:
        return NOT_RUN
    arms, contrasts = _keys(evaluations, 'accuracy'), _keys(evaluations, 'difference')
    rows = [
        [_text(name)]
        + [_interval(s['accuracy'].get(arm, {}).get('all')) for arm in arms]
        + [_interval(s.get('difference', {}).get(c, {}).get('all'), sign='+') for c in contrasts]
        for name, s in evaluations.items()
    ]
    note = 'Per cent of questions right, all levels, with intervals; differences in points.'
    return _table(['evaluation', *arms, *map(_contrast, contrasts)], rows, note)


def _accuracy(evaluations: Stages) -> str:
    if not evaluations:
        return NOT_RUN
    tables = []
    for name, stage in evaluations.items():
        columns = [(arm, stage['accuracy'][arm], '') for arm in stage['accuracy']]
        columns += [(_contrast(c), v, '+') for c, v in stage.get('difference', {}).items()]
        levels = _levels(stage['accuracy'])
        rows = [[_text(n)] + [_interval(v.get(n), sign=s) for _, v, s in columns] for n in levels]
        table = _table(['level', *(title for title, _, _ in columns)], rows, '')
        tables.append(f'<h3>{_text(name)}</h3>{table}')
    caption = 'Share of questions right by level; bars show the intervals.'
    return _svg(lambda: _plot_levels(evaluations), caption) + ''.join(tables)


def _tokens(evaluations: Stages) -> str:
    costed = {name: s for name, s in evaluations.items() if s.get('tokens_per_answer')}
    if not costed:
        return NOT_RUN
    arms = _keys(costed, 'tokens_per_answer')
    rows = [
        [_text(name)] + [_number(s['tokens_per_answer'].get(arm)) for arm in arms]
        for name, s in costed.items()
    ]
    caption = 'Share of questions right against generated tokens an answer.'
    table = _table(['evaluation', *arms], rows, 'Generated tokens an answer.')
    return _svg(lambda: _plot_tokens(costed), caption) + table


def _critic(evaluations: Stages) -> str:
    judged = {name: s for name, s in evaluations.items() if s.get('critic') or s.get('transitions')}
    if not judged:
        return NOT_RUN
    critic = [
        [_text(title)] + [_interval(s.get('critic', {}).get(key)) for s in judged.values()]
        for key, title in CRITIC.items()
    ]
    changes = [
        [_text(title)] + [_share(s.get('transitions', {}).get(key)) for s in judged.values()]
        for key, title in TRANSITIONS.items()
    ]
    return _table(['critic, %', *judged], critic, '') + _table(
        ['attempt, then refinement, %', *judged], changes, 'Shares of all questions.'
    )


def _curves(workdir: pathlib.Path, stages: Stages) -> str:
    parts = []
    for name in stages:
        curves = _load_curves(workdir / 'stages' / name / metrics.METRICS)
        if curves:
            plot = _svg(lambda curves=curves: _plot_curves(curves), 'By step.')
            parts.append(f'<h3>{_text(name)}</h3>{plot}')
    return ''.join(parts) or NOT_RUN


def _episodes(workdir: pathlib.Path, stages: Stages) -> str:
    folders = [workdir / 'stages' / name / 'episodes' for name in stages if 'evaluate' in name]
    folder = next((f for f in folders if any(f.glob('*.array_record'))), None)
    if folder is None or not (workdir / 'tokenizer.model').exists():
        return NOT_RUN
    decode = tokenizer.load_tokenizer(workdir / 'tokenizer.model').decode
    chosen = choose_episodes(records.read_episodes(folder), NUM_EPISODES)
    note = (
        f'{len(chosen)} of the episodes of {_text(folder.parent.name)}, of each kind and level by '
        "turns. The number at a step is the critic's probability that it is right."
    )
    return f'<p class="soft">{note}</p>' + ''.join(_episode(e, decode) for e in chosen)


def _cost(stages: Stages) -> str:
    if not stages:
        return NOT_RUN
    fields = ('seconds', 'tokens_sampled', 'tokens_trained')
    rows = [[_text(n)] + [_number(s.get(f)) for f in fields] for n, s in stages.items()]
    totals = [_number(sum(s.get(f, 0) for s in stages.values())) for f in fields]
    rows.append(['<b>all</b>', *(f'<b>{total}</b>' for total in totals)])
    return _table(['stage', 'seconds', 'tokens sampled', 'tokens trained'], rows, '')


# Episodes


def choose_episodes(episodes: Iterable[records.Episode], count: int) -> list[records.Episode]:
    """`count` episodes by turns from each transition, and within one from each level."""
    queues = {change: collections.defaultdict(list) for change in ('i2c', 'c2c', 'i2i', 'c2i')}
    for episode in episodes:
        queue = queues[_transition(episode)][episode.level]
        if len(queue) < count:
            queue.append(episode)
    orders = []
    for shift, levels in enumerate(queues.values()):
        names = sorted(levels)
        turned = names[shift % len(names) :] + names[: shift % len(names)] if names else []
        orders.append(_by_turns(levels[name] for name in turned))
    return list(itertools.islice(_by_turns(orders), count))


def _transition(episode: records.Episode) -> str:
    before = bool(episode.outcome.get('correct'))
    after = bool(episode.outcome.get('refined_correct', before))
    return 'ic'[before] + '2' + 'ic'[after]


def _by_turns(groups: Iterable[Iterable]) -> Iterable:
    absent = object()
    rounds = itertools.zip_longest(*groups, fillvalue=absent)
    return (item for row in rounds for item in row if item is not absent)


def _episode(episode: records.Episode, decode: Callable) -> str:
    facts = {'attempt': 'correct', 'refinement': 'refined_correct'}
    known = {role: episode.outcome.get(name) for role, name in facts.items()}
    marks = ''.join(_mark(role, right) for role, right in known.items() if right is not None)
    head = f'<summary>level {episode.level} · {_text(episode.problem_id)}{marks}</summary>'
    body = ''.join(_turn(turn, decode) for turn in episode.turns)
    outcome = ', '.join(f'{name}: {value}' for name, value in episode.outcome.items())
    return f'<details open>{head}{body}<p class="soft">{_text(outcome)}</p></details>'


def _turn(turn: records.Turn, decode: Callable) -> str:
    cuts = [0, *turn.step_ends, len(turn.tokens)]
    texts = [decode(turn.tokens[a:b]).strip() for a, b in itertools.pairwise(cuts)]
    scores = [*turn.step_scores[: len(turn.step_ends)]]
    scores += [None] * (len(texts) - len(scores))
    pairs = zip(texts, scores, strict=True)
    lines = ''.join(_step(text, score) for text, score in pairs if text)
    return f'<h4>{turn.role}</h4><div class="text">{lines}</div>'


def _step(text: str, score: float | None) -> str:
    if score is None:
        return f'<div><span>{_text(text)}</span></div>'
    verdict = 'right' if score >= 0.5 else 'wrong'
    sign = '✓' if score >= 0.5 else '✗'
    label = f'<span>{sign} {verdict} {score:.2f}</span>'
    return f'<div class="{verdict}"><span>{_text(text)}</span>{label}</div>'


def _mark(role: str, right: bool) -> str:
    kind, sign = ('right', '✓') if right else ('wrong', '✗')
    return f'<span class="tag {kind}">{sign} {role} {kind}</span>'


# Plots


def _plot_levels(evaluations: Stages) -> figures.Figure:
    """One panel an evaluation: grouped bars by level, one colour an arm, with intervals."""
    arms = _keys(evaluations, 'accuracy')
    figure, panels = _panels(len(evaluations), columns=2, size=(4.6, 2.9))
    for axes, (name, stage) in zip(panels, evaluations.items(), strict=True):
        levels = _levels(stage['accuracy'])
        width = 0.8 / len(arms)
        for i, arm in enumerate(arms):
            values = [_bounds(stage['accuracy'].get(arm, {}).get(level)) for level in levels]
            middle, low, high = np.array(values, float).T * 100
            at = np.arange(len(levels)) + (i - (len(arms) - 1) / 2) * width
            axes.bar(at, middle, width * 0.92, color=_colour(i), label=arm)
            errors = np.maximum([middle - low, high - middle], 0)
            axes.errorbar(at, middle, errors, fmt='none', ecolor=INK, elinewidth=0.9, capsize=2)
        axes.set_xticks(range(len(levels)), levels)
        axes.set(title=name, xlabel='level', ylabel='right, %', ylim=(0, 100))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=len(arms), frameon=False)
    return figure


def _plot_tokens(evaluations: Stages) -> figures.Figure:
    """One point an arm (colour) and evaluation (marker), with its interval."""
    arms = _keys(evaluations, 'tokens_per_answer')
    figure, (axes,) = _panels(1, columns=1, size=(7.6, 3.4))
    for marker, (name, stage) in zip(itertools.cycle(MARKERS), evaluations.items(), strict=False):
        for i, arm in enumerate(arms):
            tokens = stage['tokens_per_answer'].get(arm)
            point = stage['accuracy'].get(arm, {}).get('all')
            if tokens is None or point is None:
                continue
            middle, low, high = np.array(_bounds(point)) * 100
            errors = [[max(middle - low, 0)], [max(high - middle, 0)]]
            axes.errorbar(
                tokens, middle, errors, color=_colour(i), marker=marker, capsize=2, ls='none'
            )
        axes.plot([], [], color=INK, marker=marker, ls='none', label=name)
    for i, arm in enumerate(arms):
        axes.plot([], [], color=_colour(i), lw=5, label=arm)
    axes.set(xlabel='generated tokens an answer', ylabel='right, %')
    axes.margins(x=0.1)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def _plot_curves(curves: dict[str, np.ndarray]) -> figures.Figure:
    """One panel a metric: every point faintly, and the running mean."""
    figure, panels = _panels(len(curves), columns=3, size=(3.1, 2.1))
    for axes, (name, points) in zip(panels, curves.items(), strict=True):
        steps, values = points[:: max(1, len(points) // MAX_POINTS)].T
        window = max(1, len(values) // 20)
        colour = COLOURS[1] if name.startswith('loss') else COLOURS[2]
        axes.plot(steps, values, color=colour, alpha=0.35 if window > 1 else 1, lw=1)
        if window > 1:
            means = np.convolve(values, np.full(window, 1 / window), mode='valid')
            axes.plot(steps[window // 2 :][: len(means)], means, color=colour, lw=1.6)
        axes.set(title=name, xlabel='step')
    return figure


def _panels(count: int, *, columns: int, size: tuple[float, float]):
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = figures.Figure((size[0] * columns, size[1] * rows + 0.3), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[:count]:
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='y', alpha=0.25, lw=0.6)
        axes.set_axisbelow(True)
    return figure, list(grid[:count])


def _style(ink: str) -> dict[str, Any]:
    names = ('text.color', 'axes.edgecolor', 'axes.labelcolor', 'axes.titlecolor')
    colours = dict.fromkeys((*names, 'xtick.color', 'ytick.color', 'grid.color'), ink)
    sizes = {'font.size': 9, 'axes.titlesize': 10, 'font.family': 'sans-serif'}
    return colours | sizes | {'svg.fonttype': 'none', 'svg.hashsalt': 'elenchus'}


def _svg(plot: Callable[[], figures.Figure], caption: str) -> str:
    """The plot as inline SVG that takes the page's text colour, light or dark."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_style(INK)):
        plot().savefig(buffer, format='svg', transparent=True, metadata={'Date': None})
    text = re.sub(r'<metadata>.*?</metadata>', '', buffer.getvalue(), flags=re.DOTALL)
    drawing = text[text.index('<svg') :].replace(INK, 'currentColor')
    return f'<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>'


def _save_png(plot: Callable[[], figures.Figure], path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_style(INK)):
        plot().savefig(buffer, format='png', dpi=150, facecolor='white')
    _replace(path, buffer.getvalue())


# Pieces


def _page(workdir: pathlib.Path, sections: dict[str, str]) -> str:
    ids = {title: title.lower().replace(' ', '-') for title in sections}
    config = workdir / 'config.json'
    known = settings.from_json(config.read_text(encoding='utf-8')) if config.exists() else None
    return string.Template(TEMPLATE.read_text(encoding='utf-8')).substitute(
        title=f'Elenchus: {_text(workdir.resolve().name)}',
        subtitle='config ' + (settings.config_hash(known) if known else 'not stored'),
        links=''.join(f'<a href="#{ids[title]}">{title}</a>' for title in sections),
        sections='\n'.join(
            f'<section id="{ids[title]}"><h2>{title}</h2>{body}</section>'
            for title, body in sections.items()
        ),
    )


def _replace(path: pathlib.Path, content: bytes) -> None:
    beside = path.with_name(f'{path.name}.{os.getpid()}.writing')
    beside.write_bytes(content)
    os.replace(beside, path)


def _load_curves(path: pathlib.Path) -> dict[str, np.ndarray]:
    """[points, 2] of step and value for every metric under loss/ and reward/, sorted by name."""
    curves = collections.defaultdict(list)
    for row in metrics.read_rows(path) if path.exists() else ():
        for name, value in row.items():
            if name.split('/')[0] in ('loss', 'reward'):
                curves[name].append((row['step'], value))
    return {name: np.array(points, float) for name, points in sorted(curves.items())}


def _keys(stages: Stages, field: str) -> list[str]:
    return list(dict.fromkeys(key for stage in stages.values() for key in stage.get(field, {})))


def _levels(accuracy: dict[str, dict]) -> list[str]:
    names = {level for arm in accuracy.values() for level in arm}
    return sorted(names, key=lambda n: (n == 'all', not n.isdigit(), n.zfill(3)))


def _bounds(value: Any) -> Sequence[float]:
    """Mean, low, high; a bare number has no width, a missing one is not drawn."""
    if value is None:
        return (np.nan,) * 3
    return value if isinstance(value, Sequence) else (value,) * 3


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _text(value: object) -> str:
    return html.escape(str(value))


def _contrast(name: str) -> str:
    return name.replace('-', ' − ')


def _interval(value: Any, *, sign: str = '') -> str:
    if value is None:
        return 'not run'
    if not isinstance(value, Sequence):
        return f'{100 * value:{sign}.1f}'
    middle, low, high = (f'{100 * bound:{sign}.1f}' for bound in value)
    return f'{middle} <small>[{low}, {high}]</small>'


def _share(value: Any) -> tuple[str, float] | str:
    return _interval(value) if value is None else (_interval(value), _bounds(value)[0])


def _number(value: float | None) -> str:
    if value is None:
        return 'not run'
    return f'{value:,.0f}' if float(value).is_integer() else f'{value:,.1f}'


def _table(head: Sequence[str], rows: Iterable[Sequence], caption: str) -> str:
    titles = ''.join(f'<th scope="col">{_text(title)}</th>' for title in head)
    body = ''.join(f'<tr>{"".join(_cell(cell) for cell in row)}</tr>' for row in rows)
    note = f'<caption>{_text(caption)}</caption>' if caption else ''
    return f'<div class="scroll"><table>{note}<tr>{titles}</tr>{body}</table></div>'


def _cell(cell: str | tuple[str, float]) -> str:
    if isinstance(cell, tuple):
        return f'<td class="share" style="--x:{cell[1]:.3f}">{cell[0]}</td>'
    return f'<td>{cell}</td>'


if __name__ == '__main__':
    WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of the run.', required=True)
    settings.run_main(lambda _: print(write_report(WORKDIR.value)))
