"""Runs commands in parallel, each the run of a work directory; a stopped sweep continues.

Every run is a process in a session of its own. A request to stop is forwarded to all of them: they
save. If this process is killed they go on; started again, it waits for those that still hold the
lock of their work directory, and starts the others.
"""

import collections
import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from etils import epath

from elenchus.data.text.printable import printable
from elenchus.train.early_signals import EXIT_CODE, SIGNALS
from elenchus.train.metrics import progress
from elenchus.train.preemption import Preempted
from elenchus.train.run import lock

POLL_S = 0.2
_IN_USE = 'is in use by'


class Task(NamedTuple):
    """A run of a sweep."""

    name: str
    folder: epath.Path
    command: tuple[str, ...]
    is_complete: Callable[[], bool]
    prepare: Callable[[], None] = lambda: None  # called before it starts
    after: str = ''  # name of the task that must be complete before


class _Process(NamedTuple):
    """A started process; without one, a process of another sweep that holds the work directory."""

    task: Task
    process: subprocess.Popen | None
    log: pathlib.Path | None


def run_all(tasks: Sequence[Task], *, jobs: int, logs: pathlib.Path) -> dict[str, str]:
    """Runs all tasks that are not complete, `jobs` at a time.

    Returns {name: why it failed, in one line}, of those that failed or wait for one that did.
    Raises Preempted, when all have saved, after a request to stop.
    """
    waiting = collections.deque(task for task in tasks if not task.is_complete())
    failures: dict[str, str] = {}
    with (
        progress.progress(len(tasks), unit='runs', description='sweep') as bar,
        _Requests() as requests,
    ):
        bar.skip(len(tasks) - len(waiting))
        running: list[_Process] = []
        while (waiting and not requests.count) or running:
            while not requests.count and len(running) < jobs:
                task = _next(waiting, running, failures)
                if task is None:
                    break
                running.append(_start(task, logs))
            requests.forward([run.process for run in running if run.process])
            for run in [run for run in running if _has_ended(run)]:
                running.remove(run)
                failure = _failure(run)
                if failure is None:  # it has to be started again
                    waiting.append(run.task)
                    continue
                if failure and requests.count:  # it was stopped, not done
                    continue
                if failure:
                    failures[run.task.name] = failure
                bar.advance(1, failed=len(failures))
            time.sleep(POLL_S)
        if requests.count:
            raise Preempted('the runs of the sweep have saved')
    return failures


def _next(
    waiting: collections.deque[Task], running: Sequence[_Process], failures: dict[str, str]
) -> Task | None:
    """Takes the next task whose predecessor is complete; drops those whose predecessor failed."""
    for task in list(waiting):
        if task.after in failures:
            waiting.remove(task)
            failures[task.name] = f'{task.after} failed'
        elif not any(task.after == other.name for other in waiting) and not any(
            task.after == run.task.name for run in running
        ):
            waiting.remove(task)
            return task
    return None


def _start(task: Task, logs: pathlib.Path) -> _Process:
    if lock.is_locked(task.folder):  # of an earlier start, whose sweep was killed
        return _Process(task, None, None)
    task.prepare()
    log = logs / f'{task.name.replace("/", "_")}.txt'
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'wb') as file:
        process = subprocess.Popen(
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the sweep, which hands it on once
        )
    return _Process(task, process, log)


def _has_ended(run: _Process) -> bool:
    if run.process is not None:
        return run.process.poll() is not None
    return not lock.is_locked(run.task.folder)


def _failure(run: _Process) -> str | None:
    """Returns why a run that has ended failed, '' if it is complete, None to start it again."""
    if run.process is None:
        return '' if run.task.is_complete() else None
    code = run.process.returncode
    if not code:
        return '' if run.task.is_complete() else 'it ended without its last stage'
    line = last_line(run.log)
    if _IN_USE in line and run.task.is_complete():  # by the run that has ended meanwhile
        return ''
    if _IN_USE in line and lock.is_locked(run.task.folder):
        return None
    if code == EXIT_CODE:
        return 'it was asked to stop'
    return line or (f'signal {-code}' if code < 0 else f'exit code {code}')


def last_line(log: pathlib.Path) -> str:
    """Returns the last error of a run's output, or its last line, without control characters."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    errors = [line for line in lines if line.startswith('error:')]
    last = next((line for line in reversed(lines) if line), '')
    return printable((errors[-1] if errors else last).removeprefix('error:').strip())[:500]


class _Requests:
    """Counts requests to stop, and hands each of them to all processes once."""

    def __init__(self):
        self.count, self._before = 0, {}
        self._forwarded: collections.Counter = collections.Counter()

    def __enter__(self) -> '_Requests':
        with contextlib.suppress(ValueError):  # not in the main thread
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def forward(self, processes: Sequence[subprocess.Popen]) -> None:
        """Sends SIGTERM to each process, as often as this one was asked to stop."""
        for process in self._behind(processes):
            self._forwarded[process.pid] += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def _behind(self, processes: Sequence[subprocess.Popen]) -> Iterator[subprocess.Popen]:
        for process in processes:
            if process.poll() is None and self._forwarded[process.pid] < self.count:
                yield process

    def _hear(self, number: int, frame) -> None:
        self.count += 1
