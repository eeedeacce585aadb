"""Compiles the programs of a run for a described machine, and tables of what the compiler says.

TPU programs need libtpu, but no TPU; those of this machine's CPU need nothing. Each program is
compiled as the run would compile it, for the arrays that the program before left (programs.py).
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from elenchus.model import sharding
from elenchus.train.planning import machines, program_cost, programs
from elenchus.train.planning.machines import Topology
from elenchus.train.planning.program_cost import ProgramCost

# libtpu asks Google's metadata server for the TPU of this machine, which has none.
LIBTPU_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # only compiles: several processes do not disturb each other
    'TPU_ACCELERATOR_TYPE': 'v5litepod-1',  # silences warnings; topologies are named explicitly
    'TPU_WORKER_HOSTNAMES': 'localhost',
}


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """What the compiler says about one program, in bytes on one device."""

    name: str
    arguments: int
    outputs: int
    temporaries: int
    aliased: int  # of the outputs, in the buffers of donated arguments
    seconds: float  # of tracing and compiling
    cost: ProgramCost | None  # None: unknown, as the program cannot be printed
    refused: str = ''  # XLA's reason, if the program does not fit; `temporaries` is then the excess
    recompiles: bool = False  # its state comes back elsewhere than it went in
    host: int = 0  # temporaries in the memory of the host, which remat_offloaded keeps there

    @property
    def total(self) -> int:
        """Memory while the program runs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


class Compiler:
    """A `Call` that compiles; `programs` collects what it compiled.

    A program that is not `selected`, or that does not fit, gives no shardings of its results: they
    are taken from arguments of the same tree structure, which is right for the slots of a sampler.
    Raises ProgramRefused if a result has no such argument and a later program needs it.
    """

    def __init__(
        self,
        *,
        selected: Callable[[str], bool] = lambda name: True,
        report: Callable[[CompiledProgram], None] = lambda program: None,
    ):
        self._selected, self._report = selected, report
        self.programs: list[CompiledProgram] = []

    def __call__(self, name: str, function, /, *args, **kwargs) -> Any:
        """Compiles function(*args, **kwargs) and returns its results as shapes with shardings."""
        start = time.perf_counter()
        lowered = function.lower(*args, **kwargs)
        results = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.out_info)
        if not self._selected(name):
            return placed_like(results, args)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            self._add(refused_program(name, str(error), args, seconds=time.perf_counter() - start))
            results = placed_like(results, args)
            if any(x.sharding is None for x in jax.tree.leaves(results)) and not programs.is_large(
                name
            ):
                raise ProgramRefused(name) from None
            return results
        shapes = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            results,
            compiled.output_shardings,
        )
        self._add(
            dataclasses.replace(
                measured(name, compiled, time.perf_counter() - start),
                recompiles=returns_elsewhere(shapes, args),
            )
        )
        return shapes

    def _add(self, program: CompiledProgram) -> None:
        self.programs.append(program)
        self._report(program)


def measured(name: str, compiled, seconds: float) -> CompiledProgram:
    """The compiler's figures of a program."""
    memory = compiled.memory_analysis()
    return CompiledProgram(
        name=name,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        host=memory.host_temp_size_in_bytes,
        seconds=seconds,
        cost=_cost_of(compiled),
    )


def _cost_of(compiled) -> ProgramCost | None:
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        # jaxlib 0.10.2 cannot print asynchronous operations with several operands, which libtpu
        # uses on a v5p.
        return None
    return program_cost.program_cost(text)


REFUSED_SIZE = re.compile(r'temporaries \(([\d.]+)([KMGT]?)\)|[Uu]sed ([\d.]+)([KMGT]?) of')


class ProgramRefused(Exception):
    """A program does not fit, and what follows it depends on where its results would lie."""


def refused_program(name: str, message: str, args: Any, *, seconds: float) -> CompiledProgram:
    """A program that XLA refused, with the memory that it would use."""
    match, arguments = REFUSED_SIZE.search(message), programs.placed_bytes(args)
    number, unit = (match[1] or match[3], match[2] or match[4]) if match else ('0', '')
    size = int(float(number) * 1024 ** ' KMGT'.index(unit or ' '))
    temporaries = size if match is None or match[1] else max(0, size - arguments)
    reason = ' '.join(message.split()).partition(' See https')[0]
    return CompiledProgram(
        name, arguments, 0, temporaries, 0, seconds, cost=None, refused=reason[:300]
    )


def placed_like(results: Any, args: Any) -> Any:
    """Returns results, each as the argument of the same tree structure if there is one."""
    by_structure = {jax.tree.structure(arg): arg for arg in args if jax.tree.leaves(arg)}

    def place(tree):
        like = by_structure.get(jax.tree.structure(tree))
        return tree if like is None else like

    if isinstance(results, tuple) and not hasattr(results, '_fields'):
        return tuple(map(place, results))
    return place(results)


def returns_elsewhere(results: Any, args: Any) -> bool:
    """True if a state comes back with another sharding, for which the next call compiles again."""
    outputs = results if isinstance(results, tuple) else (results,)
    for arg in args:
        for out in outputs:
            if not jax.tree.leaves(arg) or jax.tree.structure(arg) != jax.tree.structure(out):
                continue
            pairs = zip(jax.tree.leaves(arg), jax.tree.leaves(out), strict=True)
            if any(getattr(a, 'sharding', None) not in (None, b.sharding) for a, b in pairs):
                return True
    return False


# Machines


@contextlib.contextmanager
def mesh_of(machine: Topology, shape: tuple[int, ...]) -> Iterator[jax.sharding.Mesh]:
    """Sets a mesh of the machine's devices, which need not be present, as the current mesh.

    Raises ValueError if the machine is neither a TPU nor this CPU, or without libtpu.
    """
    if machine.chip == 'cpu':
        devices = jax.devices('cpu')
    elif machine.chip.startswith('v'):
        devices = tpu_devices(machine)
    else:
        raise ValueError(
            f'--compile supports TPU topologies and cpu, not {machine.name!r}; nearest: v5e-8'
        )
    mesh = sharding.make_mesh(shape, devices)
    with jax.set_mesh(mesh), tpu_environment():
        yield mesh


def tpu_devices(machine: Topology) -> list:
    """Devices of a TPU slice as libtpu describes them. Raises ValueError without libtpu."""
    if importlib.util.find_spec('libtpu') is None:
        raise ValueError("--compile needs libtpu: pip install -e '.[plan]'")
    from jax.experimental import topologies

    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return topologies.get_topology_desc(machines.slice_name(machine), 'tpu').devices


@contextlib.contextmanager
def tpu_environment() -> Iterator[None]:
    """Hides CPU flags in XLA_FLAGS and the compilation cache from libtpu.

    It ends the process at a flag in XLA_FLAGS that it does not know, such as those for the CPU; and
    programs for devices that are not here cannot be loaded from the compilation cache.
    """
    before, cached = os.environ.get('XLA_FLAGS', ''), jax.config.jax_enable_compilation_cache
    kept = [flag for flag in before.split() if not flag.startswith('--xla_cpu_')]
    os.environ['XLA_FLAGS'] = ' '.join(kept)
    _use_cache(False)
    try:
        yield
    finally:
        os.environ['XLA_FLAGS'] = before
        _use_cache(cached)


def _use_cache(use: bool) -> None:
    jax.config.update('jax_enable_compilation_cache', use)
    compilation_cache.reset_cache()  # JAX remembers whether it uses one
