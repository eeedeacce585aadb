"""One run at a time on a work directory: a lock that dies with the process that holds it."""

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
    """Holds a work directory, which it makes; what a process that has ended left is taken over.

    The file says who holds it. The lock itself is the operating system's and ends with the process,
    on NFS too; in a bucket there is none. Raises ValueError, naming host and process, where another
    run has it.
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
                f'since {owner.get("since")}: wait for it, end it, or take a new --workdir'
            ) from None
        file.truncate(0)
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        owner = {'host': socket.gethostname(), 'process': os.getpid(), 'since': since}
        file.write(json.dumps(owner) + '\n')
        file.flush()
        for left in folder.rglob('*.writing'):  # by a process that was killed
            left.unlink()
        yield
