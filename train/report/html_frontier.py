"""Section of the report about compute-optimal test time: figure and tables of each evaluation."""

from typing import Any

from elenchus.train.report import charts, drawing
from elenchus.train.report import html_elements as html
from elenchus.train.report.run_files import Stages


def frontier_section(evaluations: Stages) -> str:
    """Returns the figure, the table by budget and the choice for `evaluate.budget`."""
    parts = []
    for name, stage in evaluations.items():
        if stage.get('frontier'):
            parts.append(f'<h3>{html.escape(name)}</h3>' + _frontier(name, stage))
        if stage.get('budget'):
            parts.append(_budget_table(stage['budget']))
    return ''.join(parts) or html.NOT_RUN


def _frontier(name: str, stage: dict[str, Any]) -> str:
    frontier, chart = stage['frontier'], charts.frontier(name, stage)
    levels = list(frontier['rows'][-1]['levels'])
    rows = []
    for row in frontier['rows']:
        one, by_level = row['all'], row['by_level']
        cells = [html.number(round(row['budget'])), _choice(one), _figure(one, 'accuracy')]
        if levels:
            cells += [_figure(by_level, 'accuracy'), _figure(by_level, 'difference', sign='+')]
        rows.append(cells + [_choice(row['levels'][level]) for level in levels])
    head = ['budget', 'best choice', 'right, %']
    if levels:
        head += ['by level, right, %', 'difference', *(f'level {level}' for level in levels)]
    note = (
        'Budget: processed tokens a question, prompts included. By level: a choice for each level '
        'within the same mean cost. Level columns: the best whose cost at that level fits; the '
        f'level must be known. {frontier["candidates"]} candidates, '
        f'{frontier["questions"]} questions.'
    )
    figure = drawing.inline_svg(chart.draw, chart.caption)
    return figure + html.table(head, rows, note)


def _budget_table(budget: dict[str, Any]) -> str:
    by_level = budget['by_level']
    fits = {'all': budget['all'], 'a choice for each level': by_level} | {
        f'level {level}': fit for level, fit in budget['levels'].items()
    }
    rows = []
    for title, fit in fits.items():
        if fit is None and title == 'a choice for each level':
            continue
        majority = (fit or {}).get('majority')
        rows.append(
            [
                title,
                _choice(fit),
                '–' if fit is None else html.number(fit['processed']),
                _figure(fit, 'accuracy'),
                f'majority@{majority["size"]}' if majority else '–',
                '–' if not majority else html.number(majority['processed']),
                _figure(majority, 'accuracy'),
                _figure(majority, 'difference', sign='+'),
            ]
        )
    head = ['questions', 'choice', 'its tokens', 'right, %', 'against', 'its tokens']
    head += ['right, %', 'difference']
    note = f'At {budget["budget"]:,} processed tokens a question (evaluate.budget).'
    return html.table(head, rows, note)


def _choice(fit: dict[str, Any] | None) -> str:
    """Name of a choice; the levels of each, if it is made by level."""
    if fit is None:
        return '–'
    choice = fit['choice']
    if isinstance(choice, str):
        return choice
    levels = {name: [n for n in choice if choice[n] == name] for name in choice.values()}
    return '; '.join(f'{", ".join(n)}: {name}' for name, n in levels.items())


def _figure(values: dict[str, Any] | None, key: str, *, sign: str = '') -> str:
    return '–' if not values else html.percent(values[key], sign=sign)
