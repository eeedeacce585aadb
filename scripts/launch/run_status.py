"""Says in words what a run wrote into status.json and timing.jsonl (docs/faults.md)."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
import typing

from elenchus.data.text.printable import printable
from elenchus.data.text.run_times import describe_times
from elenchus.scripts.launch import exit_codes
from elenchus.scripts.launch.commands import Commands, complain, show

DEAD_S = 90.0
"""Seconds without a sign of life after which a run that calls itself running is probably dead."""
FILES = ('status.json', 'timing.jsonl')
MARK = 'elenchus-file'


def cat_command(workdir: str) -> str:
    """Returns the shell command that prints both files of a work directory, each after a mark."""
    parts = [
        f'echo; echo {MARK} {name}; cat {shlex.quote(f"{workdir}/{name}")} 2>/dev/null'
        for name in FILES
    ]
    return '; '.join(parts) + '; true'


def gcloud_commands(workdir: str) -> list[list[str]]:
    """Returns gcloud's commands that print the files, of a work directory in a bucket."""
    return [['gcloud', 'storage', 'cat', f'{workdir}/{name}'] for name in FILES]


def split(output: str) -> list[str]:
    """Returns the texts of the files that `cat_command` printed, '' for one that is missing."""
    texts = dict.fromkeys(FILES, '')
    for part in output.split(f'{MARK} ')[1:]:
        name, _, text = part.partition('\n')
        texts[name.strip()] = text.strip()
    return [texts[name] for name in FILES]


def describe(status: str, timing: str, *, now: float) -> list[str]:
    """Returns lines for the reader; of files that are missing or cut short nothing.

    Args:
        status: Text of status.json.
        timing: Text of timing.jsonl.
        now: Seconds since 1970.
    """
    try:
        seen = json.loads(status)
        rows = [json.loads(line) for line in timing.splitlines() if line.strip()]
        if not seen.get('kept'):
            rows.append({name: seen[name] for name in ('started', 'heartbeat', 'seconds')})
        lines = [_describe_run(seen, now), *_describe_hosts(seen)]
        return [*lines, f'time: {describe_times(rows)}'] if rows else lines
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _describe_run(seen: dict, now: float) -> str:
    age, goes_on = max(now - seen['heartbeat'], 0.0), seen['state'] in ('running', 'stopping')
    texts = [f'run {seen["state"]}: {seen.get("stage") or "opening"}']
    if goes_on and 'step' in seen:
        total = f' of {seen["steps"]}' if seen.get('steps') else ''
        texts.append(f'{seen["description"]} {seen["step"]}{total} {seen["unit"]}')
        texts.append(f'{seen["rate"]:g}/s')
    if goes_on:
        texts.append(f'last progress {seen["idle_s"] + age:.0f} s ago')
    texts.append(f'last sign of life {age:.0f} s ago')
    if goes_on and age > DEAD_S:
        texts.append('it was probably killed')
    elif goes_on and seen.get('where'):
        texts.append(f'at {seen["where"]}')
    return ', '.join(texts)


def _describe_hosts(seen: dict) -> typing.Iterator[str]:
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


def read(workdir: str, *, commands: typing.Any, on_host: typing.Callable[[str], str]) -> list[str]:
    """Returns the texts of both files.

    Args:
        workdir: In a bucket, or a path of the hosts.
        commands: Runs gcloud, of a bucket.
        on_host: Runs a shell command on a host and returns its output, else.
    """
    if not workdir.startswith('gs://'):
        return split(on_host(cat_command(workdir)))
    results = [commands.run(words, patience=60.0) for words in gcloud_commands(workdir)]
    return ['' if result.code else result.output for result in results]


def main(workdir: str) -> int:
    """Prints what the run in a work directory says of itself; returns the exit code."""

    def run_here(command: str) -> str:
        return subprocess.run(['bash', '-c', command], capture_output=True, text=True).stdout

    texts = read(workdir.rstrip('/'), commands=Commands(), on_host=run_here)
    lines = describe(*texts, now=time.time())
    if not lines:
        complain(f'{workdir} has no status.json of a run')
        return exit_codes.REFUSAL
    show(printable('\n'.join(lines)))
    return 0
