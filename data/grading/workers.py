"""Worker processes of the verifier: each compares one pair at a time and can be killed."""

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
from multiprocessing import connection

from elenchus.data.grading import algebra

STARTUP_S = 120.0  # seconds; a worker imports sympy, perhaps on a busy machine
WORKER_BYTES = 4 << 30  # address space of a worker
# Wall-clock seconds per CPU second, so that load on the machine does not fail a check.
PATIENCE = 10
COMPARATOR = 'elenchus.data.grading.algebra:math_equal'


class Outcome(enum.StrEnum):
    """The outcome of one check; all but `RIGHT` are graded as wrong.

    `UNSURE`: the answers may be equal, but their forms leave a doubt. `ERROR`: the comparison
    failed. `TIMEOUT`: it took too long.
    """

    RIGHT = enum.auto()
    WRONG = enum.auto()
    UNSURE = enum.auto()
    NO_ANSWER = enum.auto()
    TIMEOUT = enum.auto()
    ERROR = enum.auto()


_READY = 'ready'
_OUTCOMES = {True: Outcome.RIGHT, False: Outcome.WRONG, None: Outcome.UNSURE}
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    algebra.EvaluationRefused,
)
"""Exceptions of a comparison that end the pair, and not the worker."""


class Worker:
    """A child process that checks one pair at a time; its time limit starts after its imports."""

    def __init__(self, comparator: str, timeout_s: float):
        self._timeout_s = timeout_s
        self.connection, child_end = connection.Pipe()
        call = (
            'from elenchus.data.grading import workers; '
            f'workers.serve({child_end.fileno()}, {comparator!r}, {timeout_s!r})'
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
        return Outcome(message)

    def expire(self) -> Outcome:
        """Returns TIMEOUT after the deadline. Raises RuntimeError if the worker never started."""
        self._require_ready(f'took more than {STARTUP_S:.0f} s')
        return Outcome.TIMEOUT

    @property
    def is_alive(self) -> bool:
        """Whether the process can check another pair."""
        return self._process.poll() is None

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
    """Runs a worker's loop: reads pairs and sends outcomes until the parent closes the pipe.

    A comparator that raises gives an error, and the worker goes on. One that ends the process is
    counted as an error by the parent. One that uses too much CPU time is ended by SIGPROF, which
    the parent counts as a timeout. The alarm ends a worker whose parent has died.
    """
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, name = comparator.split(':')
    compare_pair = getattr(importlib.import_module(module), name)
    if compare_pair is algebra.math_equal:
        algebra.math_equal('(x+1)^2', 'x^2+2x+1')  # the imports of a first comparison are slow
    pipe = connection.Connection(descriptor)
    pipe.send(_READY)
    while True:
        try:
            pair = pipe.recv()
        except EOFError:
            return
        signal.alarm(math.ceil(PATIENCE * timeout_s) + 5)
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
        try:
            outcome = _OUTCOMES[compare_pair(*pair)]
        except _FAILURES:
            outcome = Outcome.ERROR
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        pipe.send(str(outcome))
