"""Runs scripts many times from one process that has imported everything: a fork for each run.

python -m tests.support.forked_runs MODULE < runs.jsonl > results.jsonl
"""

import contextlib
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
TIME_LIMIT_S = 900


class Result(NamedTuple):
    """Exit code of a run, negative for a signal, and all that it printed on stderr and stdout."""

    code: int
    errors: str
    output: str


def environment(devices: int) -> dict[str, str]:
    """Environment variables of a process with that many CPU devices."""
    paths = (str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')]))
    return os.environ | {
        'PYTHONPATH': os.pathsep.join(paths),
        'TF_CPP_MIN_LOG_LEVEL': '3',
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
    }


@contextlib.contextmanager
def forking(preload: str) -> Iterator[Callable[..., Result]]:
    """Yields a function that runs a script in a fork of a process that has imported `preload`.

    It takes the script, as a path relative to the working directory of the run or as the name of a
    module, the working directory, the arguments, and a path: the run is killed by SIGKILL as soon
    as it exists. The fixture `fork` of all tests is this function: one import in each worker.
    """
    process = subprocess.Popen(
        [sys.executable, '-m', 'tests.support.forked_runs', preload],
        cwd=ROOT,
        env=environment(1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(script: str, folder: pathlib.Path, arguments: Sequence[str], *, kill_at='') -> Result:
        wanted = [script, str(folder), list(arguments), str(kill_at)]
        print(json.dumps(wanted), file=process.stdin, flush=True)
        return Result(*json.loads(process.stdout.readline()))

    with process:
        yield run


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


def run_forked(script: str, folder: str, arguments: Sequence[str], kill_at: str) -> Result:
    """Runs the script in a fork of this process; kills it when the path `kill_at` exists."""
    with (
        tempfile.TemporaryFile('w+', encoding='utf-8') as output,
        tempfile.TemporaryFile('w+', encoding='utf-8') as errors,
    ):
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            os.chdir(folder)
            sys.excepthook = end_with_traceback
            code = run_child(script, arguments)
            sys.stdout.flush()
            os._exit(code)
        code = wait(child, kill_at)
        return Result(
            code, *(os.pread(file.fileno(), 1 << 20, 0).decode() for file in (errors, output))
        )


def wait(child: int, kill_at: str) -> int:
    """Waits for a process, and kills it at a path or after the time limit; returns its code."""
    stop_at = time.monotonic() + TIME_LIMIT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > stop_at or (kill_at and os.path.exists(kill_at)):
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def end_with_traceback(kind, error, trace) -> None:
    """Prints an error that nobody caught, and ends the fork."""
    traceback.print_exception(kind, error, trace)
    os._exit(1)


if __name__ == '__main__':
    importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(run_forked(*json.loads(line))), flush=True)
