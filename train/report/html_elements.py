"""HTML elements of the report: tables and formatted numbers."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from elenchus.data.text.printable import printable
from elenchus.train.report import plots

NOT_RUN = '<div class="missing">not run</div>'


class Markup(str):
    """HTML of our own; any other text is escaped where it becomes part of a table."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Returns the value as HTML that shows its text; what is HTML already stays."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(value)))


def contrast_title(name: str) -> str:
    """Title of a difference between two arms: `a-b` as `a − b`."""
    return name.replace('-', ' − ')


def percent(value: Any, *, sign: str = '') -> Markup:
    """Share in per cent; of (mean, low, high) the mean, and its interval if it is known."""
    if value is None:
        return Markup('not run')
    if not isinstance(value, Sequence):
        return Markup(f'{100 * value:{sign}.1f}')
    middle, *ends = (f'{100 * bound:{sign}.1f}' for bound in value if bound is not None)
    return Markup(f'{middle} <small>[{", ".join(ends)}]</small>' if ends else middle)


def percent_or_dash(value: float | None) -> str:
    """Share in per cent; a dash if there was nothing to count."""
    return '–' if value is None else percent(value)


def share_bar(value: Any) -> tuple[Markup, float] | Markup:
    """Cell that draws the share as a bar behind its number."""
    return percent(value) if value is None else (percent(value), plots.bounds(value)[0])


def number(value: float | None) -> str:
    """Number with thousands separators, and one decimal if it is not whole."""
    if value is None:
        return 'not run'
    return f'{value:,.0f}' if float(value).is_integer() else f'{value:,.1f}'


def table(head: Sequence[str], rows: Iterable[Sequence], caption: str) -> Markup:
    """Table with a heading row; cells are text, `Markup`, or the pairs of `share_bar`."""
    titles = ''.join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = ''.join(f'<tr>{"".join(_cell(cell) for cell in row)}</tr>' for row in rows)
    note = f'<caption>{escape(caption)}</caption>' if caption else ''
    return Markup(f'<div class="scroll"><table>{note}<tr>{titles}</tr>{body}</table></div>')


def _cell(cell: str | tuple[Markup, float]) -> str:
    if isinstance(cell, tuple):
        return f'<td class="share" style="--x:{cell[1]:.3f}">{escape(cell[0])}</td>'
    return f'<td>{escape(cell)}</td>'
