"""Handles signals while a script imports its packages, which takes seconds on a busy machine.

SIGTERM and SIGINT end the process. SIGQUIT (Ctrl-\\ on a terminal) and SIGUSR1 write the Python
stacks of all threads from C, and the program continues.

Only the standard library is imported here: scripts call `end_at_signals` before they import JAX.
"""

import contextlib
import faulthandler
import os
import signal
import sys
from typing import TextIO

EXIT_CODE = 75  # EX_TEMPFAIL: nothing is lost and the same command continues
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_signals() -> None:
    """Makes requests to stop end this process with code 75, until `preemption` listens to them.

    A terminal that hangs up (SIGHUP) ends nothing, as later.
    """
    for number in SIGNALS:
        # `&` in a script makes a process ignore Ctrl-C, which is for the script then.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGQUIT, signal.SIGUSR1):
        dump_stacks_at(number, sys.__stderr__)


def dump_stacks_at(number: signal.Signals, file: TextIO) -> None:
    """Makes a signal write the Python stacks of all threads to a file; the program continues."""
    with contextlib.suppress(ValueError, OSError, AttributeError):  # not the main thread; no file
        if signal.getsignal(number) == signal.SIG_DFL:
            # What faulthandler restores while the interpreter ends; the default would kill it.
            signal.signal(number, signal.SIG_IGN)
        faulthandler.register(number, file=file, all_threads=True)


def _end(number: int, frame) -> None:
    text = f'{signal.Signals(number).name}: preempted before the run was opened\n'
    os.write(sys.__stderr__.fileno(), text.encode())
    os._exit(EXIT_CODE)
