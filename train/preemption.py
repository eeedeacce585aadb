"""Requests to stop: SIGTERM and SIGINT, which all processes of a run obey at the same call.

Python runs handlers of signals in the main thread between two of its own instructions, so a long
call of XLA defers them. But it writes a signal's number to a pipe at once; a thread reads it there.

Several processes agree without collectives. Each counts its calls of `is_requested`, which all make
equally often. Who hears a request leaves a note in the key-value store of JAX's coordination
service; who sees the note publishes its count and waits at its next call until all have done so.
The first call after the largest count is the one at which every process answers yes.

In a run (`EarlyEnd.is_allowed`) the main thread is not waited for where it has nothing to save: the
thread that reads signals ends the process (train/early_end.py). Several processes leave so if all
say that they have nothing to save. One that does not come to such a call within `within_s` seconds
leaves too, and makes the others leave: a later kill would lose no less.
"""

import atexit
import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
from jax._src import distributed as jax_distributed

from elenchus.train.early_end import early_end
from elenchus.train.early_signals import EXIT_CODE, SIGNALS
from elenchus.train.metrics.activity import activity

END_S = 5.0  # from the last save to the end of the process, before it is ended
_NOTE = 'elenchus/stop/note'
_NOW = 'elenchus/stop/now'  # a process leaves without saving, and so must the others
_COUNT = 'elenchus/stop/count/'
_POLL_S = 0.5
_AGREEING_POLL_S = 0.05


class Preempted(SystemExit):
    """Ends the process with code 75 after a request to stop; raise it once everything is saved."""

    def __init__(self, where: str):
        super().__init__(EXIT_CODE)
        requests.note_saved()
        print(f'preempted: {where}; run the same command to continue', file=sys.stderr)


class Interrupted(Preempted):
    """Leaves unfinished work; a caller that knows what is saved raises Preempted in its place."""

    def __init__(self):
        SystemExit.__init__(self, EXIT_CODE)


class Requests:
    """Hears requests to stop this process, and agrees with the others on when to obey them."""

    def __init__(self):
        self.within_s = 0.0  # seconds to come to a call of `is_requested` or to save; 0: any time
        self._heard, self._closed = threading.Event(), threading.Event()
        self._agreed = threading.Condition()
        self._calls, self._published, self._has_joined = 0, False, False
        self._stop_at: int | None = None  # the call from which on the answer is yes
        self._received: set[int] = set()
        self._heard_at = self._saved_at = math.inf  # seconds of the monotonic clock
        self._is_saving = False
        self._reader = self._thread = None

    def listen(self) -> None:
        """Handles signals from now on; call it in the main thread."""
        if self._thread is not None:
            return
        self._reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._reader.settimeout(_POLL_S)
        with contextlib.suppress(ValueError):  # not the main thread: only other processes ask
            for number in SIGNALS:
                # `&` in a script makes a process ignore Ctrl-C, which is for the script then.
                if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, _restore_default)
            signal.signal(signal.SIGHUP, _go_on)
            signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name='requests to stop', daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def join(self) -> None:
        """Begins to agree with the other processes, once JAX's client is connected."""
        self._has_joined = True

    def close(self) -> None:
        """Ends the thread, which must not be inside JAX's client when the process ends."""
        if self._thread is None:
            return
        early_end.wait_if_ending()
        self._closed.set()
        self._thread.join()
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the others must not wait for it
            self._publish()

    def is_heard(self) -> bool:
        """Returns True once this process knows of a request; the others may not know of it yet."""
        return self._heard.is_set()

    def is_requested(self) -> bool:
        """Returns True from the same call on in every process, once any has a request: save, exit.

        Every process must call this equally often, so all save the same step. A call costs no
        communication.
        """
        if self._count() == 1:
            return self._heard.is_set()
        with self._agreed:
            self._calls += 1
            while self._published and self._stop_at is None:
                self._agreed.wait(_POLL_S)  # a limit, so that a second signal is handled
            return self._stop_at is not None and self._calls >= self._stop_at

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Marks a block that saves: `within_s` does not end it, as half a checkpoint is useless."""
        self._is_saving = True
        try:
            yield
            self.note_saved()
        finally:
            self._is_saving = False

    def note_saved(self) -> None:
        """Notes that all is saved: the process is ended after END_S seconds if it has not ended."""
        self._saved_at = min(self._saved_at, time.monotonic())

    @property
    def calls(self) -> int:
        """How often `is_requested` was called: the progress that all processes share."""
        return self._calls

    def _count(self) -> int:
        """Returns the number of processes; asking JAX would set up its devices too early."""
        return jax_distributed.global_state.num_processes if self._has_joined else 1

    def _run(self) -> None:
        """The thread: reads signals, and follows the agreement of several processes."""
        while not self._closed.is_set():
            self._read_signals()
            if self._count() > 1:
                # A client that fails means that the coordinator is gone: its heartbeat ends us.
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    self._agree()
            if self._heard.is_set() and early_end.is_allowed and not early_end.is_ending:
                self._end_if_due()

    def _read_signals(self) -> None:
        with contextlib.suppress(TimeoutError):
            for number in self._reader.recv(64):
                if number in SIGNALS:
                    self._receive(number)
                elif number == signal.SIGHUP:
                    print('SIGHUP: the terminal has gone; the run goes on', file=sys.stderr)

    def _receive(self, number: int) -> None:
        name = signal.Signals(number).name
        if number in self._received:
            os._exit(128 + number)  # the main thread is in a call that defers its own end
        self._received.add(number)
        self._hear()
        print(f'{name}: the run saves and ends; a second one ends it at once', file=sys.stderr)

    def _hear(self) -> None:
        self._heard_at = min(self._heard_at, time.monotonic())
        self._heard.set()

    def _end_if_due(self) -> None:
        """Ends the process if the main thread need not, or can no longer, be waited for."""
        now = time.monotonic()
        if now > self._saved_at + END_S:
            early_end.end(f'{_place()}: saved')
        if self._count() == 1 and not early_end.has_steps and self._saved_at > now:
            early_end.end(f'{_place()}: there was nothing new to save')
        is_late = 0 < self.within_s < now - self._heard_at
        if is_late and not self._is_saving and self._saved_at > now:
            if self._count() > 1:
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    client().key_value_set(_NOW, 'left', allow_overwrite=True)
            early_end.end(
                f'{_place()}: no place to save within {self.within_s:g} s; the steps since the '
                'last checkpoint are taken again'
            )

    def _agree(self) -> None:
        """Takes a step of the agreement: leaves or sees the note, publishes, or counts."""
        if client() is None:  # shut down: the process ends
            return
        if not self._published:
            if self._heard.is_set():
                client().key_value_set(_NOTE, 'asked', allow_overwrite=True)
            elif try_get(_NOTE) is not None:
                self._hear()
            else:
                return
            self._publish()
            self._reader.settimeout(_AGREEING_POLL_S)
        if self._stop_at is None:
            self._read_counts()
        if early_end.is_allowed and not early_end.is_ending and try_get(_NOW) is not None:
            early_end.end(f'{_place()}: another process could not save')

    def _read_counts(self) -> None:
        """Ends the process if none has steps to save; otherwise sets the call to stop at."""
        published = [try_get(f'{_COUNT}{i}') for i in range(self._count())]
        if None in published:
            return
        counts, steps = zip(*(map(int, text.split()) for text in published), strict=True)
        if early_end.is_allowed and not any(steps):
            early_end.end(f'{_place()}: there was nothing new to save')
        with self._agreed:
            self._stop_at = max(counts) + 1
            self._agreed.notify_all()
        self._reader.settimeout(_POLL_S)

    def _publish(self) -> None:
        """Publishes the number of calls, once; the next call waits for those of the others.

        And whether there are steps to save: what begins after it need not be saved.
        """
        if self._count() == 1 or self._published:
            return
        with self._agreed:
            value = f'{self._calls} {int(early_end.has_steps)}'
            key = f'{_COUNT}{jax_distributed.global_state.process_id}'
            client().key_value_set(key, value, allow_overwrite=True)
            self._published = True


def _place() -> str:
    return activity.stage or 'the run was being opened'


def _restore_default(number: int, frame) -> None:
    """A second signal of the kind then ends the process in the kernel."""
    signal.signal(number, signal.SIG_DFL)


def _go_on(number: int, frame) -> None:
    """A terminal that is hung up ends no run; its output is in the log (output.py)."""


def try_get(key: str) -> str | None:
    """Returns a value of the key-value store of all processes; None if there is none."""
    try:
        return client().key_value_try_get(key)
    except jax.errors.JaxRuntimeError:  # there is none
        return None


def client():
    """Returns JAX's client of the coordination service; None in a process alone."""
    return jax_distributed.global_state.client


requests = Requests()
"""Those of this process."""
