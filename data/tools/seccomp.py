"""A system call filter (seccomp): a program can only compute, write its output and exit.

The filter is a list of allowed calls; all others fail with EPERM. The kernel enforces it for
whatever runs in the process, machine code included. No call on the list takes a path, an address or
a process id. Standard library only, because it is loaded into the process of an untrusted program.
"""

import ctypes
import os
import platform
import struct
import sys

# name -> number on x86_64, on aarch64 (asm/unistd_64.h, asm-generic/unistd.h).
CALLS = {
    'read': (0, 63),
    'write': (1, 64),
    'writev': (20, 66),
    'close': (3, 57),
    'fstat': (5, 80),
    'lseek': (8, 62),
    'mmap': (9, 222),
    'mprotect': (10, 226),
    'munmap': (11, 215),
    'mremap': (25, 216),
    'madvise': (28, 233),
    'brk': (12, 214),
    'rt_sigaction': (13, 134),
    'rt_sigprocmask': (14, 135),
    'rt_sigreturn': (15, 139),
    'sigaltstack': (131, 132),
    'sched_yield': (24, 124),
    'getpid': (39, 172),
    'gettid': (186, 178),
    'exit': (60, 93),
    'exit_group': (231, 94),
    'clock_gettime': (228, 113),
    'clock_getres': (229, 114),
    'gettimeofday': (96, 169),
    'getrandom': (318, 278),
}
"""What a program may call. The descriptors that it has are 0 to 2: nothing, and its output."""

_ARCHITECTURES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}
_X32 = 0x40000000  # numbers of x86_64 from here on are of another calling convention
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 1, 38, 22, 2
_CAPABILITY_VERSION = 0x20080522
_EPERM, _SIGKILL = 1, 9


class _Program(ctypes.Structure):
    _fields_ = (('length', ctypes.c_ushort), ('instructions', ctypes.c_void_p))


def reason_unsupported() -> str:
    """Returns why this machine has no such filter; '' if it may have one."""
    if sys.platform != 'linux' or platform.machine() not in _ARCHITECTURES:
        return f'needs Linux on x86_64 or aarch64; this is {sys.platform} on {platform.machine()}'
    return ''


def filter_program(machine: str) -> bytes:
    """Returns the filter for a machine as instructions of classic BPF."""
    column, architecture = _ARCHITECTURES[machine]
    numbers = sorted(call[column] for call in CALLS.values())
    count = len(numbers)
    # The last three instructions are: error, allow, kill.
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 0, count + 4, architecture), (_LOAD, 0, 0, 0)]
    code += [(_AT_LEAST, count + 2, 0, _X32)]
    code += [(_EQUAL, count - i, 0, number) for i, number in enumerate(numbers)]
    code += [(_RETURN, 0, 0, value) for value in (_ERROR | _EPERM, _ALLOW, _KILL)]
    return b''.join(struct.pack('=HBBI', *instruction) for instruction in code)


def libc() -> ctypes.CDLL:
    """Returns the C library of this process, with errno."""
    return ctypes.CDLL(None, use_errno=True)


def checked(name: str, result: int) -> None:
    """Raises OSError with the C library's errno if a call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f'{name}: {os.strerror(number)}')


def die_with_parent(library: ctypes.CDLL, parent: int) -> None:
    """Has the kernel end this process when its parent ends."""
    checked('prctl', library.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def drop_capabilities(library: ctypes.CDLL) -> None:
    """Takes root's rights from this process, such as the one to raise its own limits."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    checked('capset', library.capset(header, (ctypes.c_uint32 * 6)()))


def install(library: ctypes.CDLL) -> None:
    """Confines this thread for good; OSError where the kernel refuses."""
    code = filter_program(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    checked('prctl(no_new_privs)', library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    set_filter = library.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)
    checked('prctl(seccomp)', set_filter)
