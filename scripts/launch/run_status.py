"""Reads status.json and timing.jsonl of a run where it is, and prints them in words."""

from __future__ import annotations

import shlex
import subprocess
import time
import typing

from elenchus.data.text.printable import printable
from elenchus.data.text.run_status import describe
from elenchus.scripts.launch import exit_codes
from elenchus.scripts.launch.commands import Commands, complain, show

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
        words = ['bash', '-c', command]
        return subprocess.run(words, capture_output=True, text=True, errors='replace').stdout

    texts = read(workdir.rstrip('/'), commands=Commands(), on_host=run_here)
    lines = describe(*texts, now=time.time())
    if not lines:
        complain(f'{workdir} has no status.json of a run')
        return exit_codes.REFUSAL
    show(printable('\n'.join(lines)))
    return 0
