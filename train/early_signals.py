"""Requests to stop while a script imports its packages, which takes seconds of a busy machine.

Only the standard library is imported here: scripts call `end_at_signals` before they import JAX.
"""

import os
import signal
import sys

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


def _end(number: int, frame) -> None:
    text = f'{signal.Signals(number).name}: preempted before the run was opened\n'
    os.write(sys.__stderr__.fileno(), text.encode())
    os._exit(EXIT_CODE)
