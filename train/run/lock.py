"""Lock of a work directory: one run at a time, released when its process ends.

On a disk it is the operating system's lock, of an open file: it ends with the process, even if that
is killed, works on NFS, and stays when another descriptor of the file is closed (locks of a
process, as of `lockf`, would be dropped by that). Where a file system has no locks, and in a
bucket, it is a lease (`train/run/lease.py`).
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import IO

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.files.failures import named_errors
from elenchus.train.run import lease

LOCK = 'lock.json'
ORBAX_UNFINISHED = '.orbax-checkpoint-tmp'
"""End of the names of folders that Orbax has not finished; importing Orbax for it is slow."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""errno values of file systems without locks: some Lustre, NFS and FUSE mounts."""

IN_USE = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Locks a work directory, which is created if needed; half-written files in it are deleted.

    Raises ValueError, naming host and process, if another run has the directory.
    """
    if not atomic.may_write():
        yield
        return
    if atomic.is_remote(workdir):
        with _bucket_lease(atomic.absolute(workdir)):
            yield
        return
    folder = pathlib.Path(workdir)
    with named_errors(folder), contextlib.ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(open(folder / LOCK, 'a+', encoding='utf-8'))
        if _lock(file, folder):
            file.truncate(0)
            file.write(json.dumps(owner()) + '\n')
            file.flush()
        else:
            print(
                f'warning: {folder} is on a file system without locks: a lease keeps other runs '
                'out, which a killed run leaves for a minute',
                file=sys.stderr,
            )
            store = lease.DiskStore(folder / 'lease.json')
            stack.enter_context(lease.leased(store))
        atomic.delete_unfinished(folder, endings=(ORBAX_UNFINISHED,), other=LOCK)
        # The body's errors are its own.
        resources = stack.pop_all()
    with resources:
        yield


def _bucket_lease(folder: epath.Path) -> contextlib.AbstractContextManager[None]:
    if not os.fspath(folder).startswith('gs://'):
        print(f'warning: {folder} has no lock: start no second run there', file=sys.stderr)
        return contextlib.nullcontext()
    return lease.leased(lease.BucketStore(folder / LOCK))


def is_locked(workdir: str | os.PathLike) -> bool | None:
    """Returns whether a run has a work directory; None where only a lease, or nobody, can say.

    Asks the system and takes no lock, so that a run that starts meanwhile is not kept out.
    """
    if atomic.is_remote(workdir) or not hasattr(fcntl, 'F_OFD_GETLK'):
        return None
    whole = struct.pack('hhqqi0q', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with open(pathlib.Path(workdir) / LOCK, 'rb') as file:
            kind, *_ = struct.unpack('hhqqi0q', fcntl.fcntl(file, fcntl.F_OFD_GETLK, whole))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return kind != fcntl.F_UNLCK


def owner() -> dict[str, str | int]:
    """Returns who holds a lock: this process."""
    since = time.strftime('%Y-%m-%d %H:%M:%S')
    return {'host': socket.gethostname(), 'process': os.getpid(), 'since': since}


def _lock(file: IO[str], folder: pathlib.Path) -> bool:
    """Locks an open file; returns False if the file system has no locks.

    Raises ValueError if another process has locked it.
    """
    try:
        _lock_description(file)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        if error.errno not in IN_USE:
            raise
        file.seek(0)
        raise ValueError(lease.in_use(folder, file.read())) from None
    return True


def _lock_description(file: IO[str]) -> None:
    """Locks the open file description, so that no other descriptor can drop the lock.

    Linux has byte-range locks of a description (`F_OFD_SETLK`), which locks of `lockf`, as of runs
    of an earlier version, exclude too; other systems have `flock`.
    """
    if not hasattr(fcntl, 'F_OFD_SETLK'):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    # struct flock: type, whence, start, length (0: the whole file), process (0 here).
    whole = struct.pack('hhqqi0q', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
