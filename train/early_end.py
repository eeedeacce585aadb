"""Ends a process that has nothing new to save, without waiting for its main thread.

The main thread may be in a call that cannot be interrupted: XLA compiles, a checkpoint is read,
another process is waited for. Files are whole at every moment, even for a kill. So a request to
stop may end the process at once if every training step is in a checkpoint. What other runs would
wait for, such as a lease, is released before.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax

from elenchus.data.files import atomic
from elenchus.train.early_signals import EXIT_CODE

FINISH_S = 4.0  # longest time for what is done before the process ends
TOGETHER_S = 30.0  # longest wait of a process that has saved for the others, which do too
_FILE_S = 2.0  # longest time for a file that is being written
_FAILURES = (OSError, RuntimeError, ValueError, KeyError, AttributeError)
"""What an action may raise; the next ones are done nevertheless."""


class EarlyEnd:
    """Knows whether this process has steps to save, and ends it."""

    def __init__(self):
        self.is_allowed = False  # in a run; a library must not end the process that uses it
        self.has_steps = False  # steps of training that no file may have
        self._actions: list[Callable[[], object]] = []
        self._ending = threading.Event()

    @contextlib.contextmanager
    def doing(self, action: Callable[[], object]) -> Iterator[None]:
        """Registers an action for an early end of the process in the body; last one first."""
        self._actions.append(action)
        try:
            yield
        finally:
            self._actions.remove(action)

    @property
    def is_ending(self) -> bool:
        """Whether the process is being ended."""
        return self._ending.is_set()

    def end(self, where: str) -> NoReturn:
        """Ends the process with code 75, after at most `FINISH_S` seconds.

        It leaves JAX's coordination service together with the other processes.
        """
        self._ending.set()
        _run_for(FINISH_S, lambda: self._finish(where))
        os._exit(EXIT_CODE)

    def end_saved(self) -> None:
        """Ends the process with code 75 when all is closed, if that is allowed.

        The interpreter would take seconds to free what the system frees at once.
        """
        self.wait_if_ending()
        if self.is_allowed:
            self._ending.set()
            _run_for(TOGETHER_S, _leave_service)
            os._exit(EXIT_CODE)

    def wait_if_ending(self) -> None:
        """Waits for the end if it has begun; otherwise returns at once.

        An error in the main thread is then no failure: other processes have left already.
        """
        if self.is_ending:
            time.sleep(2 * FINISH_S)
            os._exit(EXIT_CODE)

    def _finish(self, where: str) -> None:
        atomic.wait_for_writes(_FILE_S)
        for action in reversed(list(self._actions)):
            with contextlib.suppress(*_FAILURES):
                action()
        print(f'preempted: {where}; run the same command to continue', file=sys.stderr)
        _leave_service()


def _leave_service() -> None:
    """Waits for the other processes: one that left without it would make them fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _run_for(seconds: float, action: Callable[[], object]) -> None:
    """Runs an action in a thread, which is waited for so long."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)


early_end = EarlyEnd()
"""That of this process."""
