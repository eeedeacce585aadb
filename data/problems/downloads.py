"""Failures of the download of a public problem set, as one line that says how to do without."""

import contextlib
import os
import urllib.parse
from collections.abc import Collection, Iterator

import tensorflow_datasets as tfds

from elenchus.data.files import failures


class DownloadError(RuntimeError):
    """A public set could not be downloaded."""


@contextlib.contextmanager
def downloading(name: str, urls: Collection[str]) -> Iterator[None]:
    """Raises DownloadError for a failed download of the files of a set in its body.

    TFDS, requests and urllib have classes of their own for that, most of them OSErrors without a
    number. A failure of this machine, such as a full disk, stays what it is.
    """
    try:
        yield
    except (OSError, tfds.download.DownloadError) as error:
        number = getattr(error, 'errno', None)
        if number is not None and number not in failures.NETWORK:
            raise
        hosts = ', '.join(sorted({urllib.parse.urlsplit(url).netloc for url in urls}))
        files = ' and '.join(os.path.basename(url) for url in urls)
        raise DownloadError(
            f'{name} cannot be downloaded from {hosts} ({_reason(error)}): mend that, or put '
            f'{files} into a folder'
        ) from error


@contextlib.contextmanager
def without_network(setting: str) -> Iterator[None]:
    """Adds to a DownloadError of its body the setting of the command that names a folder."""
    try:
        yield
    except DownloadError as error:
        raise DownloadError(f'{error} that {setting} names') from error


def _reason(error: BaseException) -> str:
    """Returns the innermost cause that urllib3 keeps, without the connection's address."""
    while error.args and isinstance(inner := getattr(error.args[0], 'reason', None), Exception):
        error = inner
    return ' '.join(f'{type(error).__name__}: {error}'.rpartition('>: ')[2].split())[:200]
