"""Says in words what a run wrote into status.json and timing.jsonl (docs/faults.md).

It needs nothing installed: launchers use it on machines without an environment.
"""

from __future__ import annotations

import json
import typing

from elenchus.data.text.run_times import check_row, describe_times, read_rows

DEAD_S = 90.0
"""Seconds without a sign of life after which a run that calls itself running is probably dead."""
GOES_ON = ('running', 'stopping')
"""States of a run that has not ended."""


def describe(status: str, timing: str, *, now: float) -> list[str]:
    """Returns lines for the reader; nothing if status.json is missing or cut short.

    Args:
        status: Text of status.json.
        timing: Text of timing.jsonl.
        now: Seconds since 1970.
    """
    try:
        seen = json.loads(status)
        rows = read_rows(timing)
        if not seen.get('kept'):
            rows.append(check_row(seen))
        lines = [_describe_run(seen, now), *describe_hosts(seen)]
        return [*lines, f'time: {describe_times(rows)}'] if rows else lines
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _describe_run(seen: dict, now: float) -> str:
    age, goes_on = max(now - seen['heartbeat'], 0.0), seen['state'] in GOES_ON
    texts = [f'run {seen["state"]}: {seen.get("stage") or "opening"}']
    if goes_on and 'step' in seen:
        total = f' of {seen["steps"]}' if seen.get('steps') else ''
        texts.append(f'{seen["description"]} {seen["step"]}{total} {seen["unit"]}')
        texts.append(f'{seen["rate"]:g}/s')
        if seen.get('eta_s') is not None:
            texts.append(f'{seen["eta_s"]:.0f} s to go')
    if goes_on:
        texts.append(f'last progress {seen["idle_s"] + age:.0f} s ago')
    texts.append(f'last sign of life {age:.0f} s ago')
    if goes_on and age > DEAD_S:
        texts.append('it was probably killed')
    elif goes_on and seen.get('where'):
        texts.append(f'at {seen["where"]}')
    return ', '.join(texts)


def describe_hosts(seen: dict) -> typing.Iterator[str]:
    """Yields a line for each process that is silent or behind the others."""
    most = max((row.get('calls', 0) for row in seen['hosts']), default=0)
    for row in seen['hosts']:
        notes = []
        if row.get('silent', 0) > 30:
            notes.append(f'silent for {row["silent"]:.0f} s')
        if row.get('calls', most) < most:
            notes.append(f'{most - row["calls"]} calls behind')
        if notes:
            where = f', last at {row["where"]}' if row.get('where') else ''
            host = row.get('host', 'a host that is not known')
            yield f'process {row.get("process")} on {host}: {", ".join(notes)}{where}'
