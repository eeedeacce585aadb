"""Disks that fail: the N-th byte or write of this process fails, or a real small file system."""

import contextlib
import errno
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from elenchus.data.files import atomic


class Budget:
    """Lets `atomic.store` write so many bytes, then fails as a full disk does: in the middle."""

    def __init__(self, num_bytes: float, *, number: int = errno.ENOSPC):
        self.remaining, self.number, self.written = num_bytes, number, 0

    def store(self, file, content: bytes) -> None:
        """Takes the place of `atomic.store`."""
        taken = content[: int(min(self.remaining, len(content)))]
        file.write(taken)
        self.remaining -= len(taken)
        self.written += len(taken)
        if len(taken) < len(content):
            raise OSError(self.number, os.strerror(self.number))


def limit_bytes(
    monkeypatch: pytest.MonkeyPatch, num_bytes: float, *, number: int = errno.ENOSPC
) -> Budget:
    """Lets this process write so many bytes to files; returns the budget."""
    budget = Budget(num_bytes, number=number)
    monkeypatch.setattr(atomic, 'store', budget.store)
    return budget


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, *, kilobytes: int) -> Iterator[pathlib.Path]:
    """Mounts a file system of a size in memory; skips the test where that is not allowed."""
    folder.mkdir(parents=True)
    command = ['mount', '-t', 'tmpfs', '-o', f'size={kilobytes}k', 'tmpfs', str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip('mounting a file system needs root')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


def resize(folder: pathlib.Path, *, kilobytes: int) -> None:
    """Gives a mounted file system another size."""
    options = f'remount,size={kilobytes}k'
    subprocess.run(['mount', '-o', options, str(folder)], check=True)
