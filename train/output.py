"""Copies what a run prints to WORKDIR/log.txt, and keeps the run alive if its reader goes away.

The reader of a pipe may go away (a laptop sleeps, `| head`), or a terminal be hung up. Then only
the log is written. In a bucket, whose objects cannot be appended to, there is no log.

Every text that is printed, a traceback too, passes `printable` here: a problem, a file's name or
a model's metadata may contain control sequences, and callers of print need not think of them. Code
that draws on a terminal writes to `terminal(stream)`.
"""

import collections
import contextlib
import io
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import TextIO

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable

LOG = 'log.txt'
_ESCAPES = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]|\r')
_BAR = '━'  # of progress on a terminal, which is drawn again and again
_MAX_WAITING = 1 << 20  # characters that are kept until the log is open
_WARNINGS = ('warning:', 'watchdog:', 'error:')
_MAX_WARNINGS, _MAX_WARNING = 20, 500  # newest ones that status.json has, and characters of one


class Log:
    """The log of a run; text that is written before `open` waits in memory until then."""

    def __init__(self):
        self._waiting: list[str] = []
        self._file: TextIO | None = None
        self._failed = False
        self._line = ''  # that is not complete yet
        self.warnings: collections.deque[str] = collections.deque(maxlen=_MAX_WARNINGS)

    @property
    def file(self) -> TextIO | None:
        """The open file; None before that, and in processes that do not write."""
        return self._file

    def open(self, path: str | os.PathLike) -> None:
        """Appends to this file from now on. Raises OSError if it cannot be written."""
        self.close()
        self._failed = False
        self._file = open(path, 'a', encoding='utf-8', errors='replace', buffering=1)  # noqa: SIM115
        command = ' '.join(sys.argv)
        when = time.strftime('%Y-%m-%d %H:%M:%S')
        waiting, self._waiting = self._waiting, []
        for text in (f'--- {when} {socket.gethostname()} {os.getpid()}: {command}\n', *waiting):
            self.write(text)

    def write(self, text: str) -> None:
        """Writes text without a terminal's control sequences; after a failure nothing more."""
        if '\x1b' in text or '\r' in text:
            lines = _ESCAPES.sub('', text).splitlines(keepends=True)
            text = ''.join(line for line in lines if _BAR not in line and line.strip())
        text = printable(text)
        self._keep_warnings(text)
        if self._file is None:
            if sum(map(len, self._waiting)) < _MAX_WAITING:
                self._waiting.append(text)
            return
        if self._failed:
            return
        try:
            self._file.write(text)
        except OSError:  # a full disk ends the run where it writes its results
            # It stays open: faulthandler may hold its descriptor.
            self._failed = True

    def _keep_warnings(self, text: str) -> None:
        *lines, rest = (self._line + text).split('\n')
        self._line = rest[:_MAX_WARNING]
        self.warnings.extend(line[:_MAX_WARNING] for line in lines if line.startswith(_WARNINGS))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError, ValueError):
                file.close()


class Output(io.TextIOBase):
    """A text stream that writes to another one, as long as that can be written, and to the log."""

    def __init__(self, stream: TextIO, log: Log):
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        """Writes text without control characters; flushes at line ends, as on a terminal."""
        self.write_raw(printable(text))
        return len(text)

    def write_raw(self, text: str) -> None:
        """Writes a text as it is; the log has it without control sequences."""
        self._log.write(text)
        try:
            self._stream.write(text)
            if '\n' in text:
                self._stream.flush()
        except OSError:
            self._drop()

    def terminal(self) -> 'Output':
        """Returns the same stream for what draws or colours."""
        return _Terminal(self._stream, self._log)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        # What the stream still holds goes there too: its last flush would change the exit code.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Returns the descriptor of the stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Returns True."""
        return True

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str:
        """What the stream does with characters that it cannot encode."""
        return self._stream.errors


class _Terminal(Output):
    """The same stream without the filter: for safe texts, and escapes that draw or colour."""

    def write(self, text: str) -> int:
        """Writes a text as it is."""
        self.write_raw(text)
        return len(text)


class Printable(io.TextIOBase):
    """A text stream that writes to another one, without control characters."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text."""
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def flush(self) -> None:
        """Flushes the stream."""
        self._stream.flush()


def terminal(stream: TextIO) -> TextIO:
    """Returns a stream without the filter, for code that draws or colours and filters itself."""
    return stream.terminal() if isinstance(stream, Output) else stream


log = Log()
"""That of this process."""


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keeps what is printed in its body, and an exception's traceback, for the log of the run."""
    streams = sys.stdout, sys.stderr
    outputs = sys.stdout, sys.stderr = Output(sys.stdout, log), Output(sys.stderr, log)
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, streams, outputs)
        stack.push(_log_traceback)
        yield


def _log_traceback(kind: type | None, error: BaseException | None, trace) -> None:
    """Called at the end of `kept`: the log has the traceback, which the terminal gets later."""
    if kind is not None and not issubclass(kind, SystemExit):
        log.write(''.join(traceback.format_exception(kind, error, trace)))
        sys.excepthook = _print_traceback


def _print_traceback(kind: type, error: BaseException, trace) -> None:
    """Prints the traceback that ends the process, as Python does but printable."""
    print(
        printable(''.join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end=''
    )


def _restore(streams: tuple[TextIO, TextIO], outputs: tuple[Output, Output]) -> None:
    for output in outputs:
        output.flush()
    if sys.stdout is outputs[0]:  # processes but the first have put another stream in its place
        sys.stdout = streams[0]
    sys.stderr = streams[1]
    log.close()


def open_log(workdir: str | os.PathLike) -> None:
    """Opens the log of a work directory, on the process that writes."""
    if atomic.may_write() and not atomic.is_remote(workdir) and isinstance(sys.stderr, Output):
        log.open(os.path.join(workdir, LOG))
