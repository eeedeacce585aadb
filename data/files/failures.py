"""Turns failures from outside the program (system, network, bucket) into OSErrors with a path.

Libraries report a failed system call in their own ways: TensorStore and array_record as text in a
ValueError or RuntimeError, clients of buckets as exceptions of their own.
"""

import errno
import os
import re

_NAMES = (
    *('ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EACCES', 'EPERM', 'ENOENT', 'ENOTDIR', 'EISDIR'),
    *('ENOTEMPTY', 'EEXIST', 'ENAMETOOLONG', 'EMFILE', 'ENFILE', 'ENOLCK', 'ENOSYS', 'ENOTSUP'),
    *('EOPNOTSUPP', 'EPIPE', 'EIO', 'EREMOTEIO', 'ESTALE', 'EMLINK', 'ELOOP', 'ENXIO', 'ENODEV'),
    *('EBUSY', 'ETXTBSY', 'EXDEV', 'ENOMEM', 'EAGAIN', 'ETIMEDOUT', 'EHOSTDOWN', 'EHOSTUNREACH'),
    *('ENETDOWN', 'ENETUNREACH', 'ENOTCONN', 'ESHUTDOWN', 'ECONNRESET', 'ECONNREFUSED'),
    'ECONNABORTED',
)
OUTSIDE = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}
"""errno values of failures of the system or network, which are no bugs of the program."""

NETWORK = {
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED),
    errno.EPIPE,
}
"""The errno values of a failed connection."""

REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT), 'free space there, or raise the quota of the file system'
    ),
    errno.EFBIG: 'raise the largest size of a file (ulimit -f) or use another file system',
    errno.EROFS: 'mount the file system for writing',
    **dict.fromkeys((errno.EACCES, errno.EPERM), 'give this user the right to write there'),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), 'raise the number of open files (ulimit -n)'),
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
        'look at the disk or the server of the file system',
    ),
    errno.ENOMEM: 'free memory',
}
"""What a user can do about an errno."""

_CLIENTS = ('gcsfs', 'google', 'aiohttp', 'fsspec', 'requests')
_CODE = re.compile(r"os_error_code='(\d+)'")
_BUCKET = re.compile(
    r'gs://.*(CURL error|HTTP response code: (?!404)[45]\d\d)|'
    r'^(UNAVAILABLE|DEADLINE_EXCEEDED|UNAUTHENTICATED|PERMISSION_DENIED|RESOURCE_EXHAUSTED)\b.*gs://',
    re.DOTALL,
)
"""TensorStore's driver of buckets, after its own retries: a lost connection, or a refusal."""


class named_errors:  # noqa: N801 (used as a function)
    """Turns failures of the system or of a bucket in its body into OSErrors that name a path."""

    def __init__(self, path: str | os.PathLike):
        self._path = path

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        """Raises an OSError for a failure from outside; any other exception propagates."""
        if isinstance(error, OSError):
            if error.errno is None:  # of a client of buckets
                number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
                raise _named(number, self._path, text=_line(kind, error)) from error
            if error.filename is None:
                raise _named(error.errno, self._path, text=error.strerror or '') from error
        elif isinstance(error, ValueError | RuntimeError) and (number := errno_of(str(error))):
            raise _named(number, self._path, text=_bucket_says(str(error))) from error
        elif error is not None and is_of_client(error):
            raise _named(errno.EIO, self._path, text=_line(kind, error)) from error


def is_of_client(error: BaseException) -> bool:
    """Returns whether a client of buckets has an error class of its own for an error."""
    return type(error).__module__.partition('.')[0] in _CLIENTS


def _named(number: int, path: str | os.PathLike, *, text: str = '') -> OSError:
    return OSError(number, text or os.strerror(number), os.fspath(path))


def _line(kind: type, error: BaseException) -> str:
    return ' '.join(f'{kind.__name__}: {error}'.split())[:160]


def errno_of(message: str) -> int | None:
    """Returns the errno of a failure that a library's message names; None without one.

    That of a bucket is EIO.
    """
    if match := _CODE.search(message):
        return int(match[1])
    if is_bucket_failure(message):
        return errno.EIO
    return next((number for number in OUTSIDE if os.strerror(number) in message), None)


def _bucket_says(message: str) -> str:
    """Returns what a bucket's driver says, without its description of the array; '' if nothing."""
    match = _BUCKET.search(message) and re.search(
        r'CURL\s+error[^\[]*|HTTP response[^\[]*', message
    )
    return ' '.join(match[0].split())[:160] if match else ''


def is_bucket_failure(message: str) -> bool:
    """Returns whether TensorStore says that a bucket did not answer, or refused."""
    return bool(_BUCKET.search(message))


def describe(error: OSError) -> str:
    """Returns one line about a failure from outside: reason, path, and what to do."""
    remedy = REMEDIES.get(error.errno)
    return f'{error}' + (f': {remedy}' if remedy else '')
