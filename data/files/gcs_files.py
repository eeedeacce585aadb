"""Files in Google Cloud Storage: gcsfs without cached listings, with time limits and OSErrors.

gcsfs caches listings for ever, although TensorStore and other hosts write to the bucket too. It
waits for ever for a server that has stopped answering. It raises its client's own exceptions, or in
some methods none ("no such folder" instead of "no answer"). `fsspec` uses this class for gs:// (see
`elenchus/data/files/__init__.py`), and so does `epath`.
"""

import base64
import errno
import hashlib
import json
import logging
import os
import re
import urllib.parse
from typing import Any

import gcsfs
from gcsfs.core import UnclosableBytesIO, aiohttp

from elenchus.data.files import failures

CONNECT_S, ANSWER_S = 30.0, 60.0
"""Seconds without a connection, and without any byte of an answer, until a request is retried."""
LARGE_BODY, ONE_REQUEST = 1 << 20, 50 << 20

if 'GCSFS_DEBUG' not in os.environ:
    # It logs what it raises, with tracebacks, to stderr where nobody has set logging up.
    logging.getLogger('gcsfs').setLevel(logging.CRITICAL)


class BucketFiles(gcsfs.GCSFileSystem):
    """The file system of gs://. Every failure is an OSError with a number and a path."""

    def __init__(self, *args, **options):
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S)
        ours = {'use_listings_cache': False, 'requests_timeout': limits}
        super().__init__(*args, **(ours | options))

    async def _call(self, method: str, path: str, *args: str, **options) -> Any:
        """Sends a request of any kind, with retries; overrides the method of gcsfs."""
        data = options.get('data')
        if isinstance(data, bytes | memoryview) and len(data) > LARGE_BODY:
            options['data'] = UnclosableBytesIO(data)  # in pieces, between which others have turns
        with _AsOSErrors(_place(path, args, str(options.get('name', '')))):
            return await super()._call(method, path, *args, **options)

    async def _pipe_file(self, path: str, data: bytes, **options) -> None:
        """Writes an object in one request, and compares its checksum with that of the answer.

        The body is the content alone. gcsfs sends a multipart body whose lines end with a line
        feed, where a reader that expects CRLF takes a last byte 0x0d for a part of the line's end.
        """
        bucket, name, _ = self.split_path(path)
        is_zonal = getattr(self, '_is_zonal_bucket', None)
        if options or len(data) > ONE_REQUEST or (is_zonal and await is_zonal(bucket)):
            await super()._pipe_file(path, data, **options)
            return
        info = await self._call(
            'POST',
            f'{self._location}/upload/storage/v1/b/{bucket}/o',
            uploadType='media',
            name=name,
            headers={'Content-Type': 'application/octet-stream'},
            data=data,
            json_out=True,
        )
        checksum = base64.b64encode(hashlib.md5(data).digest()).decode()
        if info.get('md5Hash', checksum) != checksum:
            raise OSError(errno.EIO, 'the bucket has stored other bytes', f'gs://{bucket}/{name}')

    async def _isdir(self, path: str) -> bool:
        """Returns whether there is a folder; gcsfs would return False if there was no answer."""
        try:
            return (await self._info(path))['type'] == 'directory'
        except FileNotFoundError:
            return False

    async def _isfile(self, path: str) -> bool:
        """Returns whether there is an object; fsspec would return False if there was no answer."""
        try:
            return (await self._info(path))['type'] == 'file'
        except FileNotFoundError:
            return False


_OBJECT = re.compile(r'/?b/(?P<bucket>[^/?]+)/o(?:/(?P<name>[^/?]+))?')


def _place(path: str, args: tuple[str, ...], name: str = '') -> str | None:
    """Returns gs://BUCKET/NAME of a request, or another request's address; None if unknown."""
    if args and path.startswith('b/{}'):
        return 'gs://' + '/'.join(args)
    if match := _OBJECT.search(path):
        query = urllib.parse.parse_qs(path.partition('?')[2])
        name = name or urllib.parse.unquote(match['name'] or '') or query.get('name', [''])[0]
        # An upload in one piece has its name in the body: `named_errors` of its caller adds it.
        return f'gs://{match["bucket"]}/{name}' if name else None
    return path


class _AsOSErrors:
    """Context manager that turns the exception of a request, after its retries, into an OSError."""

    def __init__(self, place: str | None):
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        if error is None or 'not satisfiable' in str(error):  # read as the end of an object
            return
        is_answer = isinstance(error, json.JSONDecodeError)  # of something that is no bucket
        if is_answer or isinstance(error, OSError) or failures.is_of_client(error):
            raise as_os_error(error, self._place) from error


def as_os_error(error: Exception, place: str | None) -> OSError:
    """Returns an error of gcsfs as an OSError with errno, text and path."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return error
    kind, number = OSError, errno.EIO
    text = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    if isinstance(error, FileNotFoundError):
        kind, number, text = FileNotFoundError, errno.ENOENT, os.strerror(errno.ENOENT)
    elif isinstance(error, FileExistsError):
        kind, number = FileExistsError, errno.EEXIST
        text = 'another process has changed it (412)'
    elif isinstance(error, OSError) and str(error).startswith('Forbidden'):
        kind, number, text = PermissionError, errno.EACCES, f'403 {error}'.replace('\n', ' ')
    elif getattr(error, 'code', None) == 401 or type(error).__module__.startswith('google.auth'):
        kind, number = PermissionError, errno.EACCES
    return kind(number, text, place)
