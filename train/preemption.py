"""Requests to stop: SIGTERM and SIGINT, which all processes of a run obey at the same call.

Python runs handlers of signals in the main thread between two of its own instructions, so a long
call of XLA defers them. But it writes a signal's number to a pipe at once; a thread reads it there.

Several processes agree without collectives. Each counts its calls of `is_requested`, which all make
equally often. Who hears a request leaves a note in the key-value store of JAX's coordination
service; who sees the note publishes its count and waits at its next call until all have done so.
The first call after the largest count is the one at which every process answers yes.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading

import jax
from jax._src import distributed as jax_distributed

EXIT_CODE = 75  # EX_TEMPFAIL: the run is saved and the same command continues it
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTE = 'elenchus/stop/note'
_COUNT = 'elenchus/stop/count/'
_POLL_S = 0.5
_AGREEING_POLL_S = 0.05


class Preempted(SystemExit):
    """Ends the process with code 75 after a request to stop; raise it once everything is saved."""

    def __init__(self, where: str):
        super().__init__(EXIT_CODE)
        print(f'preempted: {where}; run the same command to continue', file=sys.stderr)


class Interrupted(Preempted):
    """Leaves unfinished work; who can say what is saved raises a Preempted in its place."""

    def __init__(self):
        SystemExit.__init__(self, EXIT_CODE)


class Requests:
    """Hears requests to stop this process, and agrees with the others on when to obey them."""

    def __init__(self):
        self._heard, self._closed = threading.Event(), threading.Event()
        self._agreed = threading.Condition()
        self._calls, self._published = 0, False
        self._stop_at: int | None = None  # the call from which on the answer is yes
        self._received: set[int] = set()
        self._reader = self._thread = None

    def listen(self) -> None:
        """Handles signals from now on; call it in the main thread, after JAX has been set up."""
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

    def close(self) -> None:
        """Ends the thread, which must not be inside JAX's client when the process ends."""
        if self._thread is None:
            return
        self._closed.set()
        self._thread.join()
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the others must not wait for it
            self._publish()

    def is_heard(self) -> bool:
        """Returns True once this process knows of a request; the others may not know of it yet."""
        return self._heard.is_set()

    def is_requested(self) -> bool:
        """Returns True from the same call on in every process, once any has a request."""
        if jax.process_count() == 1:
            return self._heard.is_set()
        with self._agreed:
            self._calls += 1
            while self._published and self._stop_at is None:
                self._agreed.wait(_POLL_S)  # a limit, so that a second signal is handled
            return self._stop_at is not None and self._calls >= self._stop_at

    @property
    def calls(self) -> int:
        """How often `is_requested` was called: the progress that all processes share."""
        return self._calls

    def _run(self) -> None:
        """The thread: reads signals, and follows the agreement of several processes."""
        while not self._closed.is_set() and self._stop_at is None:
            self._read_signals()
            if jax.process_count() > 1:
                # A client that fails means that the coordinator is gone: its heartbeat ends us.
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    self._agree()
        while not self._closed.is_set():
            self._read_signals()

    def _read_signals(self) -> None:
        with contextlib.suppress(TimeoutError):
            for number in self._reader.recv(64):
                if number in SIGNALS:
                    self._hear(number)
                elif number == signal.SIGHUP:
                    print('SIGHUP: the terminal has gone; the run goes on', file=sys.stderr)

    def _hear(self, number: int) -> None:
        name = signal.Signals(number).name
        if number in self._received:
            os._exit(128 + number)  # the main thread is in a call that defers its own end
        self._received.add(number)
        self._heard.set()
        print(f'{name}: the run saves and ends; a second one ends it at once', file=sys.stderr)

    def _agree(self) -> None:
        """Takes a step of the agreement: leaves or sees the note, publishes, or counts."""
        if client() is None:  # shut down: the process ends
            return
        if not self._published:
            if self._heard.is_set():
                client().key_value_set(_NOTE, 'asked', allow_overwrite=True)
            elif try_get(_NOTE) is not None:
                self._heard.set()
            else:
                return
            self._publish()
            self._reader.settimeout(_AGREEING_POLL_S)
        counts = [try_get(f'{_COUNT}{i}') for i in range(jax.process_count())]
        if None not in counts:
            with self._agreed:
                self._stop_at = max(map(int, counts)) + 1
                self._agreed.notify_all()
            self._reader.settimeout(_POLL_S)

    def _publish(self) -> None:
        """Publishes the number of calls, once; the next call waits for those of the others."""
        if jax.process_count() == 1 or self._published:
            return
        with self._agreed:
            key = f'{_COUNT}{jax.process_index()}'
            client().key_value_set(key, str(self._calls), allow_overwrite=True)
            self._published = True


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
