"""Writes files atomically, on local disks and in buckets; all files are written here.

A local file is written under a temporary name beside the final one, flushed to the disk and
renamed, so that neither a killed process nor a power cut leaves a partial file. Paths may be local
or, as gs://..., in a bucket. Every failure is an OSError that names the path.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator

from etils import epath
from etils.epath import backend

from elenchus.data.files.failures import named_errors

UNFINISHED = '.writing'
"""Suffix of files and folders that are still being written; see `delete_unfinished`."""

NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES}
"""errno values of file systems that do not support fsync, mostly of folders."""

NO_LINKS = {
    *(errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP),
    *(errno.EMLINK, errno.EXDEV, errno.EINVAL),
}
"""errno values with which a file system refuses a hard link: the file is copied instead."""


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
    if is_remote(path):  # object stores publish an object only when it is complete
        with named_errors(path), _counted():
            # Not with `open`: its destructor completes the file, even after an error, and it would
            # then replace what another process has written in the meantime.
            backend.fsspec_backend.fs(path).pipe_file(os.fspath(path), content)
        return
    with replaced(path) as temporary, open(temporary, 'wb', buffering=0) as file:
        store(file, content)


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a local path to write to, and moves that file to `path` after the body.

    For libraries that write files themselves. If the body raises, the file at `path` is unchanged.
    Call it only in a process that may write.
    """
    path = epath.Path(path)
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / path.name
            yield local
            write_bytes(path, local.read_bytes())
        return
    # Beside the target: a rename is atomic only within one file system.
    writer = f'{os.getpid()}-{threading.get_ident()}'
    temporary = pathlib.Path(f'{os.fspath(path)}.{writer}{UNFINISHED}')
    with named_errors(path), _counted():
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(temporary.parent)
        finally:
            with contextlib.suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)


_writes = [0]  # files that are being written now
_writes_changed = threading.Condition()


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    """Counts the body as one write in progress, for `wait_for_writes`."""
    with _writes_changed:
        _writes[0] += 1
    try:
        yield
    finally:
        with _writes_changed:
            _writes[0] -= 1
            _writes_changed.notify_all()


def wait_for_writes(seconds: float) -> bool:
    """Waits at most `seconds` until no thread writes a file; returns whether none does."""
    with _writes_changed:
        return _writes_changed.wait_for(lambda: not _writes[0], seconds)


def append(path: str | os.PathLike, line: bytes) -> None:
    """Appends a line to a local file, whole or not at all; removes an incomplete last line first.

    It does not flush: call `sync` before writing anything that relies on the line.
    """
    with named_errors(path), open(path, 'a+b', buffering=0) as file:
        size = _whole_lines(file)
        file.truncate(size)
        try:
            store(file, line)
        except OSError:
            file.truncate(size)
            raise


def _whole_lines(file) -> int:
    """Returns the size of a file without the incomplete last line that a killed process left."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b'\n':
        return size
    file.seek(0)
    return file.read().rfind(b'\n') + 1


def store(file, content: bytes) -> None:
    """Writes all bytes to an unbuffered file.

    One `write` may take fewer bytes than it is given, for example on a disk that becomes full.
    """
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def sync(path: str | os.PathLike) -> None:
    """Flushes a local file, or the entries of a folder, to the disk, to survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def link_tree(source: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Hard-links the files of a folder into a new folder, all or none.

    Files are copied where the file system has no hard links, or a file has too many. Does nothing
    if the local folder exists.

    A bucket has neither links nor renames, so there the missing files are copied one by one: the
    deepest first, and the files that mark a folder as complete (MARKS) last at each depth.
    """
    if is_remote(source) or is_remote(folder):
        _copy_objects(absolute(source), absolute(folder))
        return
    source, folder = pathlib.Path(source), pathlib.Path(folder)
    if folder.exists():
        return
    beside = folder.with_name(f'{folder.name}.{os.getpid()}{UNFINISHED}')
    try:
        for path, _, names in os.walk(source, onerror=_raise):
            target = beside / pathlib.Path(path).relative_to(source)
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                _link_or_copy(pathlib.Path(path, name), target / name)
            sync(target)
        beside.rename(folder)
        sync(folder.parent)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise


MARKS = ('model_config.json', 'summary.json')
"""Files that mark a folder as complete, and are therefore written last."""


def _copy_objects(source: epath.Path, folder: epath.Path) -> None:
    with named_errors(source):
        paths = files_below(source)
    with named_errors(folder):
        there = set(files_below(folder))
    if not paths:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(source))
    for path in sorted(paths, key=lambda path: (-path.count('/'), path.endswith(MARKS), path)):
        if path not in there:
            with named_errors(source / path):
                content = (source / path).read_bytes()
            write_bytes(folder / path, content)


def files_below(folder: epath.Path) -> list[str]:
    """Returns the paths of all files below a folder, relative to it; [] if it does not exist."""
    files = backend.fsspec_backend.fs(folder)
    root = files._strip_protocol(os.fspath(folder)).rstrip('/') + '/'
    found = files.find(root)
    return [path.removeprefix(root) for path in found if path.startswith(root)]


def _raise(error: OSError) -> None:
    raise error


def _link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    _copy(source, target)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    with named_errors(target), source.open('rb') as old, target.open('wb', buffering=0) as new:
        while block := old.read(1 << 20):
            store(new, block)
        os.fsync(new.fileno())


def delete_tree(folder: str | os.PathLike) -> None:
    """Deletes a folder if it exists; renames a local one first, so that no part of it is seen."""
    folder = epath.Path(folder)
    if not folder.exists():
        return
    if not is_remote(folder):
        folder = folder.replace(folder.with_name(f'{folder.name}.{os.getpid()}{UNFINISHED}'))
    folder.rmtree()


def delete_unfinished(
    folder: str | os.PathLike, *, endings: tuple[str, ...] = (), other: str = ''
) -> None:
    """Deletes the unfinished files and folders that a killed process left below a local folder.

    `endings` are further suffixes of folders to delete. Subfolders with a file named `other` are
    kept: another process may be writing there.
    """
    endings += (UNFINISHED,)
    for path, folders, files in os.walk(folder):
        if other in files and path != os.fspath(folder):
            folders.clear()
            continue
        for name in [name for name in folders if name.endswith(endings)]:
            folders.remove(name)
            shutil.rmtree(os.path.join(path, name))
        for name in files:
            if name.endswith(UNFINISHED):
                os.unlink(os.path.join(path, name))


def check_exists(path: str | os.PathLike) -> None:
    """Raises FileNotFoundError if a run's work directory has disappeared.

    It is called before every write into the directory, because `write_bytes` would recreate it
    without its earlier files. First calls the checks of `watch_ownership`, which may raise.
    """
    for check in _ownership:
        check()
    if not epath.Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, 'the work directory is gone', os.fspath(path))


_ownership: list[Callable[[], None]] = []


@contextlib.contextmanager
def watch_ownership(check: Callable[[], None]) -> Iterator[None]:
    """Makes `check_exists` call `check` too, which raises if another run owns the directory."""
    _ownership.append(check)
    try:
        yield
    finally:
        _ownership.remove(check)


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
