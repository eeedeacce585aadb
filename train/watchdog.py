"""Watches a run: writes its status, and warns of slow steps and of hosts that do not answer.

A thread reads what this process does (metrics/activity.py) and the signs of life of the others.
Process 0 writes them to WORKDIR/status.json (fields: docs/faults.md) and warns in the log.

Python's stacks are dumped by faulthandler, which is in C and so does not need Python's lock.
"""

import contextlib
import dataclasses
import faulthandler
import getpass
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TextIO

import jax

from elenchus.data.files import atomic
from elenchus.data.text import alerts
from elenchus.model.ranges import Range, checked
from elenchus.train import output, preemption
from elenchus.train.early_end import early_end
from elenchus.train.early_signals import dump_stacks_at
from elenchus.train.metrics import progress
from elenchus.train.metrics.activity import (
    STATUS,
    Activity,
    activity,
    goodput,
    keep_unfinished,
)

_BEAT = 'elenchus/beat/'
_LOCAL_S = 5.0  # seconds between two looks, signs of life, and on a disk writes of the status
_REMOTE_S = 30.0  # between writes of the status in a bucket
_STOPPED_S = 20.0  # a wait of `_LOCAL_S` that takes so long: the process was stopped
_ALERTS = {'silent': 'silent', 'unanswered': 'silent', 'stuck': 'stuck'}
_PLACES = 3  # of our code, that a status names
_ROOT = __file__.removesuffix('train/watchdog.py')
_SILENT_S = 30.0  # a host that gives no sign of life for so long has stopped answering

Seconds = Annotated[float, Range(0.0, 1e7)]


@dataclasses.dataclass(frozen=True)
@checked('watchdog')
class WatchdogSettings:
    """When a run counts as slow or stuck, and how long it may take to stop."""

    slow_factor: Annotated[float, Range(2.0, 1e6)]  # times the median of the last steps
    timeout_s: Seconds  # without progress, until the Python stacks are dumped; 0: never
    # From a request to stop until a process leaves that comes to no place to save; 0: never.
    stop_within_s: Seconds
    alert: str  # command or web address that is told of the end, silent hosts and NaN; '': none

    def __post_init__(self):
        if wrong := alerts.check(self.alert):
            raise ValueError(
                f'watchdog.alert={self.alert!r} is no command: {wrong}; nearest: a command such as '
                "'notify-send', or an address https://..."
            )


class Hosts:
    """Signs of life of all processes, in JAX's key-value store; only process 0 reads them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._seen = clock, {}

    def send(self, sign: dict[str, Any]) -> None:
        """Publishes the sign of life of this process."""
        preemption.client().key_value_set(
            f'{_BEAT}{jax.process_index()}', json.dumps(sign), allow_overwrite=True
        )

    def read(self) -> list[dict[str, Any]]:
        """Returns the newest sign of every process, with `silent`, the seconds since it changed.

        Ages are by the clock of this process, because the clocks of hosts differ.
        """
        return self.update([preemption.try_get(f'{_BEAT}{i}') for i in range(jax.process_count())])

    def update(self, signs: list[str | None]) -> list[dict[str, Any]]:
        """Returns the signs with their ages, given what is in the store now."""
        now, rows = self._clock(), []
        for i, sign in enumerate(signs):
            before, since = self._seen.get(i, (None, now))
            if sign != before or i not in self._seen:
                since = now
            self._seen[i] = sign, since
            rows.append({'process': i, **json.loads(sign or '{}'), 'silent': round(now - since, 1)})
        return rows


def complaints(
    activity: Activity,
    hosts: list[dict[str, Any]],
    settings: WatchdogSettings,
    *,
    unanswered: float = 0.0,
) -> dict[tuple, str]:
    """Returns the complaints: key -> text; by its key each is printed only once.

    `unanswered`: seconds since the last answer of the first process, which alone reads the signs of
    all others.
    """
    texts, limit = {}, activity.slow_limit(settings.slow_factor)
    if unanswered > _SILENT_S:
        texts['unanswered',] = (
            f'{activity.stage}: the first process has not answered process {jax.process_index()} '
            f'for {unanswered:.0f} s'
        )
    if 0 < settings.timeout_s < activity.idle:
        texts['stuck', activity.marks] = (
            f'{activity.stage}: no progress for {activity.idle:.0f} s; the stacks of this process '
            'are in the log'
        )
    if limit is not None and activity.idle > limit:
        text = f'{activity.stage}: a step takes more than {activity.idle:.0f} s, '
        texts['slow', activity.marks] = text + f'{settings.slow_factor:g} times the median or more'
    most = max((row.get('calls', 0) for row in hosts), default=0)
    for row in hosts:
        name = f'process {row["process"]} on {row.get("host", "a host that is not known")}'
        if row['silent'] > _SILENT_S:
            where = f'last in {row.get("stage") or "opening"}'
            texts['silent', row['process']] = (
                f'{name} has given no sign of life for {row["silent"]:.0f} s, {where}'
            )
        # Of a process that has given no sign yet nothing is known.
        elif limit is not None and activity.idle > limit and row.get('calls', most) < most:
            texts['straggler', row['process'], row['calls']] = (
                f'{name} is {most - row["calls"]} calls behind the others, in {row["stage"]}'
            )
    return texts


def tell(event: str, text: str) -> None:
    """Alerts the user of a watched run by `watchdog.alert`; only the first process does so."""
    if _watching and jax.process_index() == 0:
        _watching[-1].alert(event, text)


_watching: 'list[Watchdog]' = []


class Watchdog:
    """Context manager around a started run: the thread that watches it and writes its status."""

    def __init__(self, workdir: str | os.PathLike, settings: WatchdogSettings):
        self._folder, self._settings = atomic.absolute(workdir), settings
        self._every = _REMOTE_S if atomic.is_remote(workdir) else 0.0
        self._ended, self._started = threading.Event(), time.time()
        self._hosts, self._printed, self._armed_at = Hosts(), set(), -1
        self._early_end = contextlib.ExitStack()
        self._exchanging = threading.Thread(target=self._exchange_often, daemon=True)
        self._rows: list[dict[str, Any]] = []
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)

    def __enter__(self) -> 'Watchdog':
        if atomic.may_write():
            keep_unfinished(self._folder)
        activity.seconds.clear()
        self._started = time.time() - activity.idle  # opening counts, as of kind 'other'
        jax.monitoring.register_event_duration_secs_listener(activity.count_compiling)
        activity.state = 'running'
        dump_stacks_on_signals(_dump_file())
        preemption.requests.within_s = self._settings.stop_within_s
        self._early_end.enter_context(early_end.doing(self._end_early))
        self._answered = time.monotonic()
        _watching.append(self)
        self._thread.start()
        if jax.process_count() > 1:
            self._exchange()  # so that a process that stops at once has a name
            self._exchanging.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        early_end.wait_if_ending()
        self._early_end.close()
        self._ended.set()
        self._thread.join()
        if jax.process_count() > 1:
            self._exchanging.join(_SILENT_S)  # inside JAX's client it would abort a normal end
        faulthandler.cancel_dump_traceback_later()
        dump_stacks_on_signals(sys.__stderr__)  # the log may be closed
        jax.monitoring.unregister_event_duration_listener(activity.count_compiling)
        activity.mark('other')
        _watching.remove(self)
        self._write_end(_end_state(kind), f'{kind.__name__}: {error}' if error else '')

    def _end_early(self) -> None:
        """Writes the status of a process that a request to stop ends."""
        self._ended.set()
        self._thread.join(1.0)  # it may be writing the file, or waiting for another process
        self._write_end('preempted')

    def alert(self, event: str, text: str) -> None:
        """Sends an alert, if the run has one, without waiting for it."""

        def warn(failure: str) -> None:
            print('warning:', failure, file=sys.stderr)

        alerts.send(self._settings.alert, event, f'{self._folder}: {text}', warn=warn)

    def _write_end(self, state: str, text: str = '') -> None:
        activity.state = state
        if jax.process_index() == 0:
            self.alert(state, f'{activity.stage} {text}')
        if not atomic.may_write() or not self._folder.exists():
            return
        with contextlib.suppress(OSError):  # such as a full disk, which has ended the run
            self._write_status([])
            keep_unfinished(self._folder)
            print(f'time: {goodput(self._folder)}')

    def _watch(self) -> None:
        written = -math.inf
        for was_stopped in self._looks():
            if preemption.requests.is_heard():
                activity.state = 'stopping'
            self._arm()
            if not was_stopped:
                self._complain()
            is_due = time.monotonic() - written >= self._every
            if is_due and atomic.may_write() and self._folder.exists():
                written = time.monotonic()
                with contextlib.suppress(OSError):  # the run itself reports a full disk
                    self._write_status(self._rows)

    def _looks(self) -> Iterator[bool]:
        """Yields every `_LOCAL_S` seconds, until the end, whether this process itself was stopped.

        Then not the others were silent, but this one was deaf.
        """
        start = time.monotonic()
        while not self._ended.wait(_LOCAL_S):
            yield time.monotonic() - start > _STOPPED_S
            start = time.monotonic()

    def _complain(self) -> None:
        """Prints what is wrong once: the first process all, others that the first one is silent."""
        unanswered = time.monotonic() - self._answered if jax.process_index() else 0.0
        texts = complaints(activity, self._rows, self._settings, unanswered=unanswered)
        for key, text in texts.items():
            if key not in self._printed and (jax.process_index() == 0 or key[0] == 'unanswered'):
                print('watchdog:', text, file=sys.stderr)
                # Of the processes that the first one does not answer, the second says so.
                if key[0] in _ALERTS and jax.process_index() < 2:
                    self.alert(_ALERTS[key[0]], text)
        # A silence that has ended may come again.
        kept = {key for key in self._printed if key[0] not in ('silent', 'unanswered')}
        self._printed = kept | texts.keys()

    def _arm(self) -> None:
        """Restarts the timer of the dump of stacks if there was progress; runs in C from then."""
        if self._settings.timeout_s and activity.marks != self._armed_at:
            self._armed_at = activity.marks
            with contextlib.suppress(ValueError, OSError):
                faulthandler.dump_traceback_later(self._settings.timeout_s, file=_dump_file())

    def _exchange_often(self) -> None:
        """The thread that gives signs of life; a first process that is stopped makes it wait."""
        for was_stopped in self._looks():
            self._exchange(reads=jax.process_index() == 0 and not was_stopped)

    def _exchange(self, *, reads: bool = False) -> None:
        """Gives a sign of life, and reads those of the others."""
        with contextlib.suppress(jax.errors.JaxRuntimeError, AttributeError):
            self._hosts.send({
                'host': socket.gethostname(), 'stage': activity.stage, 'beat': time.time(),
                'calls': preemption.requests.calls, 'where': where(),
            })  # fmt: skip
            if reads:
                self._rows = self._hosts.read()
            self._answered = time.monotonic()

    def _write_status(self, hosts: list[dict[str, Any]]) -> None:
        status = {
            'state': activity.state,
            'stage': activity.stage,
            **progress.status(),
            'started': round(self._started, 1),
            'heartbeat': round(time.time(), 1),
            'idle_s': round(activity.idle, 1),
            'where': where(),
            'seconds': {kind: round(value, 1) for kind, value in activity.seconds.items()},
            'hosts': hosts,
            'process': os.getpid(),
            'host': socket.gethostname(),
            'user': _user(),
            'warnings': list(output.log.warnings),
        }
        atomic.write_text(self._folder / STATUS, json.dumps(status, indent=1) + '\n')


def dump_stacks_on_signals(file: TextIO) -> None:
    """Makes SIGUSR1 write the stacks of all threads to a file, and SIGQUIT to the error output."""
    dump_stacks_at(signal.SIGUSR1, file)
    dump_stacks_at(signal.SIGQUIT, sys.__stderr__)


def where() -> str:
    """Returns the innermost places of our code in the main thread's stack, innermost first.

    This is the field `where` of status.json. During a step of XLA it is the line that waits for it.
    """
    frame, places = sys._current_frames().get(threading.main_thread().ident), []
    while frame is not None and len(places) < _PLACES:
        path = frame.f_code.co_filename
        if path.startswith(_ROOT):
            places.append(f'{path.removeprefix(_ROOT)}:{frame.f_lineno} {frame.f_code.co_name}')
        frame = frame.f_back
    return ' < '.join(places)


def _user() -> str:
    """Name of the user that runs this process; '' where a container has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ''


def _dump_file():
    return output.log.file or sys.__stderr__


def _end_state(kind: type | None) -> str:
    if kind is None:
        return 'done'
    return 'preempted' if issubclass(kind, preemption.Preempted) else 'failed'
