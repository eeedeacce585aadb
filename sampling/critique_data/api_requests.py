"""Requests to an OpenAI-compatible server: retried, limited in rate, cached, and counted.

An answer is stored before it is used, in a file that its request names. So a run that was killed
pays for no request twice, and equal requests are one.
"""

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from elenchus.sampling.critique_data.api_settings import ApiSettings

Messages = Sequence[Mapping[str, str]]
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Status codes of a server that may serve the same request later."""

MAX_WAIT_S = 120.0
_NAMES = f'{"[0-9a-f]" * 64}.json'  # of stored answers; the folder may have other files


class ApiError(OSError):
    """The server cannot be used; the message is one line, without the key."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server answered; `text` is None where it refused the request, or wrote nothing."""

    text: str | None
    finish_reason: str | None  # 'length': it was cut off
    prompt_tokens: int
    answer_tokens: int


def read_key(settings: ApiSettings) -> str:
    """Returns the key from the environment. Raises ValueError that names the variable."""
    if importlib.util.find_spec('openai') is None:
        raise ValueError(
            "critique.annotator='api' needs the package openai: pip install 'elenchus[api]'"
        )
    key = os.environ.get(settings.key_variable, '').strip()
    if not key:
        raise ValueError(
            f'the environment variable {settings.key_variable} is not set: '
            'critique.api.key_variable names the one that has the key of critique.api.base_url'
        )
    return key


class Client:
    """Asks a server, at most `parallel` requests at a time; every answer is stored."""

    def __init__(
        self,
        settings: ApiSettings,
        folder: pathlib.Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Opens no connection yet. Raises ValueError without a key or the package openai."""
        key = read_key(settings)
        import openai  # an extra: only this annotator needs it

        self.settings, self.folder, self.openai = settings, epath.Path(folder), openai
        self.server = openai.OpenAI(
            api_key=key, base_url=settings.base_url, timeout=settings.timeout_s, max_retries=0
        )
        self.sleep, self.lock, self.next_start = sleep, threading.Lock(), 0.0
        self.stopped = threading.Event()  # the server cannot be used
        self.paid = 0  # requests that this client sent and the server answered

    def ask(self, requests: Sequence[Messages]) -> list[Answer]:
        """Returns the answers in the order of the requests; stored ones cost nothing.

        Raises ApiError if the server cannot be used; answers so far are stored.
        """
        bodies = {self._name(messages): self._body(messages) for messages in requests}
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in bodies if not self._path(name).exists()]
        self.stopped.clear()
        pool = concurrent.futures.ThreadPoolExecutor(self.settings.parallel)
        try:
            futures = [pool.submit(self._fetch, name, bodies[name]) for name in missing]
            for future in concurrent.futures.as_completed(futures):
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return [self._stored(self._name(messages)) for messages in requests]

    def usage(self) -> dict[str, float]:
        """Returns requests, tokens and cost of all answers in the folder, at the set prices."""
        answers = [self._stored(path.stem) for path in sorted(self.folder.glob(_NAMES))]
        prompt = sum(answer.prompt_tokens for answer in answers)
        written = sum(answer.answer_tokens for answer in answers)
        s = self.settings
        cost = (prompt * s.prompt_price + written * s.answer_price) / 1e6
        return {
            'requests': len(answers),
            'prompt_tokens': prompt,
            'answer_tokens': written,
            'cost': round(cost, 6),
        }

    def _body(self, messages: Messages) -> dict[str, Any]:
        s = self.settings
        return {
            'model': s.model,
            'messages': [dict(message) for message in messages],
            'temperature': s.temperature,
            'max_tokens': s.max_tokens,
        }

    def _name(self, messages: Messages) -> str:
        """Returns the name of a request: what it asks, and whom, but not with which key."""
        request = {'server': self.settings.base_url, **self._body(messages)}
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def _path(self, name: str) -> pathlib.Path:
        return self.folder / f'{name}.json'

    def _stored(self, name: str) -> Answer:
        path = self._path(name)
        try:
            return Answer(**json.loads(path.read_text(encoding='utf-8'))['answer'])
        except (ValueError, LookupError, TypeError):
            raise ValueError(f'{path} is no stored answer: delete it, to ask again') from None

    def _fetch(self, name: str, body: Mapping[str, Any]) -> None:
        """Asks the server and stores its answer, beside its final name and renamed."""
        if self.stopped.is_set():
            return
        try:
            answer = self._request(body)
        except ApiError:
            self.stopped.set()
            raise
        record = {'request': body, 'answer': dataclasses.asdict(answer)}
        part = self.folder / f'{name}.{uuid.uuid4().hex}.part'
        part.write_text(json.dumps(record, ensure_ascii=False), encoding='utf-8')
        part.replace(self._path(name))
        with self.lock:
            self.paid += 1

    def _request(self, body: Mapping[str, Any]) -> Answer:
        reason, wait = '', None
        for attempt in range(self.settings.attempts):
            if attempt:
                self.sleep(self._backoff(attempt, wait=wait))
            wait = None
            self._wait_for_turn()
            try:
                return _read(self.server.chat.completions.create(**body))
            except self.openai.APIStatusError as error:
                reason = f'status {error.status_code}'
                if error.status_code in (400, 413, 422):
                    return Answer(None, f'refused: {reason}', 0, 0)
                if error.status_code not in RETRIED:
                    break
                wait = error.response.headers.get('retry-after')
            except self.openai.APITimeoutError:
                reason = f'no answer within critique.api.timeout_s={self.settings.timeout_s:g}'
            except self.openai.APIConnectionError:
                reason = 'no connection'
            except (self.openai.APIResponseValidationError, ValueError, _UnreadableError):
                reason = 'an answer that is no chat completion'
        raise ApiError(
            f'critique.api.base_url={self.settings.base_url!r}, model {self.settings.model!r}: '
            f'{reason}, after {attempt + 1} attempts; the same command continues later'
        )

    def _backoff(self, attempt: int, *, wait: str | None) -> float:
        """Returns the seconds before an attempt: those that the server names, else doubled ones.

        A random part keeps parallel requests from coming back together.
        """
        try:
            named = max(float(wait or 0), 0.0)
        except ValueError:  # a date
            named = 0.0
        doubled = self.settings.backoff_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
        return min(max(named, doubled), MAX_WAIT_S)

    def _wait_for_turn(self) -> None:
        """Waits until the rate allows one more request."""
        interval = 60.0 / self.settings.requests_per_minute
        with self.lock:
            start = max(self.next_start, time.monotonic())
            self.next_start = start + interval
        if (delay := start - time.monotonic()) > 0:
            self.sleep(delay)


class _UnreadableError(Exception):
    """A server's answer without what a chat completion has."""


def _read(completion: Any) -> Answer:
    """Returns the answer in a chat completion. Raises _UnreadableError if it is none."""
    choices = getattr(completion, 'choices', None)
    first = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(first, 'message', None)
    text = getattr(message, 'content', None)
    finish_reason = getattr(first, 'finish_reason', None)
    # No content is an answer too: reasoning took all tokens, or a filter removed the text.
    is_bare = message is not None and text is None and isinstance(finish_reason, str)
    if not isinstance(text, str) and not is_bare:
        raise _UnreadableError
    usage = getattr(completion, 'usage', None)
    return Answer(
        text,
        finish_reason,
        getattr(usage, 'prompt_tokens', None) or 0,
        getattr(usage, 'completion_tokens', None) or 0,
    )
