"""Copies files and folders of a bucket for libraries that need files on a local disk.

The copies are below $TMPDIR, which needs room for the whole file or folder.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from etils import epath
from etils.epath import backend

from elenchus.data.files import atomic
from elenchus.data.files.failures import named_errors

LARGE = 32 << 20
"""Bytes from which a file is sent in pieces, without a copy of it in memory."""


@contextlib.contextmanager
def fetched(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a file or folder on this machine: the path itself, or a copy of what a bucket has.

    A ValueError of the body names the place in the bucket. Without such an object the copy does not
    exist either.
    """
    if not atomic.is_remote(path):
        yield pathlib.Path(path)
        return
    remote = atomic.absolute(path)
    with tempfile.TemporaryDirectory(prefix='elenchus-') as folder:
        local = pathlib.Path(folder, remote.name)
        _fetch(remote, local)
        try:
            yield local
        except ValueError as error:
            raise ValueError(str(error).replace(str(local), os.fspath(remote))) from error


def _fetch(remote: epath.Path, local: pathlib.Path) -> None:
    files = backend.fsspec_backend.fs(remote)
    with named_errors(remote):
        pairs = [(remote, local)] if remote.is_file() else [
            (remote / name, local / name) for name in atomic.files_below(remote)
        ]  # fmt: skip
        if any(not _is_below(target, local) for _, target in pairs):
            raise ValueError(f'{remote}: the name of an object leads out of the folder')
        for source, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(os.fspath(source), str(target))


def _is_below(path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Returns whether a path stays in a folder: names of objects may have any parts."""
    return pathlib.Path(os.path.normpath(path)).is_relative_to(folder)


@contextlib.contextmanager
def delivered(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a folder on this machine to write into; after the body a bucket has its files.

    Those that others look for first, config.json above all, are sent last. If the body raises,
    nothing is sent.
    """
    if not atomic.is_remote(folder):
        yield pathlib.Path(folder)
        return
    remote = atomic.absolute(folder)
    with tempfile.TemporaryDirectory(prefix='elenchus-') as temporary:
        local = pathlib.Path(temporary, remote.name)
        yield local
        paths = [path for path in local.rglob('*') if path.is_file()]
        for path in sorted(paths, key=lambda path: (path.name == 'config.json', path)):
            _send(path, remote / path.relative_to(local).as_posix())


def _send(path: pathlib.Path, target: epath.Path) -> None:
    if path.stat().st_size < LARGE:
        atomic.write_bytes(target, path.read_bytes())
        return
    with named_errors(target):
        backend.fsspec_backend.fs(target).put_file(str(path), os.fspath(target))
