"""Checks responses against reference answers.

Comparisons that need algebra may hang, so they run in worker processes that can be killed.
"""

import collections
import contextlib
import enum
import importlib
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from multiprocessing import connection

from elenchus.data.grading import answers

STARTUP_S = 120.0  # seconds; a worker imports sympy, perhaps on a busy machine
WORKER_BYTES = 4 << 30  # address space of a worker
# Wall-clock seconds per CPU second, so that load on the machine does not fail a check.
PATIENCE = 10


class Outcome(enum.StrEnum):
    """The outcome of one check; only `RIGHT` and `WRONG` judge the answer."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    NO_ANSWER = enum.auto()
    TIMEOUT = enum.auto()
    ERROR = enum.auto()


_READY = 'ready'


class _Worker:
    """A child process that checks one pair at a time; its time limit starts after its imports."""

    def __init__(self, comparator: str, timeout_s: float):
        self._timeout_s = timeout_s
        self.connection, child_end = connection.Pipe()
        call = (
            'from elenchus.data.grading import verify; '
            f'verify.serve({child_end.fileno()}, {comparator!r}, {timeout_s!r})'
        )
        # The child finds packages where this process does, also in an uninstalled clone.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, '-c', call],
            pass_fds=[child_end.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {'PYTHONPATH': paths},
        )
        child_end.close()
        self._ready = False
        self.pair = None
        self.deadline = math.inf

    def send(self, pair: tuple[str, str]) -> None:
        """Starts the check of a pair and sets its deadline."""
        self.pair = pair
        self.deadline = time.monotonic() + (
            PATIENCE * self._timeout_s if self._ready else STARTUP_S
        )
        with contextlib.suppress(BrokenPipeError):  # it died while idle: receive() reports it
            self.connection.send(pair)

    def receive(self) -> Outcome | None:
        """Returns the outcome of the pair; None if the message is only that the worker is ready."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._require_ready('died')
            timed_out = self._process.wait() == -signal.SIGPROF  # the CPU timer of `serve`
            return Outcome.TIMEOUT if timed_out else Outcome.ERROR
        if message == _READY:
            self._ready = True
            self.deadline = time.monotonic() + PATIENCE * self._timeout_s
            return None
        return Outcome.RIGHT if message else Outcome.WRONG

    def expire(self) -> Outcome:
        """Returns TIMEOUT after the deadline. Raises RuntimeError if the worker never started."""
        self._require_ready(f'took more than {STARTUP_S:.0f} s')
        return Outcome.TIMEOUT

    def kill(self) -> None:
        """Ends the process and closes the pipe."""
        self._process.kill()
        self._process.wait()
        self.connection.close()

    def _require_ready(self, failure: str) -> None:
        if not self._ready:
            raise RuntimeError(
                f'a verifier worker {failure} while it started; is math-verify installed?'
            )


def serve(descriptor: int, comparator: str, timeout_s: float) -> None:
    """Runs a worker's loop: reads pairs and sends booleans until the parent closes the pipe.

    A comparator that raises ends the process, which the parent counts as an error. One that uses
    too much CPU time is ended by SIGPROF, which the parent counts as a timeout. The alarm ends a
    worker whose parent has died.
    """
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, name = comparator.split(':')
    compare_pair = getattr(importlib.import_module(module), name)
    if compare_pair is answers.math_equal:
        answers.math_equal('(x+1)^2', 'x^2+2x+1')  # the imports of a first comparison are slow
    pipe = connection.Connection(descriptor)
    pipe.send(_READY)
    while True:
        try:
            pair = pipe.recv()
        except EOFError:
            return
        signal.alarm(math.ceil(PATIENCE * timeout_s) + 5)
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
        pipe.send(bool(compare_pair(*pair)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


class Verifier:
    """Checks responses against reference answers; a context manager that ends its workers.

    Numbers and equal texts are compared in this process. Other pairs go to at most `num_workers`
    child processes, which start on first use. A worker is killed if one pair takes more than
    `timeout_s` seconds of CPU time, or `PATIENCE` times that in wall-clock time. `comparator` names
    the workers' function as 'module:function'. `counts` adds up the outcomes of all checks.
    """

    def __init__(
        self,
        *,
        num_workers: int,
        timeout_s: float,
        comparator: str = 'elenchus.data.grading.answers:math_equal',
    ):
        if num_workers < 1 or not timeout_s > 0:
            raise ValueError(f'num_workers={num_workers}, timeout_s={timeout_s}; both must be > 0')
        self._num_workers, self._timeout_s, self._comparator = num_workers, timeout_s, comparator
        self._idle, self._running = [], []
        self.counts = collections.Counter()

    def __enter__(self) -> 'Verifier':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers; a later check starts new ones."""
        for worker in self._idle + self._running:
            worker.kill()
        self._idle, self._running = [], []

    def check(self, pairs: Iterable[tuple[str, str]]) -> list[Outcome]:
        """Returns the outcome of every (response, reference answer), in order.

        Raises RuntimeError if workers cannot start.
        """
        cases = [(answers.extract_answer(response), reference) for response, reference in pairs]
        results = {case: _compare_quickly(*case) for case in cases}  # equal cases are checked once
        hard = [case for case, outcome in results.items() if outcome is None]
        try:
            results |= self._run_workers(hard)
        finally:
            while self._running:  # only after an error
                self._running.pop().kill()
        outcomes = [results[case] for case in cases]
        self.counts.update(outcomes)
        return outcomes

    def _run_workers(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Outcome]:
        waiting, outcomes = collections.deque(pairs), {}
        while waiting or self._running:
            while waiting and len(self._running) < self._num_workers:
                worker = (
                    self._idle.pop() if self._idle else _Worker(self._comparator, self._timeout_s)
                )
                self._running.append(worker)
                worker.send(waiting.popleft())
            for worker, outcome in self._wait():
                outcomes[worker.pair] = outcome
                self._running.remove(worker)
                if outcome in (Outcome.RIGHT, Outcome.WRONG):
                    self._idle.append(worker)
                else:  # its process is dead or hangs
                    worker.kill()
        return outcomes

    def _wait(self) -> list[tuple[_Worker, Outcome]]:
        """Waits for a message or a deadline; returns the workers that finished, with outcomes."""
        timeout = min(worker.deadline for worker in self._running) - time.monotonic()
        readable = connection.wait([worker.connection for worker in self._running], max(0, timeout))
        done = []
        for worker in self._running:
            if worker.connection in readable:
                outcome = worker.receive()
            elif time.monotonic() >= worker.deadline:
                outcome = worker.expire()
            else:
                continue
            if outcome is not None:
                done.append((worker, outcome))
        return done


def _compare_quickly(answer: str | None, reference: str) -> Outcome | None:
    """Returns the outcome if no worker is needed, else None."""
    if answer is None:
        return Outcome.NO_ANSWER
    same = answers.compare(answer, reference)
    return None if same is None else Outcome.RIGHT if same else Outcome.WRONG
