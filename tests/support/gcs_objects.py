"""The objects of a fake bucket: what each call of the JSON API does to them, and its answer."""

import base64
import dataclasses
import email.parser
import email.policy
import hashlib
import itertools
import json
import pathlib
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import google_crc32c

Answer = tuple[int, dict[str, str], bytes]
CHUNK = 1 << 18
"""All chunks of a resumable upload but the last have a multiple of these bytes."""


class ApiError(Exception):
    """An error answer, with its status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class Stored:
    """One version of an object."""

    content: bytes
    generation: int
    content_type: str = 'application/octet-stream'
    written: float = 0.0


@dataclasses.dataclass
class Upload:
    """A resumable upload."""

    bucket: str
    name: str
    options: dict[str, str]
    content_type: str
    content: bytes = b''
    stored: Stored | None = None  # of one that is complete


class Objects:
    """All buckets of a server. Every call is atomic."""

    def __init__(self, *buckets: str, writes_per_s: float = 0, page: int = 1000):
        self.buckets: dict[str, dict[str, Stored]] = {bucket: {} for bucket in buckets}
        self.uploads: dict[str, Upload] = {}
        self._writes_per_s, self._page = writes_per_s, page
        self._numbers = itertools.count(time.time_ns() // 1000)
        self._lock = threading.RLock()

    def names(self, prefix: str = '', *, bucket: str = 'bucket') -> list[str]:
        """Returns the names of all objects that begin with a prefix."""
        with self._lock:
            return sorted(name for name in self.buckets[bucket] if name.startswith(prefix))

    def content(self, name: str, *, bucket: str = 'bucket') -> bytes:
        """Returns the bytes of an object."""
        return self.buckets[bucket][name].content

    def put(self, name: str, content: bytes, *, bucket: str = 'bucket') -> int:
        """Writes an object, as another client would; returns its generation."""
        with self._lock:
            return self._store(bucket, name, content, options={}, limited=False).generation

    def save(self, folder: pathlib.Path, *, bucket: str = 'bucket') -> pathlib.Path:
        """Writes all objects of a bucket as files below a folder; returns it."""
        for name in self.names(bucket=bucket):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.content(name, bucket=bucket))
        return folder

    def put_tree(self, folder: pathlib.Path, prefix: str) -> None:
        """Writes all files below a folder as objects, as `gcloud storage cp -r` does."""
        for path in sorted(p for p in folder.rglob('*') if p.is_file()):
            self.put(f'{prefix}/{path.relative_to(folder).as_posix()}', path.read_bytes())

    def answer(self, operation: str, target: Any, *, headers: Mapping, body: bytes) -> Answer:
        """Does what a request asks; returns (status, headers, content). Raises ApiError."""
        with self._lock:
            if operation not in ('create', 'unknown') and target.bucket not in self.buckets:
                raise ApiError(404, f'The specified bucket does not exist: {target.bucket}')
            call = getattr(self, f'_{operation}', None)
            if call is None:
                raise ApiError(501, f'the fake server has no {operation} of {target.bucket}')
            return call(target, headers, body)

    # Each of these is an operation of a label (see `fake_gcs.Fault`).

    def _bucket(self, target, headers, body) -> Answer:
        value = {'kind': 'storage#bucket', 'id': target.bucket, 'name': target.bucket}
        return _json(value | {'location': 'US', 'locationType': 'region', 'metageneration': '1'})

    def _create(self, target, headers, body) -> Answer:
        name = json.loads(body)['name']
        self.buckets.setdefault(name, {})
        return _json({'kind': 'storage#bucket', 'name': name})

    def _layout(self, target, headers, body) -> Answer:
        return _json({'bucket': target.bucket, 'hierarchicalNamespace': {'enabled': False}})

    def _list(self, target, headers, body) -> Answer:
        options, prefix = target.options, target.options.get('prefix', '')
        delimiter, token = options.get('delimiter', ''), options.get('pageToken', '')
        entries: dict[str, Stored | None] = {}  # None: a prefix
        for name, stored in sorted(self.buckets[target.bucket].items()):
            if not name.startswith(prefix) or name < options.get('startOffset', ''):
                continue
            if options.get('endOffset') and name >= options['endOffset']:
                continue
            first, mark, _ = name[len(prefix) :].partition(delimiter) if delimiter else (0, '', 0)
            entries[prefix + first + mark if mark else name] = None if mark else stored
        names = [name for name in sorted(entries) if name > token]
        most = min(int(options.get('maxResults') or self._page), self._page)
        value: dict[str, Any] = {'kind': 'storage#objects'}
        page = names[:most]
        items = [_resource(target.bucket, n, entries[n]) for n in page if entries[n]]
        prefixes = [name for name in page if entries[name] is None]
        value |= {'items': items} if items else {}
        value |= {'prefixes': prefixes} if prefixes else {}
        value |= {'nextPageToken': page[-1]} if len(names) > most else {}
        return _json(value)

    def _info(self, target, headers, body) -> Answer:
        stored = self._existing(target)
        return _json(_resource(target.bucket, target.name, stored))

    def _read(self, target, headers, body) -> Answer:
        stored = self._existing(target)
        content, status, extra = stored.content, 200, {}
        if wanted := headers.get('Range'):
            first, last = _range(wanted, len(content))
            extra['Content-Range'] = f'bytes {first}-{last}/{len(content)}'
            content, status = content[first : last + 1], 206
        resource = _resource(target.bucket, target.name, stored)
        return (
            status,
            extra
            | {
                'Content-Type': stored.content_type,
                'ETag': resource['etag'],
                'X-Goog-Generation': resource['generation'],
                'X-Goog-Metageneration': '1',
                'X-Goog-Stored-Content-Length': resource['size'],
                'X-Goog-Hash': f'crc32c={resource["crc32c"]},md5={resource["md5Hash"]}',
            },
            content,
        )

    def _write(self, target, headers, body) -> Answer:
        content, content_type = body, headers.get('Content-Type', '')
        name = target.name
        if target.options.get('uploadType') == 'multipart':
            description, content, content_type = _parts(content_type, body)
            name = description.get('name', name)
        stored = self._store(
            target.bucket, name, content, options=target.options, content_type=content_type
        )
        return _json(_resource(target.bucket, name, stored))

    def _start(self, target, headers, body) -> Answer:
        name = target.name or json.loads(body or b'{}').get('name', '')
        self._check(target.bucket, name, target.options)
        number = f'u{next(self._numbers)}'
        kind = headers.get('X-Upload-Content-Type', 'application/octet-stream')
        self.uploads[number] = Upload(target.bucket, name, dict(target.options), kind)
        place = f'/upload/storage/v1/b/{target.bucket}/o?uploadType=resumable&upload_id={number}'
        return 200, {'Location': place}, b''

    def _chunk(self, target, headers, body) -> Answer:
        number = target.options['upload_id']
        if number not in self.uploads:
            raise ApiError(410, 'the upload was cancelled, or never began')
        upload = self.uploads[number]
        if upload.stored:  # its answer was lost
            return _json(_resource(upload.bucket, upload.name, upload.stored))
        match = re.fullmatch(r'bytes (?:(\d+)-\d+|\*)/(\d+|\*)', headers.get('Content-Range', ''))
        if not match:
            raise ApiError(400, 'Content-Range is missing')
        if body:
            if int(match[1]) > len(upload.content):
                raise ApiError(503, 'a chunk is missing')
            # What is there already is sent again after an answer that was lost.
            upload.content += body[len(upload.content) - int(match[1]) :]
        if match[2] != '*' and len(upload.content) == int(match[2]):
            upload.stored = self._store(
                upload.bucket,
                upload.name,
                upload.content,
                options=upload.options,
                content_type=upload.content_type,
            )
            return _json(_resource(upload.bucket, upload.name, upload.stored))
        if len(body) % CHUNK:
            raise ApiError(400, f'a chunk of {len(body)} bytes is no multiple of {CHUNK}')
        last = {'Range': f'bytes=0-{len(upload.content) - 1}'} if upload.content else {}
        return 308, last, b''

    def _cancel(self, target, headers, body) -> Answer:
        self.uploads.pop(target.options['upload_id'], None)
        return 499, {}, b''

    def _delete(self, target, headers, body) -> Answer:
        self._existing(target)
        del self.buckets[target.bucket][target.name]
        return 204, {}, b''

    def _copy(self, target, headers, body) -> Answer:
        bucket, _, name = target.source.partition('/')
        if name not in self.buckets.get(bucket, {}):
            raise ApiError(404, f'No such object: {target.source}')
        source = self.buckets[bucket][name]
        stored = self._store(
            target.bucket,
            target.name,
            source.content,
            options=target.options,
            content_type=source.content_type,
        )
        resource = _resource(target.bucket, target.name, stored)
        return _json({'kind': 'storage#rewriteResponse', 'done': True, 'resource': resource})

    def _existing(self, target) -> Stored:
        stored = self.buckets[target.bucket].get(target.name)
        wanted = target.options.get('generation')
        if stored is None or (wanted and int(wanted) != stored.generation):
            raise ApiError(404, f'No such object: {target.bucket}/{target.name}')
        self._check(target.bucket, target.name, target.options)
        return stored

    def _check(self, bucket: str, name: str, options: Mapping[str, str]) -> None:
        stored = self.buckets[bucket].get(name)
        generation = stored.generation if stored else 0
        wanted, unwanted = options.get('ifGenerationMatch'), options.get('ifGenerationNotMatch')
        if wanted is not None and int(wanted) != generation:
            raise ApiError(412, 'At least one of the pre-conditions you specified did not hold.')
        if unwanted is not None and int(unwanted) == generation:
            raise ApiError(304, 'the object has not changed')

    def _store(
        self, bucket: str, name: str, content: bytes, *, options, content_type='', limited=True
    ) -> Stored:
        self._check(bucket, name, options)
        before, now = self.buckets[bucket].get(name), time.monotonic()
        wait = 1 / self._writes_per_s if self._writes_per_s else 0
        if limited and before and now - before.written < wait:
            raise ApiError(429, f'The object {bucket}/{name} exceeded the rate limit for mutations')
        kind = content_type or 'application/octet-stream'
        stored = Stored(bytes(content), next(self._numbers), kind, now)
        self.buckets[bucket][name] = stored
        return stored


def _json(value: Any) -> Answer:
    return 200, {}, json.dumps(value).encode()


def _resource(bucket: str, name: str, stored: Stored) -> dict[str, str]:
    crc = google_crc32c.value(stored.content).to_bytes(4, 'big')
    stamp = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(stored.generation / 1e6))
    return {
        'kind': 'storage#object',
        'id': f'{bucket}/{name}/{stored.generation}',
        'name': name,
        'bucket': bucket,
        'generation': str(stored.generation),
        'metageneration': '1',
        'contentType': stored.content_type,
        'size': str(len(stored.content)),
        'md5Hash': base64.b64encode(hashlib.md5(stored.content).digest()).decode(),
        'crc32c': base64.b64encode(crc).decode(),
        'etag': f'"{stored.generation}"',
        'timeCreated': stamp,
        'updated': stamp,
        'storageClass': 'STANDARD',
    }


def _range(text: str, size: int) -> tuple[int, int]:
    """Returns the first and last byte of a Range header."""
    match = re.fullmatch(r'bytes=(\d*)-(\d*)', text)
    if not match or not (match[1] or match[2]):
        raise ApiError(400, f'Range: {text}')
    if not match[1]:
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if first >= size:
        raise ApiError(416, 'The requested range is not satisfiable')
    return first, last


def _parts(content_type: str, body: bytes) -> tuple[dict, bytes, str]:
    """Returns (description, content, type of the content) of a multipart upload.

    What comes before a boundary is CRLF by RFC 2046; a line feed alone is accepted too.
    """
    message = email.parser.HeaderParser(policy=email.policy.HTTP).parsestr(
        f'Content-Type: {content_type}\n\n'
    )
    mark = b'--' + message.get_boundary().encode()
    _, description, rest = body.split(mark, 2)
    content, _, end = rest.rpartition(mark)
    if not body.rstrip().endswith(mark + b'--') or not end.startswith(b'--'):
        raise ApiError(400, 'Invalid multipart request: it has no end')
    return (
        json.loads(_after_headers(description)[1]),
        re.sub(rb'\r?\n\Z', b'', _after_headers(content)[1]),
        _after_headers(content)[0].get('Content-Type', ''),
    )


def _after_headers(part: bytes) -> tuple[Mapping[str, str], bytes]:
    part = re.sub(rb'\A\r?\n', b'', part)
    head, _, content = re.split(rb'(\r?\n\r?\n)', part, maxsplit=1)
    return email.parser.HeaderParser(policy=email.policy.HTTP).parsestr(head.decode()), content
