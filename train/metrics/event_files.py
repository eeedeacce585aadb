"""Numbers and texts for TensorBoard, in event files that can neither stop nor delay a run.

TensorBoard reads all event files of a folder, one after the other. On a disk one file grows by a
record a row, written in the caller's own call. In a bucket, whose objects cannot grow, a thread
writes a new file about once a minute. A row that cannot be written is dropped, with one warning for
the whole run: metrics.jsonl has it. (A queue that waits for a writer which has failed would stop
the training loop, and with it all hosts.)
"""

import os
import pathlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from tensorboardX import summary as summaries
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2, summary_pb2

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable

UPLOAD_S = 60.0
"""Seconds between two files in a bucket."""
CLOSE_S = 15.0
"""Longest time that the end of a stage waits for a bucket."""
PENDING_BYTES = 8 << 20
"""Most bytes that wait for a bucket that fails; newer rows are dropped."""
MAX_BINS = 60
"""Most bins of a histogram."""
LARGEST = 1e12
"""Size at which the values of a histogram are cut: far larger ones are too near for bins."""

_warned: list[str] = []  # one warning a process, whatever the number of stages


def record_of(event: event_pb2.Event) -> bytes:
    """Returns an event as a record of TFRecord: length and content, each with its checksum."""
    content = event.SerializeToString()
    length = struct.pack('<Q', len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def in_bins(values: Sequence[float]) -> np.ndarray:
    """Returns the finite ones of some values, [N], so that `np.histogram` finds bins for them.

    Values that differ by rounding alone, as 0.3 and 0.1 + 0.2, become equal.
    """
    array = np.asarray(values, float).ravel()
    known = array[np.isfinite(array)].clip(-LARGEST, LARGEST)
    is_one = known.size and np.ptp(known) <= 1e-9 * np.abs(known).max()
    return np.full_like(known, known[0]) if is_one else known


class EventFile:
    """The tracker of one stage (`trackers.Tracker`).

    No method raises if a disk or bucket fails. None waits for a bucket but `close`, at most CLOSE_S
    seconds; a disk is written in the call.
    """

    def __init__(self, folder: str | os.PathLike, *, purge_step: int | None = None):
        """Prepares a file; steps from `purge_step` on in earlier files no longer count."""
        self._folder = atomic.absolute(folder)
        events = [event_pb2.Event(wall_time=time.time(), file_version='brain.Event:2')]
        if purge_step is not None:
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            events.append(event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=log))
        head = b''.join(map(record_of, events))
        kind = _BucketFiles if atomic.is_remote(self._folder) else _DiskFile
        self._file = kind(self._folder, head)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of a step, or drops them."""
        scalars = [summary_pb2.Summary.Value(tag=n, simple_value=v) for n, v in values.items()]
        self._add(step, summary_pb2.Summary(value=scalars))

    def histogram(self, step: int, name: str, values: Sequence[float]) -> None:
        """Writes how values are distributed; those that are not finite are left out."""
        known = in_bins(values)
        if known.size:
            self._add(step, summaries.histogram(name, known, 'auto', max_bins=MAX_BINS))

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text, which TensorBoard shows as it is: as Markdown it is a block of code."""
        lines = printable(text).split('\n')
        self._add(step, summaries.text(name, '\n'.join(f'    {line}' for line in lines)))

    def _add(self, step: int, summary: summary_pb2.Summary) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self._file.add(record_of(event))

    def close(self) -> None:
        """Writes what is pending; gives up after `CLOSE_S` seconds."""
        self._file.close()


class _Dropping:
    """Context manager that turns any exception of its body into one warning a process."""

    def __init__(self, folder: epath.Path):
        self._folder, self.failed = folder, False

    def __enter__(self) -> '_Dropping':
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> bool:
        self.failed = isinstance(error, Exception)
        if self.failed and not _warned:
            text = ' '.join(f'{kind.__name__}: {error}'.split())[:200]
            _warned.append(text)
            print(
                f'warning: TensorBoard lacks rows, which could not be written to {self._folder} '
                f'({text}); metrics.jsonl has them',
                file=sys.stderr,
            )
        return self.failed


def _file_name(number: int) -> str:
    """Returns the name of a new file, which sorts after those of earlier starts."""
    host = socket.gethostname() or 'host'
    return f'events.out.tfevents.{time.time_ns() // 1000}.{host}.{os.getpid()}.{number:05d}'


class _DiskFile:
    """An event file on a disk, which grows by whole records."""

    def __init__(self, folder: epath.Path, head: bytes):
        self._folder, self._head = folder, head
        self._path = pathlib.Path(folder) / _file_name(0)
        self._size = 0  # bytes of whole records

    def add(self, record: bytes) -> None:
        """Appends a record, or drops it."""
        with _Dropping(self._folder):
            if not self._path.exists():  # new, or deleted by somebody
                self._size = 0
            content = record if self._size else self._head + record
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, 'ab', buffering=0) as file:
                file.truncate(self._size)  # half a record would hide all that follow
                atomic.store(file, content)
            self._size += len(content)

    def close(self) -> None:
        """Cuts off half a record."""
        with _Dropping(self._folder):
            if self._path.exists():
                os.truncate(self._path, self._size)


class _BucketFiles:
    """Event files in a bucket, written by a thread that nobody waits for."""

    def __init__(self, folder: epath.Path, head: bytes):
        self._folder, self._head = folder, head
        self._pending: list[bytes] = []
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._number, self._name = 0, _file_name(0)
        self._thread = threading.Thread(target=self._upload_often, daemon=True)
        self._thread.start()

    def add(self, record: bytes) -> None:
        """Hands a record to the thread, or drops it if too many are waiting."""
        with self._lock:
            if sum(map(len, self._pending)) < PENDING_BYTES:
                self._pending.append(record)
            else:
                with _Dropping(self._folder):
                    raise BufferError('too many rows are waiting')

    def close(self) -> None:
        """Lets the thread write what is pending; waits for it `CLOSE_S` seconds at most."""
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _upload_often(self) -> None:
        while not self._closed.wait(UPLOAD_S):
            self._upload()
        self._upload()

    def _upload(self) -> None:
        """Writes the pending rows as one new object; keeps them if that fails."""
        with self._lock:
            records = list(self._pending)
        if not records:
            return
        with _Dropping(self._folder) as attempt:
            atomic.write_bytes(self._folder / self._name, self._head + b''.join(records))
        if not attempt.failed:
            with self._lock:
                del self._pending[: len(records)]
            self._number += 1
            self._name = _file_name(self._number)
