"""Runs a script many times from one process that has imported everything: a fork for each run.

python -m tests.support.forked_runs MODULE SCRIPT < runs.json > results.json
"""

import importlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from tests.support import multi_process


class Result(NamedTuple):
    """Exit code of a run, and all that it printed on stderr."""

    code: int
    errors: str


def run_all(
    script: str, runs: Sequence[tuple[pathlib.Path, Sequence[str]]], *, preload: str
) -> list[Result]:
    """Runs a script once for each (working directory, arguments), after importing `preload`.

    `script` is a path, relative to the working directory of the run, or the name of a module.
    """
    process = subprocess.run(
        [sys.executable, '-m', 'tests.support.forked_runs', preload, script],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1),
        input=json.dumps([(str(folder), list(arguments)) for folder, arguments in runs]),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return [Result(*result) for result in json.loads(process.stdout.splitlines()[-1])]


def run_child(script: str, arguments: Sequence[str]) -> int:
    """Runs the script in this process; returns the exit code that Python would end with."""
    sys.argv = [script, *arguments]
    sys.modules.pop(script, None)  # runpy warns about modules that are imported already
    run = runpy.run_path if script.endswith('.py') else runpy.run_module
    try:
        run(script, run_name='__main__')
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def run_forked(script: str, folder: str, arguments: Sequence[str]) -> Result:
    """Runs the script in a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.chdir(folder)
        sys.excepthook = end_with_traceback
        os._exit(run_child(script, arguments))
    os.close(writer)
    with open(reader, encoding='utf-8') as pipe:
        errors = pipe.read()
    return Result(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errors)


def end_with_traceback(kind, error, trace) -> None:
    """Prints an error that nobody caught, and ends the fork."""
    traceback.print_exception(kind, error, trace)
    os._exit(1)


if __name__ == '__main__':
    importlib.import_module(sys.argv[1])
    print(json.dumps([run_forked(sys.argv[2], *run) for run in json.load(sys.stdin)]))
