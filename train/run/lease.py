"""A lease: a lock that its owner renews, for buckets and file systems without locks.

Its file has the owner's name and a number that grows every `RENEW_S` seconds. A process that finds
a lease watches it: if the file stays the same for `STALE_S` seconds, the owner counts as dead and
the lease is taken over. Only changes are compared, never clocks, which differ between hosts. A run
that ends removes its lease, so one waits only after a kill.

In a bucket every change has a precondition (generation of the object; 0: there is none), so two
hosts cannot both succeed. On a disk without locks a file is created exclusively; a takeover is
looked at again after `SETTLE_S` seconds, because there a rename is all that is atomic.
"""

import contextlib
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import fsspec
from etils import epath

from elenchus.data.files import atomic
from elenchus.data.files.failures import named_errors
from elenchus.train.early_end import early_end

RENEW_S = 10.0
STALE_S = 60.0
SETTLE_S = 2.0


class Store(Protocol):
    """The file of a lease, each change of which succeeds only if nobody was faster."""

    path: os.PathLike

    def read(self) -> tuple[str, object] | None:
        """Returns (content, version) or None without a file."""

    def write(self, content: str, version: object | None) -> object | None:
        """Replaces the version, or creates the file with None; returns the new version.

        Returns None if the file has another version, or exists already.
        """

    def remove(self, version: object) -> None:
        """Deletes the file if it still has the version."""


@contextlib.contextmanager
def leased(store: Store) -> Iterator[None]:
    """Holds a lease while the body runs; takes that of a dead run over after STALE_S seconds.

    Raises ValueError, naming host and process, if another run is alive.
    """
    name = {
        'host': socket.gethostname(),
        'process': os.getpid(),
        'since': time.strftime('%Y-%m-%d %H:%M:%S'),
        'run': secrets.token_hex(8),
    }
    renewal = _Renewal(store, name, _acquire(store, name))
    renewal.start()
    try:
        with atomic.watch_ownership(renewal.check), early_end.doing(renewal.stop):
            yield
    finally:
        renewal.stop()


def in_use(folder: os.PathLike, content: str) -> str:
    """Returns the message about a work directory that another run has."""
    try:
        owner = json.loads(content)
        names = f'process {owner["process"]} on {owner["host"]} since {owner["since"]}'
    except (ValueError, TypeError, KeyError):  # it is being written, or was cut short
        names = 'another run, whose name in its lock cannot be read'
    return f'{folder} is in use by {names}: wait for it, stop it, or use a new --workdir'


def _content(name: dict, count: int) -> str:
    return json.dumps(name | {'renewed': count}) + '\n'


def _acquire(store: Store, name: dict) -> object:
    """Creates the lease, or takes over that of a dead run; returns its version."""
    folder = os.fspath(store.path).rpartition('/')[0]
    current = store.read()
    if current is not None:
        print(
            f'waiting up to {STALE_S:.0f} s for a sign of the run that has {folder}',
            file=sys.stderr,
        )
        end = time.monotonic() + STALE_S
        while current is not None and time.monotonic() < end:
            time.sleep(min(RENEW_S, STALE_S) / 4)
            before, current = current, store.read()
            if current is not None and current[1] != before[1]:
                raise ValueError(in_use(folder, current[0]))
    version = store.write(_content(name, 0), current and current[1])
    if version is not None and current is not None and isinstance(store, DiskStore):
        time.sleep(SETTLE_S)
        now = store.read()
        version = version if now is not None and now[1] == version else None
    if version is None:
        now = store.read()
        if now is None or f'"run": "{name["run"]}"' not in now[0]:
            raise ValueError(in_use(folder, now[0] if now else ''))
        version = now[1]  # our own write, whose answer was lost
    return version


class _Renewal:
    """Renews a lease in a thread. A run that has lost its lease may not write any more."""

    def __init__(self, store: Store, name: dict, version: object):
        self._store, self._name, self._version = store, name, version
        self._ended, self._count, self._lost = threading.Event(), 0, ''
        self._thread = threading.Thread(target=self._renew_often, daemon=True)
        self.start = self._thread.start

    def check(self) -> None:
        """Raises RuntimeError if the lease was lost: another run has it, or its file is gone."""
        if self._lost:
            raise RuntimeError(f'another run has taken over: {self._lost}')

    def stop(self) -> None:
        """Ends the thread and removes the lease."""
        self._ended.set()
        self._thread.join(RENEW_S)
        if not self._lost:
            with contextlib.suppress(OSError):
                self._store.remove(self._version)

    def _renew_often(self) -> None:
        while not self._ended.wait(RENEW_S) and not self._lost:
            with contextlib.suppress(OSError):  # of a network; the next try may succeed
                self._renew()

    def _renew(self) -> None:
        self._count += 1
        content = _content(self._name, self._count)
        version = self._store.write(content, self._version)
        if version is None:
            now = self._store.read()
            if now is not None and self._is_own(now[0]):  # a write whose answer was lost
                self._version = now[1]
                return
            folder = os.fspath(self._store.path).rpartition('/')[0]
            self._lost = in_use(folder, now[0] if now else '')
            print(f'error: {self._lost}; this run stops', file=sys.stderr)
        else:
            self._version = version

    def _is_own(self, content: str) -> bool:
        return f'"run": "{self._name["run"]}"' in content


class DiskStore:
    """A lease on a disk; its version is its content."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def read(self) -> tuple[str, object] | None:
        """Returns (content, version) or None without a file."""
        with named_errors(self.path):
            try:
                content = self.path.read_text()
            except FileNotFoundError:
                return None
        return content, content

    def write(self, content: str, version: object | None) -> object | None:
        """Creates or replaces the file; see `Store`."""
        with named_errors(self.path):
            if version is None:
                try:
                    with open(self.path, 'xb', buffering=0) as file:
                        atomic.store(file, content.encode())
                except FileExistsError:
                    return None
                return content
            now = self.read()
            if now is None or now[1] != version:
                return None
            atomic.write_text(self.path, content)
        return content

    def remove(self, version: object) -> None:
        """Deletes the file if it still has the version."""
        now = self.read()
        if now is not None and now[1] == version:
            self.path.unlink(missing_ok=True)


class BucketStore:
    """A lease in a bucket of Google Cloud Storage; its version is the object's generation.

    Its calls are those of the JSON API (cloud.google.com/storage/docs/request-preconditions).
    """

    def __init__(self, path: epath.Path):
        self.path = path
        bucket, _, name = os.fspath(path).partition('://')[2].partition('/')
        self._place = (bucket, name)
        self._files = fsspec.filesystem('gcs')

    def read(self) -> tuple[str, object] | None:
        """Returns (content, generation) or None without an object."""
        with named_errors(self.path):
            try:
                info = self._files.call('GET', 'b/{}/o/{}', *self._place, json_out=True)
                generation = int(info['generation'])
                _, content = self._files.call(
                    'GET', 'b/{}/o/{}', *self._place, alt='media', generation=generation
                )
            except FileNotFoundError:
                return None
        return content.decode(), generation

    def write(self, content: str, version: object | None) -> object | None:
        """Creates or replaces the object if its generation is `version` (None: no object)."""
        bucket, name = self._place
        url = self._files.base.replace('/storage/v1/', '/upload/storage/v1/') + f'b/{bucket}/o'
        options = {'uploadType': 'media', 'name': name, 'ifGenerationMatch': version or 0}
        with named_errors(self.path):
            try:
                info = self._files.call(
                    'POST', url, data=content.encode(), json_out=True, **options
                )
            except FileExistsError:  # 412: another generation
                return None
        return int(info['generation'])

    def remove(self, version: object) -> None:
        """Deletes the object if it still has the generation."""
        with named_errors(self.path), contextlib.suppress(FileExistsError, FileNotFoundError):
            self._files.call('DELETE', 'b/{}/o/{}', *self._place, ifGenerationMatch=version)
