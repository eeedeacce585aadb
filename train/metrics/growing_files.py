"""Files of lines that a run appends to, on disks and in buckets.

An object in a bucket cannot grow, and rewriting it with every line would upload a quadratic number
of bytes. So new lines go into numbered objects beside it, `metrics.jsonl.00001` and so on, about
two a minute; `close` merges them. If the process ends while it merges, lines are in the object and
in a numbered one; these count once.
"""

import contextlib
import os
import re
import time

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.files.failures import named_errors

_TAIL = 1 << 16  # bytes in which the last line is looked for first
SEGMENT_S = 30.0
"""Seconds between two numbered objects, unless `flush` is called."""


def exists(path: str | os.PathLike) -> bool:
    """Returns True if there is a file of lines, whole or in numbered objects."""
    path = atomic.absolute(path)
    with named_errors(path):
        return path.exists() or bool(_segments(path))


def read_lines(path: str | os.PathLike) -> list[str]:
    """Returns the lines with their ends; an incomplete last one, of a killed process, is left out.

    Raises ValueError that names the file if it is not UTF-8.
    """
    path = atomic.absolute(path)
    with named_errors(path):
        segments = _segments(path)
        lines = _lines_of(path) if path.exists() or not segments else []
        for segment in segments:
            before = set(lines)
            lines += [line for line in _lines_of(segment) if line not in before]
    return lines


def read_last_line(path: str | os.PathLike) -> str:
    """Returns the last whole line, '' without one; of a file on a disk only its end is read."""
    path = atomic.absolute(path)
    if atomic.is_remote(path):
        return (read_lines(path) or [''])[-1]
    with named_errors(path), open(path, 'rb') as file:
        size, length = file.seek(0, os.SEEK_END), _TAIL
        while True:
            start = max(0, size - length)
            file.seek(start)
            before, end, _ = file.read(size - start).rpartition(b'\n')
            _, inner, line = before.rpartition(b'\n')
            if inner or not start:
                return line.decode(errors='replace') if end else ''
            length *= 4


def _lines_of(path: epath.Path) -> list[str]:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is damaged (not UTF-8, byte {error.start}): delete it') from None
    return [line for line in text.splitlines(keepends=True) if line.endswith('\n')]


def _segments(path: epath.Path) -> list[epath.Path]:
    """Returns the numbered objects beside an object, in order; none of a file on a disk."""
    if not atomic.is_remote(path):
        return []
    named = re.compile(re.escape(path.name) + r'\.\d{5}')
    with contextlib.suppress(FileNotFoundError):
        return sorted(p for p in path.parent.iterdir() if named.fullmatch(p.name))
    return []


class GrowingFile:
    """Appends lines to a file. On a disk every line is written at once."""

    def __init__(self, path: str | os.PathLike):
        self._path = atomic.absolute(path)
        self._pending: list[str] = []  # of a bucket
        self._written = time.monotonic()
        self._number = 0  # of the newest segment
        self._has_changed = False

    def append(self, line: str) -> None:
        """Appends a line that ends with a newline.

        In a bucket it may wait for the next segment. A bucket that fails for a while loses none,
        and does not stop the caller: `flush` reports it.
        """
        self._has_changed = True
        if not atomic.is_remote(self._path):
            atomic.append(self._path, line.encode())
            return
        self._pending.append(line)
        if time.monotonic() - self._written > SEGMENT_S:
            with contextlib.suppress(OSError):
                self._write_pending()

    def flush(self) -> None:
        """Makes the lines durable. Raises OSError if that is impossible."""
        if not atomic.is_remote(self._path):
            if self._has_changed:
                with named_errors(self._path):
                    atomic.sync(self._path)
        elif self._pending:
            self._write_pending()
        self._has_changed = False

    def rewrite(self, lines: list[str]) -> None:
        """Replaces the whole file."""
        self._pending.clear()
        with named_errors(self._path):
            segments = _segments(self._path)
            atomic.write_text(self._path, ''.join(lines))
            for segment in segments:
                segment.unlink()

    def close(self) -> None:
        """Flushes; in a bucket makes one object of the numbered ones."""
        self.flush()
        if self._number:
            self.rewrite(read_lines(self._path))
            self._number = 0

    def _write_pending(self) -> None:
        self._written = time.monotonic()
        with named_errors(self._path):
            segments = _segments(self._path)
            is_first = not segments and not self._path.exists()
        if segments:
            self._number = max(self._number, int(segments[-1].name[-5:]))
        name = self._path.name if is_first else f'{self._path.name}.{self._number + 1:05d}'
        atomic.write_text(self._path.with_name(name), ''.join(self._pending))
        self._number += not is_first
        self._pending.clear()
