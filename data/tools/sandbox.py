"""Sandbox: runs programs that models wrote, and returns their output as text for the model.

A program runs in a process of its own that can only compute, print and exit; docs/security.md says
what confines it and what does not. The sandbox needs Linux: elsewhere it raises an error, instead
of confining less.
"""

import contextlib
import dataclasses
import json
import time
import weakref
from collections.abc import Sequence
from multiprocessing import connection
from typing import Literal

from elenchus.data.tools import program, seccomp
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.child_process import ChildProcess
from elenchus.data.tools.server import Ending, Limits

STARTUP_S = 120.0  # seconds; a server imports its modules, perhaps on a busy machine
# Wall-clock seconds per CPU second, so that load on the machine does not stop a program.
PATIENCE = 10
_GRACE_S = 5.0  # beyond a program's wall-clock limit, after which its server is ended too
_ENVIRONMENT = {
    'LANG': 'C.UTF-8',
    'PYTHONHASHSEED': '0',  # the order of sets is the same in every run
    # A program may not start threads, so libraries must not try to.
    **dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1'),
}
_OPTIONS = ('-s', '-B', '-P')

Isolation = Literal['namespaces', 'filter']
"""What confines a program: 'filter' is limits and seccomp alone, 'namespaces' adds namespaces."""


class SandboxUnavailableError(ValueError):
    """This machine lacks something that the sandbox needs; the message names it in one line."""


@dataclasses.dataclass(frozen=True)
class SandboxSettings:
    """Limits of a program, and the modules it may import."""

    timeout_s: float  # processor seconds; PATIENCE times as many by wall clock
    memory_mib: int
    output_chars: int
    modules: tuple[str, ...]  # that programs may import besides those of server.MODULES
    isolation: Isolation


class Sandbox:
    """Runs programs, each in a new process; a context manager that ends its servers.

    At most `num_workers` programs run at once. The first use raises SandboxUnavailableError if the
    machine lacks something.
    """

    def __init__(self, settings: SandboxSettings, *, num_workers: int = 1):
        if reason := seccomp.reason_unsupported():
            raise SandboxUnavailableError(f'the sandbox for programs {reason}')
        self.settings, self._num_workers = settings, num_workers
        self._idle: list[_Server] = []
        self._running: list[_Server] = []
        # Servers end with this process anyway; a sandbox that is dropped ends its own.
        weakref.finalize(self, _kill_all, self._idle, self._running)

    def __enter__(self) -> 'Sandbox':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes; a later call starts new ones."""
        _kill_all(self._idle, self._running)

    def run(self, programs: Sequence[str]) -> list[Answer]:
        """Returns what each program prints, in order."""
        waiting = list(reversed(list(enumerate(programs))))
        answers: dict[int, Answer] = {}
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._num_workers:
                    server = self._idle.pop() if self._idle else _Server(self.settings)
                    self._running.append(server)
                    server.send(*waiting.pop())
                for server, answer in self._wait():
                    answers[server.index] = answer
                    self._running.remove(server)
                    if server.is_alive:
                        self._idle.append(server)
                    else:
                        server.kill()
        finally:
            while self._running:  # only after an error
                self._running.pop().kill()
        return [answers[i] for i in range(len(programs))]

    def _wait(self) -> list[tuple['_Server', Answer]]:
        timeout = min(server.deadline for server in self._running) - time.monotonic()
        connections = [server.connection for server in self._running]
        readable = connection.wait(connections, max(0, timeout))
        answers = []
        for server in self._running:
            if server.connection in readable:
                answers.append((server, server.receive()))
            elif time.monotonic() >= server.deadline:
                server.kill()
                answers.append((server, server.answer(Ending.TIMEOUT, '', '')))
        return answers


def _kill_all(*lists: list['_Server']) -> None:
    for servers in lists:
        while servers:
            servers.pop().kill()


class _Server(ChildProcess):
    """A process that runs programs, one after the other, each in a child of its own."""

    def __init__(self, settings: SandboxSettings):
        self._settings = settings
        limits = Limits(
            settings.timeout_s,
            PATIENCE * settings.timeout_s,
            settings.memory_mib << 20,
            4 * settings.output_chars,  # a character has up to four bytes
        )
        values = {
            'limits': limits,
            'modules': settings.modules,
            'isolation': settings.isolation,
        }
        super().__init__(
            'elenchus.data.tools.server',
            'serve',
            [json.dumps(values)],
            environment=_ENVIRONMENT,
            options=_OPTIONS,
        )
        self.index, self.deadline = -1, 0.0
        self._wall_s = limits.wall_s + _GRACE_S
        self._check_start()

    def _check_start(self) -> None:
        reason = f'took more than {STARTUP_S:.0f} s to start'
        try:
            if self.connection.poll(STARTUP_S):
                reason = self.connection.recv_bytes().decode()
        except (EOFError, ConnectionResetError):
            reason = 'ended while it started'
        if not reason:
            return
        self.kill()
        hint = ''
        if self._settings.isolation == 'namespaces' and reason.startswith(('unshare', 'mount')):
            hint = (
                "; where a container allows no namespaces, isolation='filter' goes without, and "
                'keeps the limits and the filter of system calls'
            )
        raise SandboxUnavailableError(f'the sandbox for programs cannot start: {reason}{hint}')

    def send(self, index: int, code: str) -> None:
        """Starts a program."""
        self.index = index
        self.deadline = time.monotonic() + self._wall_s
        with contextlib.suppress(BrokenPipeError):  # it died while idle: receive() reports it
            self.connection.send_bytes(code.encode('utf-8', 'replace'))

    def receive(self) -> Answer:
        """Returns the answer of the program that runs."""
        try:
            ending, text, detail = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return self.answer(Ending.CRASHED, '', 'its server ended')
        return self.answer(Ending(ending), text, detail)

    def answer(self, ending: Ending, text: str, detail: str) -> Answer:
        """Returns the text that the model reads for a program with this ending and output."""
        most = self._settings.output_chars
        lines = [text[:most].rstrip('\n')] if text else []
        if ending is Ending.FLOOD or len(text) > most:
            lines.append(f'refused: more than {most} characters of output')
        elif ending is Ending.TIMEOUT:
            lines.append(
                f'refused: the program took more than {self._settings.timeout_s:g} s of time'
            )
        elif ending is Ending.CRASHED:
            lines.append(
                f'refused: the program crashed ({detail}), such as of too deep a recursion'
            )
        elif not lines:
            lines = ['no output: print what you want to read']
        is_refused = ending in (Ending.FLOOD, Ending.TIMEOUT, Ending.CRASHED) or any(
            line.endswith(f'refused: {program.HAS_NOT}') for line in lines
        )
        outcome = 'refused' if is_refused else 'error' if ending is Ending.RAISED else 'answered'
        return Answer('\n'.join(lines), outcome)
