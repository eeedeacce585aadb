"""Writes report.html, a self-contained page about a run, and accuracy.png, its main plot.

    python -m scripts.report --workdir runs/lab

It reads only the files of the run; a section whose stages have not run says `not run`.
"""

import os
import pathlib
import string
from typing import Any

from etils import epath

from elenchus.data.files import atomic, episode_files
from elenchus.data.text import tokenizer
from elenchus.train.config import build
from elenchus.train.report import (
    charts,
    drawing,
    html_episodes,
    html_frontier,
    html_pairs,
    html_uptake,
    plots,
)
from elenchus.train.report import html_elements as html
from elenchus.train.report.run_files import Stages, check_workdir, load_stages

TEMPLATE = pathlib.Path(__file__).with_name('template.html')
PAGE = 'report.html'
NUM_EPISODES = 10  # shown in the report
TRANSITIONS = {
    'c2c': 'right, stays right',
    'c2i': 'right, made wrong',
    'i2c': 'wrong, put right',
    'i2i': 'wrong, stays wrong',
}
"""Key of the summary -> title; `c2i`: a correct attempt with an incorrect refinement."""
CRITIC_MEASURES = {
    'discriminability': 'final verdict matches the truth',
    'found': 'wrong attempts called wrong',
    'passed': 'right attempts called right',
    'processbench_f1': "first error located, right ones passed (ProcessBench's F1)",
    'first_error_micro_f1': 'first error located (micro F1)',
    'parse_rate': 'critiques that parse',
}
"""Key of the summary -> title."""
CORRECTION_MEASURES = ('before', 'after', 'CL', 'CS', 'RSS')
"""Accuracy before and after refinement, and the measures explained in the table's caption."""


def write_report(workdir: str | os.PathLike) -> epath.Path:
    """Writes report.html and accuracy.png into the folder of a run; returns the page's path.

    Raises ValueError if the folder does not exist.
    """
    workdir = epath.Path(workdir)
    page, evaluations = make_page(workdir)
    if evaluations:
        drawing.save_png(lambda: plots.levels_bars(evaluations), workdir / 'accuracy.png')
    atomic.write_text(workdir / PAGE, page)
    return workdir / PAGE


def make_page(workdir: epath.Path) -> tuple[str, Stages]:
    """Returns the page of a run and the summaries of its evaluations.

    Raises ValueError if the folder does not exist.
    """
    check_workdir(workdir)
    stages = load_stages(workdir)
    evaluations = {name: s for name, s in stages.items() if s.get('accuracy')}
    sections = {
        'Result': _headline(evaluations),
        'Accuracy by level': _accuracy_by_level(evaluations),
        'Accuracy against tokens': _accuracy_by_tokens(evaluations),
        'Compute-optimal test time': html_frontier.frontier_section(evaluations),
        'The critic': _critic_section(evaluations),
        'Is the critique read?': html_uptake.uptake_section(evaluations),
        'Loss and reward': html_pairs.pairs_table(stages) + _training_curves(workdir, stages),
        'Episodes to read': _chosen_episodes(workdir, stages),
        'Cost': _cost_by_stage(stages),
    }
    return _page(workdir, sections), evaluations


# Sections


def _headline(evaluations: Stages) -> str:
    if not evaluations:
        return html.NOT_RUN
    arms, contrasts = (
        plots.keys_of(evaluations, 'accuracy'),
        plots.keys_of(evaluations, 'difference'),
    )
    rows = [
        [html.escape(name)]
        + [html.percent(s['accuracy'].get(arm, {}).get('all')) for arm in arms]
        + [html.percent(s.get('difference', {}).get(c, {}).get('all'), sign='+') for c in contrasts]
        for name, s in evaluations.items()
    ]
    note = 'Per cent of questions right, all levels, with intervals; differences in points.'
    return html.table(['evaluation', *arms, *map(html.contrast_title, contrasts)], rows, note)


def _accuracy_by_level(evaluations: Stages) -> str:
    if not evaluations:
        return html.NOT_RUN
    tables = []
    for name, stage in evaluations.items():
        columns = [(arm, stage['accuracy'][arm], '') for arm in stage['accuracy']]
        columns += [
            (html.contrast_title(c), v, '+') for c, v in stage.get('difference', {}).items()
        ]
        levels = plots.levels_of(stage['accuracy'])
        rows = [
            [html.escape(n)] + [html.percent(v.get(n), sign=s) for _, v, s in columns]
            for n in levels
        ]
        level_table = html.table(['level', *(title for title, _, _ in columns)], rows, '')
        tables.append(f'<h3>{html.escape(name)}</h3>{level_table}')
        if steps := stage.get('steps_correct'):
            tables.append(_steps_table(steps))
    return _drawn(charts.accuracy_by_level(evaluations)) + ''.join(tables)


def _steps_table(steps: dict[str, dict]) -> str:
    rows = [
        [html.escape(level)] + [html.percent(table.get(level)) for table in steps.values()]
        for level in plots.levels_of(steps)
    ]
    note = 'Share of answers of which every step is right, too.'
    return html.table(['level', *steps], rows, note)


def _accuracy_by_tokens(evaluations: Stages) -> str:
    costed = charts.costed_of(evaluations)
    if not costed:
        return html.NOT_RUN
    arms = plots.keys_of(costed, 'tokens_per_answer')
    rows = [
        [html.escape(name), kind]
        + [html.number(s.get(f'{key}_per_answer', {}).get(arm)) for arm in arms]
        for name, s in costed.items()
        for key, kind in (('tokens', 'generated'), ('processed', 'processed'))
    ]
    note = (
        'Tokens an answer; the processed ones are the generated ones and the prompts of all calls.'
    )
    token_table = html.table(['evaluation', 'tokens', *arms], rows, note)
    parts = [_drawn(charts.accuracy_by_tokens(costed)), token_table]
    for name, stage in ((n, s) for n, s in costed.items() if s.get('curves')):
        parts.append(_drawn(charts.cost_curves(name, stage['curves'])))
        parts.append(_equal_tokens_table(stage['equal_tokens']))
    return ''.join(parts)


def _equal_tokens_table(compared: dict[str, dict]) -> str:
    rows = [
        [
            html.escape(arm),
            html.escape(c['against']),
            *(html.number(tokens) for tokens in c['tokens']),
            html.number(c['questions']),
            html.percent(c['difference']['all'], sign='+'),
        ]
        for arm, c in compared.items()
    ]
    note = 'Against the arm named at the nearest cost; points. Intervals are paired by question.'
    head = ['way to answer', 'against', 'tokens', 'its tokens', 'questions', 'difference']
    return html.table(head, rows, note)


def _critic_section(evaluations: Stages) -> str:
    judged = {name: s for name, s in evaluations.items() if s.get('critic') or s.get('transitions')}
    if not judged:
        return html.NOT_RUN
    critic = [
        [html.escape(title)]
        + [
            html.percent_or_dash(s['critic'][key]) if key in s.get('critic', {}) else 'not run'
            for s in judged.values()
        ]
        for key, title in CRITIC_MEASURES.items()
    ]
    by_steps = [s.get('critic', {}).get('by_steps') for s in judged.values()]
    critic += [
        [html.escape(f'{CRITIC_MEASURES[key]}, by all steps')]
        + [_share_of_steps(shares, key) for shares in by_steps]
        for key in ('discriminability', 'found', 'passed')
        if any(by_steps)
    ]
    changes = [
        [html.escape(title)]
        + [html.share_bar(s.get('transitions', {}).get(key)) for s in judged.values()]
        for key, title in TRANSITIONS.items()
    ]
    return (
        html.table(['critic, %', *judged], critic, '')
        + html.table(['attempt, then refinement, %', *judged], changes, 'Shares of all attempts.')
        + ''.join(
            _critic_measures(name, s['measures']) for name, s in judged.items() if 'measures' in s
        )
    )


def _share_of_steps(by_steps: dict | None, key: str) -> str:
    return html.percent_or_dash(by_steps[key]) if by_steps else 'not known'


def _critic_measures(name: str, measures: dict[str, dict]) -> str:
    """Returns tables of refinement by level and of found mistakes, and a calibration plot."""
    levels = plots.levels_of(measures)
    corrected, critic = measures['confidence_and_critique'], measures['critic']
    rows = [
        [html.escape(level)]
        + [html.percent_or_dash(corrected[level][key]) for key in CORRECTION_MEASURES]
        + [
            html.percent_or_dash(critic[level].get(key))
            for key in ('passed', 'found', 'processbench_f1', 'first_error_micro_f1')
        ]
        for level in levels
    ]
    head = ['level', *CORRECTION_MEASURES, 'passed', 'found', 'ProcessBench F1', 'micro F1']
    note = (
        'CL: right stays right; CS: wrong becomes right; RSS: 50 means no net change; '
        'passed and found: right and wrong attempts that the critic judges so. Per cent.'
    )
    parts = [f'<h3>{html.escape(name)}</h3>', html.table(head, rows, note)]
    kinds = measures['detection']['all']
    if kinds:
        rows = [
            [
                html.escape(kind),
                html.number(k['attempts']),
                html.percent_or_dash(k['found']),
                html.percent_or_dash(k['located']),
            ]
            for kind, k in kinds.items()
        ]
        parts.append(html.table(['mistake', 'attempts', 'found, %', 'located, %'], rows, ''))
    parts.append(_uncertainty_table(measures['uncertainty']['all']))
    calibration = measures['calibration']['all']
    return ''.join(parts) + _drawn(charts.reliability(name, calibration))


def _uncertainty_table(bins: list[dict[str, Any]]) -> str:
    rows = [
        [f'{b["low"]:.2f} to {b["high"]:.2f}', html.number(b['questions'])]
        + [
            html.percent_or_dash(b[key])
            for key in ('accuracy', 'discriminability', 'passed', 'found')
        ]
        for b in bins
    ]
    head = ['vote entropy', 'questions', 'actor right', 'verdicts true', 'passed', 'found']
    return html.table(head, rows, "The critic's verdicts by the actor's uncertainty, per cent.")


def _training_curves(workdir: epath.Path, stages: Stages) -> str:
    parts = [
        f'<h3>{html.escape(chart.name.removeprefix("training "))}</h3>{_drawn(chart)}'
        for name in stages
        for chart in charts.training(workdir, name)
    ]
    return ''.join(parts) or html.NOT_RUN


def _chosen_episodes(workdir: epath.Path, stages: Stages) -> str:
    # A benchmark's stages have the names of its sets; greedy attempts are a part of each.
    names = [name for name in stages if 'evaluate' in name]
    names += [name for name, summary in stages.items() if summary.get('accuracy')]
    places = [workdir / 'stages' / name / part for name in names for part in ('', 'greedy')]
    folders = [place / 'episodes' for place in places]
    folder = next((f for f in folders if any(f.glob('*.array_record'))), None)
    path = tokenizer.find_tokenizer_file(workdir)
    if folder is None or path is None:
        return html.NOT_RUN
    decode = tokenizer.load_tokenizer(path).decode
    chosen = html_episodes.choose_episodes(episode_files.read_episodes(folder), NUM_EPISODES)
    name = folder.parent.relative_to(workdir / 'stages')
    note = (
        f'{len(chosen)} of the episodes of {html.escape(name)}, of each kind and '
        "level by turns. The number at a step is the critic's probability that it is right."
    )
    return f'<p class="soft">{note}</p>' + ''.join(
        html_episodes.episode_details(e, decode) for e in chosen
    )


def _cost_by_stage(stages: Stages) -> str:
    if not stages:
        return html.NOT_RUN
    fields = ('seconds', 'tokens_sampled', 'tokens_trained')
    rows = [[html.escape(n)] + [html.number(s.get(f)) for f in fields] for n, s in stages.items()]
    totals = [html.number(sum(s.get(f, 0) for s in stages.values())) for f in fields]
    rows.append([html.Markup(f'<b>{cell}</b>') for cell in ('all', *map(html.escape, totals))])
    return html.table(['stage', 'seconds', 'tokens sampled', 'tokens trained'], rows, '')


def _drawn(chart: charts.Chart) -> str:
    return drawing.inline_svg(chart.draw, chart.caption)


def _page(workdir: epath.Path, sections: dict[str, str]) -> str:
    ids = {title: title.lower().rstrip('?').replace(' ', '-') for title in sections}
    path = workdir / 'config.json'
    config = build.from_json(path.read_text(encoding='utf-8')) if path.exists() else None
    return string.Template(TEMPLATE.read_text(encoding='utf-8')).substitute(
        title=f'Elenchus: {html.escape(workdir.resolve().name)}',
        subtitle='config ' + (build.config_hash(config) if config else 'not stored'),
        links=''.join(f'<a href="#{ids[title]}">{title}</a>' for title in sections),
        sections='\n'.join(
            f'<section id="{ids[title]}"><h2>{title}</h2>{body}</section>'
            for title, body in sections.items()
        ),
    )
