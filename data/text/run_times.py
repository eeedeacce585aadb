"""Shares of a run's wall time, from the rows of WORKDIR/timing.jsonl; needs nothing installed.

Runs print them at their end, and launchers in `status`, on machines without an environment.
"""

from __future__ import annotations

import collections
import contextlib
import json
import typing

PRODUCTIVE = ('steps', 'sampling', 'judging')
"""Kinds of time that bring a run on; the others are saving, compiling, waiting and so on."""

Row = typing.Dict[str, typing.Any]  # noqa: UP006 - Python 3.9 runs this file


def read_rows(text: str) -> list[Row]:
    """Returns the whole rows of a timing.jsonl; damaged ones are left out, and count as idle."""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
            rows.append(check_row(json.loads(line)))
    return rows


def check_row(fields: Row) -> Row:
    """Returns the times of a start among the fields of a file.

    Raises:
        LookupError, TypeError, AttributeError: They are not there, or are no numbers.
    """
    seconds = {name: value + 0.0 for name, value in fields['seconds'].items()}
    times = {name: fields[name] + 0.0 for name in ('started', 'heartbeat')}
    return {**fields, **times, 'seconds': seconds}


def time_shares(rows: typing.Sequence[Row]) -> dict[str, float]:
    """Returns the share of each kind, largest first; `idle` is the time between starts."""
    seconds: collections.Counter = collections.Counter()
    for row in rows:
        seconds.update(row['seconds'])
    later = range(1, len(rows))
    seconds['idle'] = sum(rows[i]['started'] - rows[i - 1]['heartbeat'] for i in later)
    total = total_seconds(rows)
    return {name: value / max(total, 1e-9) for name, value in seconds.most_common() if value > 0}


def total_seconds(rows: typing.Sequence[Row]) -> float:
    """Returns the seconds from the first start to the last sign of life."""
    return rows[-1]['heartbeat'] - rows[0]['started']


def describe_times(rows: typing.Sequence[Row]) -> str:
    """Returns one line: seconds, starts, goodput (the share of productive time), and all shares."""
    shares = time_shares(rows)
    goodput = sum(shares.get(kind, 0.0) for kind in PRODUCTIVE)
    parts = ', '.join(f'{name} {share:.1%}' for name, share in shares.items())
    starts = f'{len(rows)} start{"s" * (len(rows) != 1)}'
    return f'{total_seconds(rows):.0f} s over {starts}, goodput {goodput:.1%}: {parts}'
