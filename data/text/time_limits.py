"""Time limits for calls of libraries that cannot be interrupted, but release Python's lock."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

_threads: list[tuple[int, queue.SimpleQueue]] = []  # (process, tasks) of idle threads


class TimeLimitError(Exception):
    """The call has not ended in time. Its thread goes on; it does not keep the process alive."""


def within(seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
    """Returns call(*arguments), or raises what it raises, or TimeLimitError after `seconds`.

    The call runs in another thread, which is used again if it ends: threads of a pool would be
    waited for at the end of the process. It must release Python's lock while it works.
    """
    tasks = _idle_thread()
    answers: queue.SimpleQueue = queue.SimpleQueue()
    tasks.put((answers, call, arguments))
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeLimitError from None
    _threads.append((os.getpid(), tasks))
    if error is not None:
        raise error
    return result


def _idle_thread() -> queue.SimpleQueue:
    with contextlib.suppress(IndexError):
        while True:
            process, tasks = _threads.pop()
            if process == os.getpid():  # threads end where a process forks
                return tasks
    tasks = queue.SimpleQueue()
    threading.Thread(target=_work, args=(tasks,), name='time limit', daemon=True).start()
    return tasks


def _work(tasks: queue.SimpleQueue) -> None:
    while True:
        answers, call, arguments = tasks.get()
        with _Answering(answers):
            answers.put((call(*arguments), None))


class _Answering:
    """Context manager that hands an error of its body to the caller, also a panic of Rust."""

    def __init__(self, answers: queue.SimpleQueue):
        self._answers = answers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> bool:
        if error is not None:
            self._answers.put((None, error))
        return True
