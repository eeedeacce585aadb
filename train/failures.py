"""Makes a failure of one process end the others within seconds, with its message.

A process that fails between two collectives leaves the others waiting in the next one, where no
exception can be raised, until a heartbeat or a time limit of the network ends them. So a failing
process leaves its message in the key-value store of JAX's coordination service, and a thread of
every other process waits for one.
"""

import os
import sys
import threading

import jax
from jax._src import distributed as jax_distributed

from elenchus.data.text.printable import printable
from elenchus.train.early_end import early_end

_KEY = 'elenchus/failure'
_GRACE_S = 3.0  # an exception that all processes share ends each of them with its own line
_SHUTDOWN_S = 10.0
_POLL_S = 0.5


class FailuresReachAll:
    """Context manager around the work of a process; does nothing if it is the only one.

    If an exception leaves it, the other processes are told type and message of it: those that do
    not end by themselves within seconds print the message and exit with code 1. SystemExit, the end
    that preemption chooses for all processes, is no failure.
    """

    def __init__(self):
        self._ended, self._watcher = threading.Event(), None

    def __enter__(self) -> 'FailuresReachAll':
        if jax.process_count() > 1:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        early_end.wait_if_ending()
        self._ended.set()
        if self._watcher is None:
            return
        self._watcher.join()  # a thread inside the client would abort the end of the process
        if error is None or isinstance(error, SystemExit):
            return
        name = 'the first process' if jax.process_index() == 0 else f'process {jax.process_index()}'
        text = ' '.join(f'{name} failed with {kind.__name__}: {error}'.split())
        _client().key_value_set(_KEY, text, allow_overwrite=True)

    def _watch(self) -> None:
        """Waits for a message; ends the process if its work has not ended soon after it."""
        text = None
        while text is None:
            if self._ended.wait(_POLL_S):
                return
            text = _message()
        if self._ended.wait(_GRACE_S):
            return
        print('error:', printable(text), file=sys.stderr, flush=True)
        # Takes part in the shutdown, for which the failed process waits.
        closing = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        closing.start()
        closing.join(_SHUTDOWN_S)
        os._exit(1)


def _message() -> str | None:
    try:
        return _client().key_value_try_get(_KEY)
    except jax.errors.JaxRuntimeError:  # there is none
        return None


def _client():
    return jax_distributed.global_state.client
