"""Reads compiled programs (HLO text): which collectives they have, and which are in loops."""

import re
from typing import NamedTuple

COLLECTIVES = (
    'all-gather',
    'all-reduce',
    'reduce-scatter',
    'all-to-all',
    'collective-permute',
    'collective-broadcast',
    'ragged-all-to-all',
)
BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8}


class Collective(NamedTuple):
    """One array that a collective produces on a device."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    in_loop: bool
    line: str

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for n in self.shape:
            count *= n
        return count

    @property
    def num_bytes(self) -> int:
        """Bytes of the array."""
        return self.size * BYTES.get(self.dtype, 4)


def computations(text: str) -> dict[str, list[str]]:
    """Name of each computation of a program -> its lines."""
    result, name = {}, None
    for line in text.splitlines():
        start = re.match(r'^(?:ENTRY )?%?([\w\.\-]+) (?:\(.*\) -> .*)?\{', line)
        if start and not line.startswith(' '):
            name = start[1]
            result[name] = []
        elif line.startswith('}'):
            name = None
        elif name is not None:
            result[name].append(line)
    return result


def _reachable(lines: dict[str, list[str]], root: str) -> set[str]:
    seen, todo = set(), [root]
    pattern = r'(?:calls|body|condition|to_apply|branch_computations)=\{?%?([\w\.\-]+)'
    while todo:
        name = todo.pop()
        if name not in seen and name in lines:
            seen.add(name)
            todo += [callee for line in lines[name] for callee in re.findall(pattern, line)]
    return seen


def collectives(text: str) -> list[Collective]:
    """All arrays of collectives of a compiled program."""
    lines = computations(text)
    looped = {
        name
        for body in lines.values()
        for line in body
        for root in re.findall(r'(?:body|condition)=%?([\w\.\-]+)', line)
        for name in _reachable(lines, root)
    }
    kinds = '|'.join(COLLECTIVES)
    pattern = rf'\s+(?:ROOT )?%?[\w\.\-]+ = (\(?\w+\[.*?) ({kinds})(?:-start)?\('
    return [
        Collective(
            match[2], dtype, tuple(int(n) for n in dims.split(',') if n), name in looped, line
        )
        for name, body in lines.items()
        for line in body
        if (match := re.match(pattern, line))
        for dtype, dims in re.findall(r'(\w+)\[([\d,]*)\]', match[1])
    ]


def num_loops(text: str) -> int:
    """Number of while loops of a compiled program."""
    return len(re.findall(r' while\(', text))
