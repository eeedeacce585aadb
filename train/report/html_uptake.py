"""Section of the report about the uptake of critiques: is what they say used?"""

from elenchus.sampling.test_time.uptake import CONDITIONS
from elenchus.train.report import charts, drawing, plots
from elenchus.train.report import html_elements as html
from elenchus.train.report.run_files import Stages

EXPLANATION = (
    'Attempts that the critic does not call correct are refined again with other text in the place '
    'of their critique, and with the same noise. Critiques are read only if the own critique leads '
    "to more right answers than another question's (words), and if a false value in it comes back "
    'in the refinement (uptake).'
)
MEANINGS = {name: condition.meaning for name, condition in CONDITIONS.items()}
CONTRASTS = {
    'words': "own critique − another question's: what the words add",
    'gate': 'own − always: what it adds that right attempts are kept',
    'turn': "another question's − another attempt: what a second turn adds",
    'explanation': 'own − blanked: what the words on the wrong step add',
    'rival': 'own − another attempt: what refining adds over trying again',
    'headroom': 'annotated − own: what a critic that knows the solution would add',
}
"""Key of the summary -> title."""


def uptake_section(evaluations: Stages) -> str:
    """Returns table and bars of the conditions, for every evaluation that has them."""
    sampled = {name: s['uptake'] for name, s in evaluations.items() if s.get('uptake')}
    if not sampled:
        return html.NOT_RUN
    parts = [f'<p>{html.escape(EXPLANATION)}</p>']
    for name, uptake in sampled.items():
        parts.append(f'<h3>{html.escape(name)}</h3>')
        if uptake['warning']:
            parts.append(f'<p><b>Warning: {html.escape(uptake["warning"])}.</b></p>')
        if 'accuracy' in uptake:
            parts.append(_figures(name, uptake))
    return ''.join(parts)


def _figures(name: str, uptake: dict) -> str:
    accuracy = uptake['accuracy']
    levels = plots.levels_of(accuracy)
    chart = charts.uptake(name, uptake)
    contrasts = [
        [html.escape(title)]
        + [html.percent(uptake['difference'][key][n], sign='+') for n in levels]
        for key, title in CONTRASTS.items()
        if key in uptake['difference']
    ]
    contrasts.append(
        [f'uptake of {uptake["counterfactuals"]} false values']
        + [html.percent_or_dash(uptake['uptake'][n]) for n in levels]
    )
    note = 'Differences in points and uptake in per cent, by level, with intervals over questions.'
    return ''.join(
        [
            drawing.inline_svg(chart.draw, chart.caption),
            _conditions(uptake),
            html.table(['effect', *levels], contrasts, note),
        ]
    )


def _conditions(uptake: dict) -> str:
    """Table of the conditions: accuracy, effect on wrong and right attempts, and tokens."""
    accuracy = uptake['accuracy']
    tables = [accuracy, uptake['steps_correct'] or {}]
    rows = [
        [html.escape(name), html.escape(meaning)]
        + [html.percent_or_dash(table.get(name, {}).get('all')) for table in tables]
        + [html.percent_or_dash(uptake['right_after'][name][kind]) for kind in ('wrong', 'right')]
        + [html.number(uptake[f'{kind}_per_answer'][name]) for kind in ('tokens', 'processed')]
        for name, meaning in MEANINGS.items()
        if name in accuracy  # an older summary has fewer conditions
    ]
    head = ['condition', "in the critique's place", 'right, %', 'every step right, %']
    head += ['wrong put right, %', 'right kept, %', 'tokens', 'processed']
    note = (
        'The attempt alone is right in '
        f'{html.percent(uptake["accuracy"]["attempt"]["all"][0])} %. Tokens an answer: generated, '
        'and processed with the prompts; all pay for the critique, whose verdict is the gate. '
        'Put right and kept are of the refined attempts: for `always` these are all.'
    )
    return html.table(head, rows, note)
