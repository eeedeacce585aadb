"""A local OpenAI-compatible server that fails as it is told, and counts what it is paid for."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator

Reply = tuple[int, dict, bytes]
"""Status, headers, body."""


def completion(text: str | None, finish_reason: str = 'stop') -> Reply:
    """Returns a chat completion of 100 prompt tokens and 10 answer tokens."""
    body = {
        'id': 'x',
        'object': 'chat.completion',
        'created': 0,
        'model': 'fake',
        'choices': [
            {
                'index': 0,
                'finish_reason': finish_reason,
                'message': {'role': 'assistant', 'content': text},
            }
        ],
        'usage': {'prompt_tokens': 100, 'completion_tokens': 10, 'total_tokens': 110},
    }
    return 200, {}, json.dumps(body).encode()


def failure(status: int, **headers: str) -> Reply:
    """Returns an error; its text repeats the key, as some servers do."""
    return status, headers, b'{"error": {"message": "not with key sk-secret"}}'


class FakeApi:
    """What the server does: `respond(body, number)` returns the reply to a request.

    `number` counts the requests with this body from 0. `paid` has the bodies answered with 200.
    """

    def __init__(self, respond: Callable[[dict, int], Reply]):
        self.respond, self.lock = respond, threading.Lock()
        self.seen: list[str] = []
        self.paid: list[str] = []
        self.keys: list[str] = []
        self.starts: list[float] = []
        self.open, self.most_open = 0, 0
        self.url = ''

    def handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        text = handler.rfile.read(int(handler.headers['content-length'])).decode()
        with self.lock:
            number = self.seen.count(text)
            self.seen.append(text)
            self.keys.append(handler.headers['authorization'])
            self.starts.append(time.monotonic())
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        status, headers, body = self.respond(json.loads(text), number)
        with self.lock:  # before the client can look
            self.open -= 1
            if status == 200:
                self.paid.append(text)
        with contextlib.suppress(OSError):  # the client has gone
            handler.send_response(status)
            for name, value in {**headers, 'content-length': str(len(body))}.items():
                handler.send_header(name.replace('_', '-'), value)
            handler.send_header('content-type', 'application/json')
            handler.end_headers()
            handler.wfile.write(body)


@contextlib.contextmanager
def serve(respond: Callable[[dict, int], Reply]) -> Iterator[FakeApi]:
    """Runs a server on a free port of this machine."""
    api = FakeApi(respond)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            api.handle(self)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    api.url = f'http://127.0.0.1:{server.server_address[1]}/v1'
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
