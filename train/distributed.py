"""Multi-process (multi-host) runs: start-up, broadcasts, consistency checks and preemption.

Every process computes the same schedule from the same replicated values. Only the first process
writes files and prints. Values that could differ between processes (whether a file exists, a
verdict under a time limit) are computed by the first process and broadcast.
"""

import json
import os
import socket
import sys
import zlib
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from elenchus.data.files import atomic
from elenchus.train import preemption

T = TypeVar('T')

_INLINE_BYTES = 1 << 10  # longest message that is broadcast in a single collective


def initialize(*, coordinator: str, num_processes: int, process_id: int, detect: bool) -> None:
    """Joins the other processes of the job; call it before any array is created.

    With a `coordinator` (host:port) the three values are used. With `detect`, or in a SLURM step of
    several tasks or a TPU slice of several hosts, JAX detects the cluster. Otherwise the process
    runs alone. Raises ValueError if process_id is out of range.
    """
    if coordinator:
        if not 0 <= process_id < num_processes:
            raise ValueError(
                f'--process_id={process_id} must be in [0, {num_processes}), --num_processes; '
                f'nearest: {min(max(process_id, 0), max(num_processes - 1, 0))}'
            )
        _join(coordinator, num_processes, process_id)
    elif detect or _in_a_cluster():
        _join()
    else:
        preemption.requests.listen()
    atomic.allow_writing(is_first_process())
    if not is_first_process():
        sys.stdout = open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115 (until the end)


def _in_a_cluster() -> bool:
    tasks = int(os.environ.get('SLURM_STEP_NUM_TASKS', '1'))
    return tasks > 1 or ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')


def _join(*where: str | int) -> None:
    # JAX's own handler hears one SIGTERM, and never the second one that is to end a process.
    jax.config.update('jax_enable_preemption_service', False)
    preemption.requests.listen()  # before the wait for the other processes
    jax.distributed.initialize(*where)
    preemption.requests.join()


def is_first_process() -> bool:
    """Returns True on the one process that writes files and prints."""
    return jax.process_index() == 0


def leave_if_preempted() -> None:
    """Raises Interrupted if any process has been asked to stop; call it as `is_requested`.

    For places where what is being made may be left out: the resumed run makes it again.
    """
    if preemption.requests.is_requested():
        raise preemption.Interrupted()


def leave_if_heard() -> None:
    """Raises Interrupted if this process, which decides for all, knows of a request to stop.

    It decides alone, or within `run_on_first`; the other processes receive its exception.
    """
    if preemption.requests.is_heard() and (jax.process_count() == 1 or _decides_for_all[0]):
        raise preemption.Interrupted()


_decides_for_all = [False]  # a list, so that `run_on_first` needs no `global` statement


def run_on_first(make: Callable[[], T]) -> T:
    """Runs make() on the first process and returns its value, plain JSON, on all processes.

    All processes wait for it. Whatever make() raises is raised on all of them, so that no process
    waits for one that has failed: a ValueError or OSError as such, any other exception on the other
    processes as a RuntimeError with its type and message. An Interrupted makes all leave.
    """
    if jax.process_count() == 1:
        return make()
    if not is_first_process():
        reply = json.loads(_broadcast(b''))
        if reply.get('kind') == 'interrupted':
            raise preemption.Interrupted()
        if 'error' in reply:
            raise _RAISED[reply['kind']](reply['error'])
        return reply['value']
    with _ErrorBroadcast():
        _decides_for_all[0] = True
        try:
            value = make()
        finally:
            _decides_for_all[0] = False
        message = json.dumps({'value': value}).encode()
    _broadcast(message)
    return value


_RAISED = {'ValueError': ValueError, 'OSError': OSError, 'other': RuntimeError}


class _ErrorBroadcast:
    """Context manager that broadcasts an exception of its body, and lets it propagate."""

    def __enter__(self):
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        if error is None:
            return
        if isinstance(error, preemption.Interrupted):
            reply = {'kind': 'interrupted'}
        elif isinstance(error, ValueError | OSError):
            name = 'OSError' if isinstance(error, OSError) else 'ValueError'
            reply = {'kind': name, 'error': str(error)}
        else:
            text = f'the first process failed with {kind.__name__}: {error}'
            reply = {'kind': 'other', 'error': text}
        _broadcast(json.dumps(reply).encode())


def barrier() -> None:
    """Waits until every process has arrived here."""
    run_on_first(lambda: None)


def _broadcast(message: bytes) -> bytes:
    """Broadcasts the first process's message.

    A collective needs the same shape everywhere, but only the first process knows the length: the
    length goes first, with up to _INLINE_BYTES of content; longer messages follow in a buffer whose
    size is a power of two, which limits the number of shapes to compile.
    """
    head = np.zeros(8 + _INLINE_BYTES, np.uint8)
    head[:8] = np.frombuffer(np.uint64(len(message)).tobytes(), np.uint8)
    fits = len(message) <= _INLINE_BYTES
    if fits:
        head[8 : 8 + len(message)] = np.frombuffer(message, np.uint8)
    head = np.asarray(multihost_utils.broadcast_one_to_all(head))
    size = int(np.frombuffer(head[:8].tobytes(), np.uint64)[0])
    if size <= _INLINE_BYTES:
        return head[8 : 8 + size].tobytes()
    body = np.zeros(1 << (size - 1).bit_length(), np.uint8)
    body[: len(message)] = np.frombuffer(message, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(body))[:size].tobytes()


def fingerprint(tree) -> int:
    """Returns a checksum below 2 ** 32 of all bits of a tree; independent of its sharding."""
    # One jitted call may not mix arrays of different device sets, so each set is summed apart.
    groups: dict[frozenset, dict[int, jax.Array]] = {}
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        devices = leaf.sharding.device_set if isinstance(leaf, jax.Array) else ()
        groups.setdefault(frozenset(devices), {})[i] = leaf
    return sum(int(sum_bits(leaves)) for leaves in groups.values()) % 2**32


@jax.jit
def sum_bits(leaves: dict[int, jax.Array]) -> jax.Array:
    """Returns sum_j bits_j * odd_j mod 2 ** 32 over all elements j, a uint32 scalar.

    The factor of an element is an odd number that depends on its leaf and position, so permuted
    values change the sum. Every device sums its own copy: copies that differ give different sums.
    """
    total = jax.numpy.uint32(0)
    for i, leaf in leaves.items():
        bits = _bits(leaf)
        factor = jax.numpy.uint32(pow(1_000_003, i + 1, 2**32))
        for dim in range(bits.ndim):
            index = jax.lax.broadcasted_iota('uint32', bits.shape, dim)
            factor = factor * jax.numpy.uint32(31) + jax.numpy.uint32(2) * index
        total = total + (bits * factor).sum(dtype='uint32')
    return total


def _bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == bool:
        return leaf.astype('uint32')
    bits = jax.lax.bitcast_convert_type(leaf, f'uint{8 * min(leaf.dtype.itemsize, 4)}')
    return bits.astype('uint32')


def _digest(value: jax.Array | bytes) -> int:
    """Checksum of bytes, or of this process's copies of a replicated scalar."""
    if isinstance(value, bytes):
        return zlib.crc32(value)
    copies = sorted({int(shard.data) for shard in value.addressable_shards})
    return copies[0] if len(copies) == 1 else zlib.crc32(repr(copies).encode())


def check_same(what: str, value: jax.Array | bytes) -> None:
    """Raises RuntimeError that names each process, and its host, with a value of its own."""
    if jax.process_count() == 1:
        return
    digests = np.asarray(multihost_utils.process_allgather(np.uint32(_digest(value)))).ravel()
    values, counts = np.unique(digests, return_counts=True)
    if len(values) == 1:
        return
    common = values[counts == counts.max()]
    # In a tie (two processes) the first process counts as right.
    majority = digests[0] if digests[0] in common else common[0]
    name = np.zeros(64, np.uint8)
    host = socket.gethostname().encode()[:64]
    name[: len(host)] = np.frombuffer(host, np.uint8)
    names = np.asarray(multihost_utils.process_allgather(name)).reshape(-1, 64)
    outliers = ', '.join(
        f'process {i} on {names[i].tobytes().rstrip(bytes(1)).decode()}'
        for i in np.flatnonzero(digests != majority)
    )
    raise RuntimeError(
        f'{what}: {outliers} of {len(digests)} processes disagree with the majority; '
        'discard everything after the last checkpoint and continue from it'
    )
