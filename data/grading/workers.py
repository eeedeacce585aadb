"""Worker processes of the verifier: each compares one pair at a time and can be killed."""

import contextlib
import enum
import errno
import importlib
import math
import os
import resource
import signal
import sys
import time
from multiprocessing import connection

from elenchus.data.grading import algebra
from elenchus.data.tools.child_process import ChildProcess

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
_LIMITS = {
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 64,
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_REFUSED_KINDS = ('os.exec', 'os.fork', 'os.posix_spawn', 'os.spawn', 'pty.', 'socket.', 'ctypes.')
_REFUSED = {
    *('os.system', 'os.startfile', 'subprocess.Popen'),
    *('os.kill', 'os.killpg', 'signal.pthread_kill', 'os.putenv', 'os.chmod', 'os.chown'),
    *('os.link', 'os.symlink', 'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.truncate'),
    *('shutil.rmtree', 'shutil.move', 'shutil.copyfile'),
}
"""Audit events (docs.python.org/3/library/audit_events.html) that a comparison never needs."""
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
"""Exceptions of a comparison that end its pair but not the worker."""


class Worker(ChildProcess):
    """A child process that checks one pair at a time; its time limit starts after its imports."""

    def __init__(self, comparator: str, timeout_s: float):
        super().__init__('elenchus.data.grading.workers', 'serve', (comparator, timeout_s))
        self._timeout_s = timeout_s
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
            timed_out = self.wait() == -signal.SIGPROF  # the CPU timer of `serve`
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

    def _require_ready(self, failure: str) -> None:
        if not self._ready:
            raise RuntimeError(
                f'a verifier worker {failure} while it started; is math-verify installed?'
            )


def confine() -> None:
    """Confines this process: no comparison needs child processes, writing files or sockets.

    The kernel's limit of processes does not apply to root, so an audit hook, which cannot be
    removed, raises too. Both only add to the main protection: an answer is never evaluated.
    """
    for limit, most in _LIMITS.items():
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple) -> None:
    """Raises PermissionError for an event that starts a process or changes something outside."""
    if event == 'os.kill' and arguments[0] == os.getpid():
        return
    writes = event == 'open' and isinstance(arguments[2], int) and arguments[2] & _WRITES
    if writes or event in _REFUSED or event.startswith(_REFUSED_KINDS):
        raise PermissionError(errno.EPERM, f'a verifier worker may not do this: {event}')


def serve(descriptor: int, comparator: str, timeout_s: float) -> None:
    """Runs a worker's loop: reads pairs and sends outcomes until the parent closes the pipe.

    If a comparator raises, the outcome is ERROR and the worker goes on. If it ends the process, the
    parent counts an error. If it uses too much CPU time, SIGPROF ends the process, which the parent
    counts as a timeout. An alarm ends a worker whose parent has died. `confine` limits the process.
    """
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
    module, name = comparator.split(':')
    compare_pair = getattr(importlib.import_module(module), name)
    if compare_pair is algebra.math_equal:
        algebra.math_equal('(x+1)^2', 'x^2+2x+1')  # the imports of a first comparison are slow
    pipe = connection.Connection(descriptor)
    confine()
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
