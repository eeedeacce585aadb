"""Tables as CSV that a spreadsheet reads as data: no cell of a text is a formula there."""

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable

_FORMULAS = ('=', '+', '-', '@', '\t', '\r')


def write_csv(path: os.PathLike, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table, whole or not at all; None and NaN become empty cells."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator='\n')
    table.writerow([cell(name) for name in columns])
    table.writerows([cell(value) for value in row] for row in rows)
    atomic.write_text(path, stream.getvalue())


def cell(value: Any) -> Any:
    """Returns a value as a cell; a text that could be a formula begins with an apostrophe."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ''
    if isinstance(value, (bool, int, float)):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULAS) else text
