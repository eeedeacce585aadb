"""The report's table of preference optimisation: pairs, margins, and how sure the model is."""

from typing import Any

from elenchus.train.report import html_elements as html
from elenchus.train.report.run_files import Stages

COLUMNS = {
    'margin': 'margin',
    'accuracy': 'chosen preferred, %',
    'chosen_logprob': 'log p of chosen',
    'rejected_logprob': 'log p of rejected',
}
"""Key of the summary's figures -> title."""


def pairs_table(stages: Stages) -> str:
    """Returns the table of all rounds of all stages that trained on pairs; '' without one."""
    rounds = [
        (f'{name}, round {number}' if len(summary['rounds']) > 1 else name, figures)
        for name, summary in stages.items()
        for number, figures in enumerate(summary.get('rounds', []), 1)
        if 'preference' in figures
    ]
    if not rounds:
        return ''
    rows = [[html.escape(name), *_row(figures)] for name, figures in rounds]
    note = (
        'Before and after training, means over the pairs. Margin: implicit reward of the chosen '
        'response less that of the rejected one; ties count half.'
    )
    return html.table(['round', 'pairs', *COLUMNS.values()], rows, note)


def _row(figures: dict[str, Any]) -> list[str]:
    before, after = (figures['preference'][when] for when in ('before', 'after'))
    cells = [html.number(figures['pairs'])]
    for key in COLUMNS:
        scale = 100 if key == 'accuracy' else 1
        cells.append(f'{scale * before[key]:.2f} to {scale * after[key]:.2f}')
    return cells
