"""A local server that speaks Google Cloud Storage's JSON API, with faults on demand.

    python -m tests.support.fake_gcs --port=9023
    eval "$(python -m tests.support.fake_gcs --port=9023 --environment)"

It is what three clients of a run need: gcsfs (`epath`, leases), TensorStore's `gcs` driver (arrays
of checkpoints) and google-cloud-storage (Orbax asks it for the kind of bucket). `environment` has
the variables that send them here. Semantics are those of the documents: an object is replaced as a
whole, there is no rename, lists are consistent, every write has a new generation, preconditions
answer 412, an object is written about once a second at most (`writes_per_s`), and an upload whose
connection ends leaves nothing. cloud.google.com/storage/docs/json_api/v1, .../docs/consistency,
.../docs/request-preconditions, .../quotas.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import http.server
import json
import re
import socket
import struct
import sys
import threading
import time
import types
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.gcs_objects import ApiError, Objects, Upload

MESSAGES = {
    401: 'Invalid Credentials',
    403: 'the service account does not have storage.objects.create access',
    408: 'Request Timeout',
    412: 'At least one of the pre-conditions you specified did not hold.',
    429: 'The object exceeded the rate limit for object mutation operations.',
    503: 'We encountered an internal error. Please try again.',
}


@dataclasses.dataclass
class Fault:
    """What happens to the requests whose label, `OPERATION BUCKET/NAME`, has a match.

    Operations are bucket, layout, list, info, read, write, start, chunk, cancel, delete and copy.
    Kinds: `status` answers with `status`; `reset` drops the connection in the middle of the body;
    `lost` does what is asked and drops the connection instead of an answer; `cut` ends a body in
    its middle; `slow` waits `seconds` first.
    """

    match: str
    kind: str = 'status'
    status: int = 503
    times: float = 1  # float('inf'): always
    skip: int = 0  # requests that pass before the first
    seconds: float = 0.0
    seen: int = 0

    def strikes(self, label: str) -> bool:
        """Returns True if this request has the fault; counts the requests."""
        if not re.search(self.match, label):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


@dataclasses.dataclass(frozen=True)
class Request:
    """One request that the server has had."""

    label: str
    status: int  # 0: the connection was dropped
    received: int  # bytes of bodies
    sent: int
    agent: str


class FakeGcs:
    """A server in threads of this process; a context manager."""

    def __init__(self, *buckets: str, port: int = 0, writes_per_s: float = 0, page: int = 1000):
        self.objects = Objects(*buckets, writes_per_s=writes_per_s, page=page)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self._server = _Server(('127.0.0.1', port), _Handler)
        self._server.fake = self
        self.url = f'http://127.0.0.1:{self._server.server_address[1]}'

    def __enter__(self) -> 'FakeGcs':
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send all clients here, without credentials or a look for them."""
        return {
            'STORAGE_EMULATOR_HOST': self.url,
            'TENSORSTORE_GCS_HTTP_URL': self.url,
            'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'fake',
            'NO_GCE_CHECK': 'true',
            # Kinds of buckets with folders are asked for over gRPC, which this server has not.
            'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
        }

    def fail(self, match: str, kind: str = 'status', **options) -> Fault:
        """Adds a fault; returns it."""
        fault = Fault(match, kind, **options)
        with self.lock:
            self.faults.append(fault)
        return fault

    def strike(self, label: str) -> Fault | None:
        """Returns the first fault that a request has."""
        with self.lock:
            return next((fault for fault in self.faults if fault.strikes(label)), None)


@functools.cache
def shared() -> FakeGcs:
    """Returns the server of this process: TensorStore reads the address once."""
    return FakeGcs('bucket').__enter__()


@contextlib.contextmanager
def in_this_process(page: int = 1000) -> Iterator[FakeGcs]:
    """Sends the clients of this process to an empty bucket; they repeat without waiting."""
    fake, sleep = shared(), asyncio.sleep
    fake.objects, fake.requests, fake.faults = Objects('bucket', page=page), [], []

    async def short_sleep(seconds: float, *rest) -> None:
        await sleep(min(seconds, 0.01), *rest)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake.environment.items():
            patch.setenv(name, value)
        from gcsfs import retry

        patch.setattr(retry, 'asyncio', types.SimpleNamespace(sleep=short_sleep))
        for kind in gcsfs_classes():
            patch.setattr(kind, '_get_bucket_type', _plain_bucket, raising=False)
        yield fake


def gcsfs_classes() -> list[type]:
    """Returns the class that asks over gRPC for the kind of a bucket, if gcsfs has been read so."""
    module = sys.modules.get('gcsfs.extended_gcsfs')
    return [module.ExtendedGcsFileSystem] if module else []


async def _plain_bucket(self, bucket: str):
    return sys.modules['gcsfs.extended_gcsfs'].BucketType.NON_HIERARCHICAL


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeGcs

    def handle_error(self, *_) -> None:
        """Says nothing about clients that end."""


class _Dropped(Exception):
    """The connection is to be dropped without an answer."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, *_) -> None:
        """Prints nothing."""

    def do_GET(self) -> None:  # noqa: N802 (the name is http.server's)
        """Answers any request."""
        fake = self.server.fake
        label, status, self._received, self._sent = '?', 0, 0, 0
        try:
            head = self._read(2048)
            target = target_of(self.command, self.path, head, fake.objects.uploads)
            label = target.label
            fault = fake.strike(label)
            status = self._answer(target, fault, head)
        except (_Dropped, ConnectionError):
            status = 0
            self._drop()
        request = Request(
            label, status, self._received, self._sent, self.headers.get('User-Agent', '')
        )
        with fake.lock:
            fake.requests.append(request)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _read(self, most: int | None = None) -> bytes:
        size = int(self.headers.get('Content-Length') or 0) - self._received
        content = self.rfile.read(size if most is None else min(size, most))
        self._received += len(content)
        return content

    def _answer(self, target: 'Target', fault: Fault | None, head: bytes) -> int:
        kind = fault.kind if fault else ''
        if kind == 'reset':
            raise _Dropped
        body = head + self._read()
        if len(body) < int(self.headers.get('Content-Length') or 0):
            raise _Dropped  # the client is gone: half an object is no object
        if kind == 'slow':
            self.server.fake.ended.wait(fault.seconds)
        if kind == 'status':
            return self._send_error(fault.status, MESSAGES.get(fault.status, 'Backend Error'))
        try:
            status, headers, content = self.server.fake.objects.answer(
                target.operation, target, headers=self.headers, body=body
            )
        except ApiError as error:
            return self._send_error(error.status, str(error))
        if kind == 'lost':
            raise _Dropped
        return self._send(status, headers, content, cut=kind == 'cut')

    def _send_error(self, status: int, message: str) -> int:
        reason = {'reason': 'fake', 'message': message}
        error = {'code': status, 'message': message, 'errors': [reason]}
        return self._send(status, {}, json.dumps({'error': error}).encode(), cut=False)

    def _send(self, status: int, headers: dict, content: bytes, *, cut: bool) -> int:
        self.send_response(status)
        for name, value in ({'Content-Type': 'application/json'} | headers).items():
            location = value.startswith('/') and name == 'Location'
            self.send_header(name, self.server.fake.url + value if location else value)
        if status in (204, 304):  # no client reads a body of these
            content = b''
        else:
            self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        content = content[: len(content) // 2] if cut else content
        self.wfile.write(content)
        self._sent += len(content)
        if cut:
            self.wfile.flush()
            raise _Dropped
        return status

    def _drop(self) -> None:
        """Ends the connection with a reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.connection.close()


@dataclasses.dataclass(frozen=True)
class Target:
    """What a request is about."""

    operation: str
    bucket: str
    name: str
    options: dict[str, str]
    source: str = ''  # of copies: BUCKET/NAME

    @property
    def label(self) -> str:
        """The text that faults are compared with."""
        return f'{self.operation} {self.bucket}/{self.name}'


_PATH = re.compile(
    r'(?P<upload>/upload|/resumable/upload)?(?:/download)?/storage/v1/b(?:/(?P<bucket>[^/]+))?'
    r'(?P<rest>/o(?:/(?P<name>[^/]+))?)?(?P<layout>/storageLayout)?'
    r'(?:/(?P<copy>copyTo|rewriteTo)/b/(?P<bucket2>[^/]+)/o/(?P<name2>[^/]+))?'
)
_NAME = re.compile(rb'"name": ?("(?:[^"\\]|\\.)*")')


def target_of(method: str, path: str, head: bytes, uploads: Mapping[str, Upload]) -> Target:
    """Returns what a request is about, from its first line and the first bytes of its body."""
    path, _, query = path.partition('?')
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    match = _PATH.fullmatch(path)
    if not match:
        return Target('unknown', path, '', options)
    part = {key: urllib.parse.unquote(value or '') for key, value in match.groupdict().items()}
    bucket, name = part['bucket'], part['name'] or options.get('name', '')
    if part['copy']:
        return Target('copy', part['bucket2'], part['name2'], options, f'{bucket}/{name}')
    if part['upload']:
        if not name and (found := _NAME.search(head)):
            name = json.loads(found[1])
        if upload := uploads.get(options.get('upload_id', '')):
            name = upload.name
        return Target(_upload(method, options), bucket, name, options)
    if part['layout'] or not part['rest']:
        kind = 'layout' if part['layout'] else 'bucket' if method == 'GET' else 'create'
        return Target(kind, bucket, '', options)
    if not name:
        return Target('list', bucket, options.get('prefix', ''), options)
    kinds: dict[str, Any] = {'DELETE': 'delete', 'PATCH': 'patch', 'GET': 'info'}
    is_read = options.get('alt') == 'media' and method == 'GET'
    return Target('read' if is_read else kinds.get(method, 'unknown'), bucket, name, options)


def _upload(method: str, options: dict[str, str]) -> str:
    if 'upload_id' in options:
        return 'cancel' if method == 'DELETE' else 'chunk'
    return 'start' if options.get('uploadType') == 'resumable' else 'write'


def main() -> None:
    """Serves until interrupted, or prints the variables for a shell."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--port', type=int, default=9023)
    parser.add_argument('--bucket', action='append', default=[])
    parser.add_argument('--environment', action='store_true', help='print the variables and end')
    flags = parser.parse_args()
    if flags.environment:
        fake = FakeGcs(port=0)
        fake.url = f'http://127.0.0.1:{flags.port}'
        print('\n'.join(f'export {name}={value}' for name, value in fake.environment.items()))
        return
    with FakeGcs(*flags.bucket or ['bucket'], port=flags.port) as fake:
        print(fake.url, flush=True)
        while True:
            time.sleep(3600)


if __name__ == '__main__':
    main()
