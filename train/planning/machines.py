"""Chips and machines by name: memory, compute rate, memory bandwidth and link speed.

`CHIPS` is the only table of hardware figures. The memory plan reads memory sizes in GiB, as the
runtime reports them; the roofline reads the same figures in decimal GB, as the vendors print them.
"""

import dataclasses
import difflib
import math
import os
import re

import jax

from elenchus.model.memory_estimate import GIB

HEADROOM = 0.05  # share of a chip's memory kept free for the runtime and for fragmentation


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Published peak rates of one chip, in bf16."""

    flops_per_s: float
    memory_bytes_per_s: float
    link_bytes_per_s: float  # to the other chips, in one direction


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator."""

    memory_size: int  # as published: GiB in the memory plan, GB in the roofline
    units_in_name: int  # what a machine's name counts for each chip: cores for v4 and v5p
    peaks: Peaks | None = None  # None: the chip is in no roofline table


CHIPS = {
    'v4': Chip(32, 2, Peaks(275e12, 1228e9, 150e9)),
    'v5e': Chip(16, 1, Peaks(197e12, 819e9, 100e9)),
    'v5p': Chip(95, 2, Peaks(459e12, 2765e9, 300e9)),
    'v6e': Chip(32, 1, Peaks(918e12, 1640e9, 200e9)),
    'a100': Chip(80, 1, Peaks(312e12, 2039e9, 300e9)),
    'h100': Chip(80, 1, Peaks(989e12, 3350e9, 450e9)),
    'h200': Chip(141, 1, Peaks(989e12, 4800e9, 450e9)),
}
"""Sources: the vendors' pages of each chip (H100: SXM). A TPU's link is half of its published
interchip bandwidth, which counts both directions."""

DEVICE_KINDS = {
    'TPU v4': 'v4',
    'TPU v5 lite': 'v5e',
    'TPU v5p': 'v5p',
    'TPU v5': 'v5p',
    'TPU v6 lite': 'v6e',
    'NVIDIA A100': 'a100',
    'NVIDIA H100': 'h100',
    'NVIDIA H200': 'h200',
}
"""How JAX's `device_kind` begins -> key of CHIPS; longer names come before their beginnings."""

EXAMPLES = ('v5e-256', 'v5p-128', 'v6e-8', 'v4-128', '1xh100', '8xh100', '8xh200', 'cpu')


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind."""

    name: str
    chip: str  # key of CHIPS, or 'cpu'
    num_chips: int
    bytes: int  # memory of one chip

    @property
    def usable(self) -> int:
        """Bytes of one chip that a plan may fill."""
        return int(self.bytes * (1 - HEADROOM))


def topology(name: str) -> Topology:
    """Returns a machine by name: 'v5e-256', 'v5p-128', '8xh100', or 'cpu' for this machine.

    Raises ValueError for an unknown name.
    """
    if name == 'cpu':
        count, host = jax.device_count(), os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        return Topology(name, 'cpu', count, host // count)
    match = re.fullmatch(r'(v\w+)-(\d+)', name) or re.fullmatch(r'(\d+)x(\w+)', name)
    chip, count = sorted(match.groups(), key=str.isdigit) if match else ('', '0')
    is_other_form = chip.startswith('v') != ('-' in name)  # '8xv5p' may mean chips or cores
    if chip not in CHIPS or int(count) < CHIPS[chip].units_in_name or is_other_form:
        close = difflib.get_close_matches(name, EXAMPLES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'unknown topology={name!r}; use a name of the same form as one of '
            f'{", ".join(EXAMPLES)}; nearest: {close}'
        )
    spec = CHIPS[chip]
    num_chips, rest = divmod(int(count), spec.units_in_name)
    if rest:
        raise ValueError(
            f'topology={name!r} counts {spec.units_in_name} cores for each chip; '
            f'nearest: {_name(chip, num_chips)}'
        )
    return Topology(name, chip, num_chips, spec.memory_size * GIB)


def peaks_of(device_kind: str) -> Peaks | None:
    """Peaks of a device by what JAX calls it; None for a CPU and for unknown chips."""
    for name, chip in DEVICE_KINDS.items():
        if device_kind.startswith(name):
            return CHIPS[chip].peaks
    return None


def platform(machine: Topology) -> str:
    """JAX platform of the machine's devices: 'tpu', 'gpu' or 'cpu'."""
    if machine.chip == 'cpu':
        return jax.default_backend()
    return 'tpu' if machine.chip.startswith('v') else 'gpu'


def slice_name(machine: Topology) -> str:
    """Name of a slice for libtpu, such as 'v5e:16x16' or 'v5p:4x4x4'.

    Raises ValueError for a number of chips that is no power of two.
    """
    nearest = 2 ** round(math.log2(machine.num_chips))
    if machine.num_chips & (machine.num_chips - 1):
        raise ValueError(
            f'--compile describes slices of 2, 4, 8 ... chips, and {machine.name} has '
            f'{machine.num_chips}; nearest: {_name(machine.chip, nearest)}'
        )
    # v5e and v6e slices are 2D tori, the others 3D; doubling the shortest side gives their shapes.
    sides = [1] * (2 if machine.chip in ('v5e', 'v6e') else 3)
    rest = machine.num_chips
    while rest > 1:
        sides[sides.index(min(sides))] *= 2
        rest //= 2
    return f'{machine.chip}:{"x".join(map(str, sorted(sides)))}'


def twice_as_large(machine: Topology) -> Topology | None:
    """Machine with twice the devices of the same kind; None for this machine, the CPU."""
    if machine.chip == 'cpu':
        return None
    count = 2 * machine.num_chips
    return dataclasses.replace(machine, name=_name(machine.chip, count), num_chips=count)


def _name(chip: str, num_chips: int) -> str:
    """Name of a machine of so many chips."""
    units = num_chips * CHIPS[chip].units_in_name
    return f'{chip}-{units}' if chip.startswith('v') else f'{units}x{chip}'
