"""Several processes as one program: who writes, what all agree on, when all of them leave.

Every process computes the same schedule from the same replicated values. Only the first writes
files and talks; what it alone can know (a file that is there, a verdict under a time limit) it
tells the others.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from elenchus.data.files import atomic

T = TypeVar('T')

LEFT = 75  # exit code after a preemption notice: EX_TEMPFAIL, the same command continues
_SHORT = 1 << 10  # bytes of a message that is sent in one piece

_told = threading.Event()
_asked = itertools.count()


class Preempted(SystemExit):
    """Everything is saved and the process ends with code 75."""

    def __init__(self, where: str):
        super().__init__(LEFT)
        print(f'asked to leave: {where}; the same command continues', file=sys.stderr)


def initialize(*, coordinator: str, num_processes: int, process_id: int, detect: bool) -> None:
    """Joins the other processes of the job; to be called before any array is made.

    By the three values where `coordinator` is given; by what JAX finds out about the cluster where
    `detect` is set or the environment is a SLURM step of several tasks or a TPU slice of several
    hosts; else the process is alone. Raises ValueError where the three values make no sense.
    """
    if coordinator:
        if not 0 <= process_id < num_processes:
            raise ValueError(
                f'--process_id={process_id} must be in [0, {num_processes}), --num_processes; '
                f'nearest: {min(max(process_id, 0), max(num_processes - 1, 0))}'
            )
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif detect or _in_a_cluster():
        jax.distributed.initialize()
    else:
        with contextlib.suppress(ValueError):  # only the main thread may; there is none elsewhere
            signal.signal(signal.SIGTERM, _on_notice)
    atomic.allow_writing(first())
    if not first():
        sys.stdout = open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115 (until the end)


def _in_a_cluster() -> bool:
    tasks = int(os.environ.get('SLURM_STEP_NUM_TASKS', '1'))
    return tasks > 1 or ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')


def _on_notice(number: int, frame) -> None:
    _told.set()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who insists is obeyed at once


def first() -> bool:
    """Whether this process writes and talks."""
    return jax.process_index() == 0


def leaving() -> bool:
    """Whether it is time to save and leave: a process was sent SIGTERM.

    All processes call this equally often, and all learn it at the same call.
    """
    if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_asked)):
        _told.set()
    return _told.is_set()


def from_first(make: Callable[[], T]) -> T:
    """make() of the first process, on all of them; the value is plain JSON.

    All processes wait for it. Its ValueError or OSError is everyone's.
    """
    if jax.process_count() == 1:
        return make()
    if not first():
        told = json.loads(_broadcast(b''))
        if 'error' in told:
            kind = OSError if told['of_system'] else ValueError
            raise kind(told['error'])
        return told['value']
    try:
        value = make()
    except (ValueError, OSError) as error:
        told = {'error': str(error), 'of_system': isinstance(error, OSError)}
        _broadcast(json.dumps(told).encode())
        raise
    _broadcast(json.dumps({'value': value}).encode())
    return value


def barrier() -> None:
    """Waits until every process is here."""
    from_first(lambda: None)


def _broadcast(message: bytes) -> bytes:
    """The first process's message, in a piece of fixed size and, if longer, a power of two."""
    head = np.zeros(8 + _SHORT, np.uint8)
    head[:8] = np.frombuffer(np.uint64(len(message)).tobytes(), np.uint8)
    fits = len(message) <= _SHORT
    if fits:
        head[8 : 8 + len(message)] = np.frombuffer(message, np.uint8)
    head = np.asarray(multihost_utils.broadcast_one_to_all(head))
    size = int(np.frombuffer(head[:8].tobytes(), np.uint64)[0])
    if size <= _SHORT:
        return head[8 : 8 + size].tobytes()
    body = np.zeros(1 << (size - 1).bit_length(), np.uint8)
    body[: len(message)] = np.frombuffer(message, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(body))[:size].tobytes()


def fingerprint(tree) -> int:
    """A number below 2 ** 32 that almost any change of a bit changes, whatever the sharding."""
    groups: dict[frozenset, dict[int, jax.Array]] = {}
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        devices = leaf.sharding.device_set if isinstance(leaf, jax.Array) else ()
        groups.setdefault(frozenset(devices), {})[i] = leaf
    return sum(int(sum_bits(leaves)) for leaves in groups.values()) % 2**32


@jax.jit
def sum_bits(leaves: dict[int, jax.Array]) -> jax.Array:
    """The uint32 sum of all arrays' bits, each element times its odd number, modulo 2 ** 32.

    Each device adds up the copy that it has, so that copies which differ give different sums.
    """
    total = jax.numpy.uint32(0)
    for i, leaf in leaves.items():
        bits = _bits(leaf)
        at = jax.numpy.uint32(pow(1_000_003, i + 1, 2**32))
        for dim in range(bits.ndim):
            index = jax.lax.broadcasted_iota('uint32', bits.shape, dim)
            at = at * jax.numpy.uint32(31) + jax.numpy.uint32(2) * index
        total = total + (bits * at).sum(dtype='uint32')
    return total


def _bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == bool:
        return leaf.astype('uint32')
    bits = jax.lax.bitcast_convert_type(leaf, f'uint{8 * min(leaf.dtype.itemsize, 4)}')
    return bits.astype('uint32')


def digest(value: jax.Array | bytes) -> int:
    """One number of what this process holds: of bytes, or of its copies of a scalar."""
    if isinstance(value, bytes):
        return zlib.crc32(value)
    copies = sorted({int(shard.data) for shard in value.addressable_shards})
    return copies[0] if len(copies) == 1 else zlib.crc32(repr(copies).encode())


def check_same(what: str, value: jax.Array | bytes) -> None:
    """Raises RuntimeError, naming the process and its host, where not all have the same value."""
    if jax.process_count() == 1:
        return
    found = np.asarray(multihost_utils.process_allgather(np.uint32(digest(value)))).ravel()
    values, counts = np.unique(found, return_counts=True)
    if len(values) == 1:
        return
    common = values[counts == counts.max()]
    usual = found[0] if found[0] in common else common[0]
    name = np.zeros(64, np.uint8)
    host = socket.gethostname().encode()[:64]
    name[: len(host)] = np.frombuffer(host, np.uint8)
    names = np.asarray(multihost_utils.process_allgather(name)).reshape(-1, 64)
    apart = ', '.join(
        f'process {i} on {names[i].tobytes().rstrip(bytes(1)).decode()}'
        for i in np.flatnonzero(found != usual)
    )
    raise RuntimeError(
        f'{what}: {apart} of {len(found)} has something else than the others; '
        'nothing after the last checkpoint is to be trusted: start again from it'
    )
