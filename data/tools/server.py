"""The server process of a Sandbox: it forks a child for each program, which runs it in another.

It imports the modules that programs may use, enters its own namespaces, and then forks, so that
children have the modules without importing them. The first child limits and ends the second, whose
output is read as bytes and never interpreted. Standard library only.
"""

import contextlib
import ctypes
import enum
import importlib
import json
import math
import os
import resource
import select
import signal
import time
from multiprocessing import connection
from typing import NamedTuple, NoReturn

from elenchus.data.tools import program, seccomp

MODULES = (
    *('abc', 'array', 'ast', 'bisect', 'calendar', 'cmath', 'collections', 'copy', 'dataclasses'),
    *('datetime', 'decimal', 'enum', 'fractions', 'functools', 'hashlib', 'heapq', 'itertools'),
    *('json', 'math', 'numbers', 'operator', 'pprint', 're', 'random', 'statistics', 'string'),
    *('textwrap', 'time', 'traceback', 'typing', '_strptime', 'collections.abc'),
    *('encodings.ascii', 'encodings.latin_1', 'encodings.utf_16'),
)
"""Modules of the standard library that every program may import."""

LATE_IMPORTS = {
    'numpy': tuple(f'numpy.{name}' for name in ('fft', 'linalg', 'ma', 'polynomial', 'random')),
    'sympy': tuple(
        f'sympy.{name}'
        for name in (
            *('assumptions.wrapper', 'codegen.ast', 'combinatorics', 'concrete.delta'),
            *('integrals.heurisch', 'integrals.manualintegrate', 'integrals.risch'),
            *('parsing.sympy_parser', 'physics.units', 'polys.domains.old_polynomialring'),
            *('polys.domains.old_fractionfield', 'sets.handlers.functions', 'sets.setexpr'),
            *('sets.handlers.issubset', 'tensor.tensor'),
        )
    ),
}
"""Submodules that functions of a package import when called; they must be loaded in advance."""

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWUSER | _CLONE_NEWNET
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_EMPTY = '/proc'  # covered by an empty folder, which becomes the root
_CHUNK = 65536


class Ending(enum.StrEnum):
    """How a program ended."""

    DONE = enum.auto()
    RAISED = enum.auto()
    TIMEOUT = enum.auto()
    FLOOD = enum.auto()
    CRASHED = enum.auto()


class Limits(NamedTuple):
    """What one program may use."""

    timeout_s: float  # of processor time
    wall_s: float
    memory_bytes: int  # of address space
    output_bytes: int


def serve(descriptor: int, settings: str) -> None:
    """Runs the programs that it is sent until the other end closes the pipe.

    The first message that it sends is the reason why programs cannot be confined here, or ''.
    """
    values = json.loads(settings)
    limits = Limits(*values['limits'])
    pipe = connection.Connection(descriptor)
    modules = (*MODULES, *values['modules'])
    try:
        for name in modules:
            for part in (name, *LATE_IMPORTS.get(name, ())):
                importlib.import_module(part)
        limits = limits._replace(memory_bytes=limits.memory_bytes + _own_bytes())
        with open('/proc/self/oom_score_adj', 'w', encoding='ascii') as file:
            file.write('1000')  # if memory runs out, the kernel kills programs before the run
        if values['isolation'] == 'namespaces':
            leave_namespaces()
        reason = _try_out(limits)
    except (OSError, ImportError, AttributeError) as error:
        reason = ' '.join(str(error).split())
    pipe.send_bytes(reason.encode())
    if reason:
        return
    poller, server = select.poll(), os.getpid()
    poller.register(pipe.fileno(), select.POLLIN)
    while True:
        poller.poll()  # for a program, or the end of the pipe
        child = os.fork()
        if child == 0:
            _answer(pipe, modules, limits, server=server)
        if os.waitpid(child, 0)[1]:
            return


def _answer(
    pipe: connection.Connection, modules: tuple[str, ...], limits: Limits, *, server: int
) -> NoReturn:
    """Runs the next program from this new child, which ends with it.

    The server never sees a program or its output, so the next program finds no trace of them.
    """
    try:
        seccomp.die_with_parent(seccomp.libc(), server)
        code = pipe.recv_bytes().decode()
        ending, output, detail = run(code, modules, limits, closes=pipe.fileno())
        pipe.send_bytes(json.dumps([ending, output, detail]).encode())
        os._exit(0)
    finally:  # the pipe has ended, or this child failed: the server ends too
        os._exit(1)


def _own_bytes() -> int:
    """Returns the address space of this process, which its children begin with."""
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def leave_namespaces() -> None:
    """Gives this process its own network, user and mount namespaces, with an empty root folder.

    Raises OSError where the kernel, or a container, does not allow it.
    """
    library = seccomp.libc()
    seccomp.checked('unshare', library.unshare(_NAMESPACES))
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    mount = library.mount(b'none', _EMPTY.encode(), b'tmpfs', ctypes.c_ulong(flags), None)
    seccomp.checked('mount', mount)
    os.chroot(_EMPTY)
    os.chdir('/')


def _try_out(limits: Limits) -> str:
    """Runs a trial program; returns why it is not confined as it must be, or ''."""
    code = (
        'import os\n'
        'calls = {"a file": lambda: os.open("/", os.O_RDONLY), "a process": os.fork}\n'
        'for name, call in calls.items():\n'
        '    try:\n'
        '        call()\n'
        '        print(name)\n'
        '    except PermissionError:\n'
        '        pass\n'
        'print("confined")\n'
    )
    ending, output, detail = run(code, (), limits, closes=-1)
    if ending is Ending.DONE and output == 'confined\n':
        return ''
    return f'a first program was not confined: {" ".join(output.split())} {detail}'


def run(
    code: str, modules: tuple[str, ...], limits: Limits, *, closes: int
) -> tuple[Ending, str, str]:
    """Runs a program in a child; returns (its ending, its output, the name of a signal or '').

    If the descriptor `closes` is closed, the child and this process end; -1: none.
    """
    reader, writer = os.pipe()
    server = os.getpid()
    child = os.fork()
    if child == 0:
        _become(code, modules, limits, writer=writer, server=server)
    os.close(writer)
    descriptor = os.pidfd_open(child)
    try:
        killed, output = _watch(child, limits, reader=reader, exits=descriptor, closes=closes)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        os.close(descriptor)
    text = output[: limits.output_bytes].decode('utf-8', 'replace')
    if killed is not None:
        return killed, text, ''
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return Ending.TIMEOUT, text, ''
    if code < 0:
        return Ending.CRASHED, text, signal.Signals(-code).name
    return (Ending.RAISED if code else Ending.DONE), text, ''


def _become(
    code: str, modules: tuple[str, ...], limits: Limits, *, writer: int, server: int
) -> None:
    """Confines this new child and runs the program in it; does not return."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.set_inheritable(1, True)
        os.closerange(3, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096))
        program.run(code, modules, limits=_kernel_limits(limits), parent=server)
    finally:  # after an error before the confinement, the child must not go on as a second server
        os._exit(program.NOT_CONFINED)


def _kernel_limits(limits: Limits) -> dict[int, int]:
    seconds = math.ceil(limits.timeout_s) + 1  # a second limit; the server's own is finer
    return {
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_STACK: 8 << 20,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 3,
    }


def _watch(
    child: int, limits: Limits, *, reader: int, exits: int, closes: int
) -> tuple[Ending | None, bytes]:
    """Reads what a child writes until it exits or must be ended; returns (why or None, output)."""
    deadline = time.monotonic() + limits.wall_s
    poller = select.poll()
    for descriptor in (reader, exits, *([closes] if closes >= 0 else [])):
        poller.register(descriptor, select.POLLIN)
    output, has_exited = bytearray(), False
    while True:
        seconds = min(limits.timeout_s - _processor_seconds(child), deadline - time.monotonic())
        if seconds <= 0 and not has_exited:
            return Ending.TIMEOUT, bytes(output)
        ready = dict(poller.poll(max(seconds, 0.001) * 1000))
        if closes in ready:
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        has_exited = has_exited or exits in ready
        if reader in ready:
            part = os.read(reader, _CHUNK)
            output += part
            if len(output) > limits.output_bytes:
                return Ending.FLOOD, bytes(output)
            if not part:
                poller.unregister(reader)
                reader = -1
        elif has_exited:
            return None, bytes(output)


def _processor_seconds(child: int) -> float:
    """Returns the processor time of a child; 0 if it has ended."""
    try:
        return time.clock_gettime(((~child) << 3) | 2)  # see clock_getcpuclockid(3)
    except OSError:
        return 0.0
