"""Reads the collectives of a compiled program from its text."""

import math
import re
from typing import NamedTuple

BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1, 's8': 1, 'u8': 1}
OPERATIONS = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'


class Collective(NamedTuple):
    """A collective that moves data between devices: its result on one device, and its place."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    in_loop: bool

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return BYTES[self.dtype] * math.prod(self.shape)


def computations(text: str) -> dict[str, list[str]]:
    """Returns {name of a computation: its lines}."""
    lines_by_name, name = {}, None
    for line in text.splitlines():
        start = re.match(r'(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{', line)
        if start:
            name = start[1]
            lines_by_name[name] = []
        elif name is not None:
            lines_by_name[name].append(line)
    return lines_by_name


def collectives(text: str) -> list[Collective]:
    """Returns all collectives of a compiled program, without those of one device each."""
    by_name = computations(text)
    bodies, queue = set(), re.findall(r'body=%?([\w.\-]+)', text)
    while queue:
        name = queue.pop()
        if name not in bodies and name in by_name:
            bodies.add(name)
            called = r'(?:calls|body|to_apply)=%?([\w.\-]+)'
            queue += [m for line in by_name[name] for m in re.findall(called, line)]
    return [
        Collective(match[2], dtype, tuple(int(n) for n in sizes.split(',') if n), name in bodies)
        for name, lines in by_name.items()
        for line in lines
        if (match := re.match(rf'\s+(?:ROOT )?\S+ = (.*?) ({OPERATIONS})(?:-start)?\(', line))
        and _has_partners(line)
        for dtype, sizes in re.findall(r'(\w+)\[([\d,]*)\]', match[1])
    ]


def _has_partners(line: str) -> bool:
    """Returns False if every group of the collective is one device."""
    listed = re.search(r'replica_groups=\{(\{.*?\})\}', line)
    if listed:
        return any(',' in group for group in re.findall(r'\{([^{}]*)\}', listed[1]))
    iota = re.search(r'replica_groups=\[\d+,(\d+)\]', line)
    return iota is None or int(iota[1]) > 1
