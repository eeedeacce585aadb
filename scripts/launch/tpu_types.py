"""Accelerator types of Cloud TPU, and the runtime version of each."""

from __future__ import annotations

import re

from elenchus.scripts.launch import options
from elenchus.scripts.launch.options import UsageError
from elenchus.scripts.launch.states import Resource

RUNTIMES = {
    'v2': 'tpu-ubuntu2204-base',
    'v3': 'tpu-ubuntu2204-base',
    'v4': 'tpu-ubuntu2204-base',
    'v5litepod': 'v2-alpha-tpuv5-lite',
    'v5p': 'v2-alpha-tpuv5',
    'v6e': 'v2-alpha-tpuv6e',
}
"""cloud.google.com/tpu/docs/runtimes."""
SIZES = dict.fromkeys(('v5litepod', 'v6e'), (1, 4, 8, 16, 32, 64, 128, 256))
"""Chips of a slice: cloud.google.com/tpu/docs/v5e, v6e. Others count cores, in multiples of 8."""
OTHER_NAMES = {'v5e': 'v5litepod', 'v5lite': 'v5litepod', 'v5': 'v5p', 'v6': 'v6e'}
NEWER = re.compile(r'^(tpu-?v?7|v7|ironwood)', re.IGNORECASE)
NAME = re.compile(r'^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')
STATES = {
    'ACTIVE': Resource.READY,
    'FAILED': Resource.FAILED,
    'SUSPENDED': Resource.LOST,
    'SUSPENDING': Resource.LOST,
    'CREATING': Resource.WAITING,
    'ACCEPTED': Resource.WAITING,
    'WAITING_FOR_RESOURCES': Resource.WAITING,
    'PROVISIONING': Resource.WAITING,
    'DELETING': Resource.LEAVING,
}
"""Of a queued resource: cloud.google.com/tpu/docs/queued-resources."""
STATE = 'state.state,state.failedData.error.message'
"""The state, and why a request failed: cloud.google.com/tpu/docs/reference/rest, QueuedResource."""
GONE_NODES = {'PREEMPTED', 'TERMINATED', 'STOPPED', 'STOPPING', 'DELETING'}
"""States of a node that does not come back: cloud.google.com/tpu/docs/reference/rest, Node."""


def runtime_version(kind: str) -> str:
    """Returns the runtime version of an accelerator type such as v5p-128.

    Raises:
        UsageError: Queued resources have no such type; the message names the nearest.
    """
    if NEWER.match(kind):
        raise UsageError(
            f'--type={kind}: Cloud TPU queued resources end with v6e; '
            'use scripts/launch/gke.sh for TPU7x (cloud.google.com/tpu/docs/tpu7x)'
        )
    name, dash, size = kind.partition('-')
    close = OTHER_NAMES.get(name) or options.nearest(name, RUNTIMES)
    number = int(size) if size.isdecimal() else 0
    sizes = SIZES.get(close, ())
    if sizes:
        best = min(sizes, key=lambda n: abs(n - (number or 16)))
    else:
        best = max(8, round((number or 8) / 8) * 8)
    if f'{close}-{best}' != kind:
        raise UsageError(f'--type={kind} is no accelerator type; nearest: {close}-{best}')
    return RUNTIMES[name]


def chips(kind: str) -> int:
    """Returns the chips of a slice; types that count cores have two a chip."""
    name, _, size = kind.partition('-')
    return int(size) if name in SIZES else int(size) // 2


def check_name(name: str) -> None:
    """Checks the name of a slice, as the API does (RFC 1035 labels).

    Raises:
        UsageError: It would be refused.
    """
    if not NAME.match(name):
        close = re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-0123456789') or 'pod'
        raise UsageError(
            f'--name={name} must have lower-case letters, digits and dashes; nearest: {close[:63]}'
        )
