"""Lock of a work directory: one run at a time, released when its process ends."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from elenchus.data.files import atomic

LOCK = 'lock.json'


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Locks a work directory, which is created if needed; half-written files in it are deleted.

    The lock is the operating system's: it ends with the process, even if that is killed, and works
    on NFS. Its file only names the owner. Buckets have no lock. Raises ValueError, naming host and
    process, if another run has the directory.
    """
    if atomic.is_remote(workdir) or not atomic.may_write():
        yield
        return
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, 'a+', encoding='utf-8') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = json.loads(file.read() or '{}')
            raise ValueError(
                f'{workdir} is in use by process {owner.get("process")} on {owner.get("host")} '
                f'since {owner.get("since")}: wait for it, stop it, or use a new --workdir'
            ) from None
        file.truncate(0)
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        owner = {'host': socket.gethostname(), 'process': os.getpid(), 'since': since}
        file.write(json.dumps(owner) + '\n')
        file.flush()
        for unfinished in folder.rglob('*.writing'):  # of a process that was killed
            unfinished.unlink()
        yield
