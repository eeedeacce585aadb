"""Responses checked against references; what may hang runs in processes that can be killed."""

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

STARTUP_S = 120.0  # a worker imports sympy, on a busy machine
WORKER_BYTES = 4 << 30  # address space of a worker
PATIENCE = 10  # seconds by the clock for each of processor time: what else runs decides nothing


class Outcome(enum.StrEnum):
    """What became of one check; only `RIGHT` and `WRONG` are judgements of the answer."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    NO_ANSWER = enum.auto()
    TIMEOUT = enum.auto()
    ERROR = enum.auto()


_READY = 'ready'


class _Worker:
    """A child process with one pair in flight; its time starts once it has imported."""

    def __init__(self, comparator: str, timeout_s: float):
        self._timeout_s = timeout_s
        self.connection, theirs = connection.Pipe()
        call = (
            'from elenchus.data.grading import verify; '
            f'verify.serve({theirs.fileno()}, {comparator!r}, {timeout_s!r})'
        )
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, '-c', call],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {'PYTHONPATH': paths},
        )
        theirs.close()
        self._ready = False
        self.pair = None
        self.deadline = math.inf

    def send(self, pair: tuple[str, str]) -> None:
        self.pair = pair
        self.deadline = time.monotonic() + (
            PATIENCE * self._timeout_s if self._ready else STARTUP_S
        )
        with contextlib.suppress(BrokenPipeError):  # it died idle: receive() finds the pipe ended
            self.connection.send(pair)

    def receive(self) -> Outcome | None:
        """The outcome of the pair in flight; None where the worker only said it is ready."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._require_ready('died')
            out_of_time = self._process.wait() == -signal.SIGPROF
            return Outcome.TIMEOUT if out_of_time else Outcome.ERROR
        if message == _READY:
            self._ready = True
            self.deadline = time.monotonic() + PATIENCE * self._timeout_s
            return None
        return Outcome.RIGHT if message else Outcome.WRONG

    def expire(self) -> Outcome:
        self._require_ready(f'took more than {STARTUP_S:.0f} s')
        return Outcome.TIMEOUT

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()

    def _require_ready(self, what: str) -> None:
        if not self._ready:
            raise RuntimeError(
                f'a verifier worker {what} while it started; is math-verify installed?'
            )


def serve(descriptor: int, comparator: str, timeout_s: float) -> None:
    """A worker's loop: pairs in, booleans out, until the parent closes the pipe.

    A comparator that raises ends the process, which the parent counts as an error. So does one that
    takes too much processor time, whose signal the parent knows. The alarm ends a worker whose
    parent is gone.
    """
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, name = comparator.split(':')
    compare_pair = getattr(importlib.import_module(module), name)
    if compare_pair is answers.math_equal:
        answers.math_equal('(x+1)^2', 'x^2+2x+1')  # imports what later pairs need
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
    """Checks responses against reference answers; a context manager that owns its workers.

    Numbers and equal texts are settled here. All else goes to at most `num_workers` child
    processes, started when first needed, each killed when one pair takes more than `timeout_s`
    of processor time, or `PATIENCE` times that by the clock.
    `comparator` names their function as 'module:function'. `counts` adds up outcomes.
    """

    def __init__(
        self,
        *,
        num_workers: int,
        timeout_s: float,
        comparator: str = 'elenchus.data.grading.answers:math_equal',
    ):
        if num_workers < 1 or not timeout_s > 0:
            raise ValueError(f'num_workers={num_workers}, timeout_s={timeout_s}: both must be > 0')
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
        """The outcome of every (response, reference answer), in order.

        Raises RuntimeError where workers cannot start at all.
        """
        cases = [(answers.extract_answer(response), reference) for response, reference in pairs]
        settled = {case: _settle(*case) for case in cases}
        hard = [case for case, outcome in settled.items() if outcome is None]
        try:
            settled |= self._work(hard)
        finally:
            while self._running:  # only after an error
                self._running.pop().kill()
        outcomes = [settled[case] for case in cases]
        self.counts.update(outcomes)
        return outcomes

    def _work(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Outcome]:
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
                else:
                    worker.kill()
        return outcomes

    def _wait(self) -> list[tuple[_Worker, Outcome]]:
        """Waits for the next news; returns the workers that are done with their pair."""
        patience = min(worker.deadline for worker in self._running) - time.monotonic()
        news = connection.wait([worker.connection for worker in self._running], max(0, patience))
        done = []
        for worker in self._running:
            if worker.connection in news:
                outcome = worker.receive()
            elif time.monotonic() >= worker.deadline:
                outcome = worker.expire()
            else:
                continue
            if outcome is not None:
                done.append((worker, outcome))
        return done


def _settle(answer: str | None, reference: str) -> Outcome | None:
    """The outcome where no worker is needed."""
    if answer is None:
        return Outcome.NO_ANSWER
    same = answers.compare(answer, reference)
    return None if same is None else Outcome.RIGHT if same else Outcome.WRONG
