"""Atomic file writes (write a temporary file, then rename), on local disks and in buckets.

Paths may be on this machine or, as gs://..., in a bucket.
"""

import errno
import os

from etils import epath


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file atomically: a reader sees the whole file or none. Creates parent folders.

    Does nothing in a process that may not write (`allow_writing`).
    """
    if not may_write():
        return
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):  # object stores publish an object only when it is complete
        path.write_bytes(content)
        return
    # Beside the target: a rename is atomic only within one file system.
    temporary = path.with_name(f'{path.name}.{os.getpid()}.writing')
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_exists(path: str | os.PathLike) -> None:
    """Raises FileNotFoundError if a run's work directory has disappeared.

    Called before writes into it: `write_bytes` would recreate it, without its earlier files.
    """
    if not epath.Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, 'the work directory is gone', os.fspath(path))


# A list, so that `allow_writing` needs no `global` statement.
_writing_allowed = [True]


def allow_writing(allowed: bool) -> None:
    """Sets whether this process writes files. In a multi-host run only the first process does."""
    _writing_allowed[0] = allowed


def may_write() -> bool:
    """Returns True if this process writes files; see `allow_writing`."""
    return _writing_allowed[0]


def is_remote(path: str | os.PathLike) -> bool:
    """Returns True if a path is in a bucket, such as gs://..."""
    return '://' in os.fspath(epath.Path(path))


def absolute(path: str | os.PathLike) -> epath.Path:
    """Returns the normalised absolute path; a bucket's path keeps its scheme."""
    path = epath.Path(path)
    if not is_remote(path):
        return epath.Path(os.path.abspath(path))
    scheme, _, rest = os.fspath(path).partition('://')
    return epath.Path(f'{scheme}://{os.path.normpath(rest)}')
