"""Makes report.html, one self-contained page about a run, and accuracy.png, its main plot.

    python -m scripts.report --workdir runs/lab

Everything comes from the files that the stages left; what is not there is shown as not run.
"""

import collections
import dataclasses
import html
import itertools
import json
import os
import pathlib
import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from elenchus.data import records
from elenchus.data.files import atomic, episode_files
from elenchus.data.text import tokenizer
from elenchus.train.config import build
from elenchus.train.metrics import writers
from elenchus.train.report import plots
from elenchus.train.report.plots import Stages

TEMPLATE = pathlib.Path(__file__).with_name('template.html')
NOT_RUN = '<div class="missing">not run</div>'
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
CORRECTION = ('before', 'after', 'CL', 'CS', 'RSS')


def write_report(workdir: str | os.PathLike) -> epath.Path:
    """Writes `workdir`/report.html and accuracy.png from what is there; returns the page's path."""
    workdir = epath.Path(workdir)
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
        plots.save_png(lambda: plots.levels_bars(evaluations), workdir / 'accuracy.png')
    atomic.write_text(workdir / 'report.html', _page(workdir, sections))
    return workdir / 'report.html'


def load_stages(workdir: epath.Path) -> Stages:
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
    arms, contrasts = plots.keys(evaluations, 'accuracy'), plots.keys(evaluations, 'difference')
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
        levels = plots.levels_of(stage['accuracy'])
        rows = [[_text(n)] + [_interval(v.get(n), sign=s) for _, v, s in columns] for n in levels]
        table = _table(['level', *(title for title, _, _ in columns)], rows, '')
        tables.append(f'<h3>{_text(name)}</h3>{table}')
    caption = 'Share of questions right by level; bars show the intervals.'
    return plots.svg(lambda: plots.levels_bars(evaluations), caption) + ''.join(tables)


def _tokens(evaluations: Stages) -> str:
    costed = {name: s for name, s in evaluations.items() if s.get('tokens_per_answer')}
    if not costed:
        return NOT_RUN
    arms = plots.keys(costed, 'tokens_per_answer')
    rows = [
        [_text(name)] + [_number(s['tokens_per_answer'].get(arm)) for arm in arms]
        for name, s in costed.items()
    ]
    caption = 'Share of questions right against generated tokens an answer.'
    table = _table(['evaluation', *arms], rows, 'Generated tokens an answer.')
    parts = [plots.svg(lambda: plots.tokens_points(costed), caption), table]
    for name, stage in ((n, s) for n, s in costed.items() if s.get('curves')):
        curves = stage['curves']
        caption = f'{name}: each way to answer, at 1, 2, 4, ... attempts (rounds: 1, 2, 3, ...).'
        parts.append(plots.svg(lambda curves=curves: plots.cost_curves(curves), caption))
        parts.append(_equal_tokens(stage['equal_tokens']))
    return ''.join(parts)


def _equal_tokens(compared: dict[str, dict]) -> str:
    rows = [
        [
            _text(arm),
            _text(c['against']),
            *(_number(tokens) for tokens in c['tokens']),
            _number(c['questions']),
            _interval(c['difference']['all'], sign='+'),
        ]
        for arm, c in compared.items()
    ]
    note = 'Against the arm named at the nearest cost; points. Intervals are paired by question.'
    head = ['way to answer', 'against', 'tokens', 'its tokens', 'questions', 'difference']
    return _table(head, rows, note)


def _critic(evaluations: Stages) -> str:
    judged = {name: s for name, s in evaluations.items() if s.get('critic') or s.get('transitions')}
    if not judged:
        return NOT_RUN
    critic = [
        [_text(title)]
        + [
            _known(s['critic'][key]) if key in s.get('critic', {}) else 'not run'
            for s in judged.values()
        ]
        for key, title in CRITIC.items()
    ]
    changes = [
        [_text(title)] + [_share(s.get('transitions', {}).get(key)) for s in judged.values()]
        for key, title in TRANSITIONS.items()
    ]
    return (
        _table(['critic, %', *judged], critic, '')
        + _table(['attempt, then refinement, %', *judged], changes, 'Shares of all attempts.')
        + ''.join(_measures(name, s['measures']) for name, s in judged.items() if 'measures' in s)
    )


def _measures(name: str, measures: dict[str, dict]) -> str:
    """Refinement by level, what the critic misses, and whether its scores can be believed."""
    levels = plots.levels_of(measures)
    corrected, critic = measures['confidence_and_critique'], measures['critic']
    rows = [
        [_text(level)]
        + [_known(corrected[level][key]) for key in CORRECTION]
        + [_known(critic[level].get(key)) for key in ('passed', 'found', 'first_error_f1')]
        for level in levels
    ]
    head = ['level', *CORRECTION, 'passed', 'found', 'first error F1']
    note = (
        'CL: right stays right; CS: wrong becomes right; RSS: 50 is nothing won or lost; '
        'passed and found: right and wrong attempts that the critic calls so. Per cent.'
    )
    parts = [f'<h3>{_text(name)}</h3>', _table(head, rows, note)]
    kinds = measures['detection']['all']
    if kinds:
        rows = [
            [_text(kind), _number(k['attempts']), _known(k['found']), _known(k['located'])]
            for kind, k in kinds.items()
        ]
        parts.append(_table(['mistake', 'attempts', 'found, %', 'located, %'], rows, ''))
    parts.append(_uncertainty(measures['uncertainty']['all']))
    calibration = measures['calibration']['all']
    errors = {key: calibration.get(key, {}).get('ece') for key in ('final', 'steps', 'judged')}
    told = ', '.join(f'{k} {100 * v:.1f} %' for k, v in errors.items() if v is not None)
    caption = (
        f"The critic's scores as probabilities; expected calibration error: {told or 'none'}. "
        'judged: the steps it gave a verdict on; the reward of others is 0.'
    )
    return ''.join(parts) + plots.svg(lambda: plots.reliability(calibration), caption)


def _uncertainty(bins: list[dict[str, Any]]) -> str:
    rows = [
        [f'{b["low"]:.2f} to {b["high"]:.2f}', _number(b['questions'])]
        + [_known(b[key]) for key in ('accuracy', 'discriminability', 'passed', 'found')]
        for b in bins
    ]
    head = ['vote entropy', 'questions', 'actor right', 'verdicts true', 'passed', 'found']
    return _table(head, rows, "The critic's verdicts by the actor's uncertainty, per cent.")


def _known(value: float | None) -> str:
    """A share in per cent; a dash where nothing could have counted."""
    return '–' if value is None else _interval(value)


def _curves(workdir: epath.Path, stages: Stages) -> str:
    parts = []
    for name in stages:
        stage = workdir / 'stages' / name
        found = (stage.glob(depth + writers.METRICS) for depth in ('', '*/', '*/*/'))
        for path in sorted(itertools.chain(*found)):
            curves = _load_curves(path)
            if curves:
                plot = plots.svg(lambda curves=curves: plots.training_curves(curves), 'By step.')
                fitted = path.parent.relative_to(workdir / 'stages')
                parts.append(f'<h3>{_text(fitted)}</h3>{plot}')
    return ''.join(parts) or NOT_RUN


def _episodes(workdir: epath.Path, stages: Stages) -> str:
    folders = [workdir / 'stages' / name / 'episodes' for name in stages if 'evaluate' in name]
    folder = next((f for f in folders if any(f.glob('*.array_record'))), None)
    path = tokenizer.find_tokenizer_file(workdir)
    if folder is None or path is None:
        return NOT_RUN
    decode = tokenizer.load_tokenizer(path).decode
    chosen = choose_episodes(episode_files.read_episodes(folder), NUM_EPISODES)
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
    before, after = (bool(t.facts.correct) for t in (episode.attempt, episode.response))
    return 'ic'[before] + '2' + 'ic'[after]


def _by_turns(groups: Iterable[Iterable]) -> Iterable:
    absent = object()
    rounds = itertools.zip_longest(*groups, fillvalue=absent)
    return (item for row in rounds for item in row if item is not absent)


def _episode(episode: records.Episode, decode: Callable) -> str:
    marks = ''.join(
        _mark(turn.role, turn.facts.correct)
        for turn in episode.turns
        if turn.facts.correct is not None
    )
    head = f'<summary>level {episode.level} · {_text(episode.problem_id)}{marks}</summary>'
    body = ''.join(_turn(turn, decode) for turn in episode.turns)
    return f'<details open>{head}{body}{_facts(episode.facts)}</details>'


def _turn(turn: records.Turn, decode: Callable) -> str:
    cuts = [0, *turn.step_ends, len(turn.tokens)]
    texts = [decode(turn.tokens[a:b]).strip() for a, b in itertools.pairwise(cuts)]
    # The tokens after the last step, if there are any, have no score.
    pairs = zip(texts, [*(step.score for step in turn.steps), None], strict=True)
    lines = ''.join(_step(text, score) for text, score in pairs if text)
    return f'<h4>{turn.role}</h4><div class="text">{lines}</div>{_facts(turn.facts)}'


def _facts(facts: records.TurnFacts | records.EpisodeFacts) -> str:
    """Returns a line with all known facts, '' if there are none."""
    known = [f'{n}: {v}' for n, v in dataclasses.asdict(facts).items() if v is not None]
    return f'<p class="soft">{_text(", ".join(known))}</p>' if known else ''


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


# Pieces


def _page(workdir: epath.Path, sections: dict[str, str]) -> str:
    ids = {title: title.lower().replace(' ', '-') for title in sections}
    config = workdir / 'config.json'
    known = build.from_json(config.read_text(encoding='utf-8')) if config.exists() else None
    return string.Template(TEMPLATE.read_text(encoding='utf-8')).substitute(
        title=f'Elenchus: {_text(workdir.resolve().name)}',
        subtitle='config ' + (build.config_hash(known) if known else 'not stored'),
        links=''.join(f'<a href="#{ids[title]}">{title}</a>' for title in sections),
        sections='\n'.join(
            f'<section id="{ids[title]}"><h2>{title}</h2>{body}</section>'
            for title, body in sections.items()
        ),
    )


def _load_curves(path: pathlib.Path) -> dict[str, np.ndarray]:
    """[points, 2] of step and value for every metric under loss/ and reward/, sorted by name."""
    curves = collections.defaultdict(list)
    for row in writers.read_rows(path):
        for name, value in row.items():
            if name.split('/')[0] in ('loss', 'reward'):
                curves[name].append((row['step'], value))
    return {name: np.array(points, float) for name, points in sorted(curves.items())}


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
    return _interval(value) if value is None else (_interval(value), plots.bounds(value)[0])


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
