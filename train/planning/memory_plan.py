"""Whether a run fits a machine, and what would: bytes on each device, phase by phase.

Arrays are counted exactly, on abstract meshes; activations and gathered weights are estimates
(model/memory.py). No array is made.
"""

import dataclasses
import difflib
import functools
import itertools
import os
import re
from collections.abc import Iterator

import jax

from elenchus.model import block_weights, lora, memory, projection, quantization, transformer
from elenchus.model.attention import inputs, kernels
from elenchus.model.config import ModelConfig
from elenchus.model.memory import GIB
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.train import optimizer as optimizers
from elenchus.train.objective import Objective
from elenchus.train.state import TrainState, init_state
from elenchus.train.step import Transform

CHIPS = {
    'v4': (32, 2),
    'v5e': (16, 1),
    'v5p': (95, 2),
    'v6e': (32, 1),
    'a100': (80, 1),
    'h100': (80, 1),
    'h200': (141, 1),
}
"""Memory in GiB, as published, and what a slice's name counts for each chip: v4 and v5p, cores."""

HEADROOM = 0.05  # of a chip's memory, left to the runtime and to fragmentation


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind."""

    name: str
    chip: str
    num_chips: int
    bytes: int  # of one chip's memory

    @property
    def usable(self) -> int:
        return int(self.bytes * (1 - HEADROOM))


def topology(name: str) -> Topology:
    """A named machine: 'v5e-256', 'v5p-128', 'v6e-8', '8xh100', 'cpu' (this one's devices).

    Raises ValueError for an unknown name.
    """
    if name == 'cpu':
        count, host = jax.device_count(), os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        return Topology(name, 'cpu', count, host // count)
    found = re.fullmatch(r'(v\w+)-(\d+)', name) or re.fullmatch(r'(\d+)x(\w+)', name)
    chip, count = sorted(found.groups(), key=str.isdigit) if found else ('', '0')
    if chip not in CHIPS or int(count) < CHIPS[chip][1]:
        known = ('v5e-256', 'v5p-128', 'v6e-8', 'v4-128', '1xh100', '8xh100', '8xh200', 'cpu')
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'topology={name!r} is none of {known} or of their kinds; nearest: {close}'
        )
    gib, counted = CHIPS[chip]
    return Topology(name, chip, int(count) // counted, gib * GIB)


def platform(machine: Topology) -> str:
    """What JAX calls the kind of its devices."""
    if machine.chip == 'cpu':
        return jax.default_backend()
    return 'tpu' if machine.chip.startswith('v') else 'gpu'


def slice_name(machine: Topology) -> str:
    """The name by which libtpu describes a slice, such as 'v5e:16x16' or 'v5p:4x4x4'."""
    sides = [1] * (2 if machine.chip in ('v5e', 'v6e') else 3)
    rest = machine.num_chips
    while rest > 1:
        sides[sides.index(min(sides))] *= 2
        rest //= 2
    return f'{machine.chip}:{"x".join(map(str, sorted(sides)))}'


def larger(given: Topology) -> Topology:
    """Twice the devices of the same kind."""
    count = 2 * given.num_chips
    named = count * CHIPS.get(given.chip, (0, 1))[1]
    name = f'{given.chip}-{named}' if given.chip.startswith('v') else f'{named}x{given.chip}'
    return dataclasses.replace(given, name=name, num_chips=count)


@dataclasses.dataclass(frozen=True)
class Training:
    """One kind of training step: a fit, or an update of reinforcement."""

    name: str
    optimizer: optimizers.OptimizerSettings
    lora: lora.LoraSettings
    objective: Objective
    transform: Transform
    rows: int
    length: int
    num_microbatches: int
    others: int  # models held beside the one trained: a reference, a critic
    shared: inputs.SharedPrompt | None = None


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Decoding with the actor while the critic is at hand."""

    engine: EngineSettings
    players: Training  # that made them: two whole models, or adapters on one base


@dataclasses.dataclass(frozen=True)
class Run:
    """What decides about memory."""

    model: ModelConfig
    mesh: tuple[int, int, int]
    quantize: quantization.Quantization
    trainings: tuple[Training, ...]
    sampling: Sampling | None


class Phase(dict):
    """Bytes on one device by what takes them."""

    @property
    def total(self) -> int:
        return sum(self.values())


def fill_mesh(shape: tuple[int, int, int], num_chips: int) -> tuple[int, int, int]:
    """The mesh with its -1 filled in. Raises ValueError where it does not cover the chips."""
    known = 1
    for n in shape:
        known *= n if n != -1 else 1
    if num_chips % known or (-1 not in shape and known != num_chips):
        raise ValueError(
            f'mesh={shape} does not divide the {num_chips} chips; nearest that does: '
            f'(1, {num_chips}, 1)'
        )
    return tuple(num_chips // known if n == -1 else n for n in shape)


@functools.cache
def abstract_model(config: ModelConfig) -> transformer.Transformer:
    return jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))


@functools.cache
def abstract_state(
    config: ModelConfig,
    settings: lora.LoraSettings,
    optimizer: optimizers.OptimizerSettings,
    quantize: quantization.Quantization,
) -> tuple[TrainState, transformer.Transformer | None]:
    """(state, frozen base) of a training, as shapes."""
    trained, frozen = abstract_model(config), None
    if settings.rank:
        frozen = jax.eval_shape(lambda model: quantization.quantize(model, quantize), trained)
        how = lora.Adaptation(settings, '', '', quantize)
        trained = jax.eval_shape(lambda: lora.init_adapters(config, how, jax.random.key(0)))
    made = optimizers.make_optimizer(optimizer, num_steps=1)
    return jax.eval_shape(lambda trained: init_state(trained, made), trained), frozen


def abstract_player(run: Run) -> transformer.Transformer:
    """A player that samples, as shapes."""
    made, kind = run.sampling.players, run.sampling.engine.quantize
    state, frozen = abstract_state(run.model, made.lora, made.optimizer, run.quantize)
    player = jax.eval_shape(lora.join, state.model, frozen)
    return jax.eval_shape(functools.partial(quantization.quantize, kind=kind), player)


def state_bytes(run: Run, training: Training, mesh) -> tuple[int, int, int]:
    """Bytes on one device of (what is trained, the optimizer's state, the frozen base)."""
    config = dataclasses.replace(run.model, remat='none')  # it changes no array
    state, frozen = abstract_state(config, training.lora, training.optimizer, run.quantize)
    own = memory.array_bytes(state.model, mesh)
    held = 0 if frozen is None else memory.array_bytes(frozen, mesh)
    return own, memory.array_bytes(state, mesh) - own, held


def training_phase(run: Run, training: Training, mesh) -> Phase:
    """A training step: state, gradients, what it keeps for the backward pass, other models."""
    own, of_optimizer, frozen = state_bytes(run, training, mesh)
    accumulated = 2 if training.num_microbatches > 1 else 1
    phase = Phase(
        {
            'trained weights': own,
            'optimizer state': of_optimizer,
            'gradients': accumulated * own,
            'frozen base': frozen,
            'weights to start from and of other players': (1 + training.others) * own,
        }
    )
    phase |= memory.activation_bytes(
        run.model,
        rows=training.rows // training.num_microbatches,
        length=training.length,
        mesh=mesh,
        targets=training.lora.targets if training.lora.rank else (),
        shared=training.shared,
    )
    phase['gathered weights'] = memory.gathered_bytes(
        run.model, mesh=mesh, trained=not training.lora.rank
    )
    return phase


def quantized_bytes(run: Run, mesh) -> int:
    """Bytes on one device of what the engine quantizes of the player that samples."""
    made, kind = run.sampling.players, run.sampling.engine.quantize
    state, frozen = abstract_state(run.model, made.lora, made.optimizer, run.quantize)
    if kind == 'none' or (frozen is not None and run.quantize != 'none'):
        return 0
    whole = state.model if frozen is None else frozen
    quantized = jax.eval_shape(lambda model: quantization.quantize(model, kind), whole)
    matrices = {
        t: getattr(block_weights.find_module(quantized, t), t) for t in projection.NUM_INPUT_DIMS
    }
    return memory.array_bytes(matrices, mesh)


def sampling_phase(run: Run, mesh) -> Phase:
    """Both players, the cache of the slots, and the largest prefill."""
    engine = run.sampling.engine
    own, _, frozen = state_bytes(run, run.sampling.players, mesh)
    rows, length = engine.prefill_batch_sizes[-1], engine.prompt_buckets[-1]
    at_once = min(engine.prefill_chunk or length, length)
    here, tokens = memory.local_sizes(run.model, mesh), memory.local_rows(rows, mesh) * at_once
    cache_bytes = functools.partial(
        memory.cache_bytes, run.model, mesh=mesh, dtype=engine.cache_dtype
    )
    part = memory.layer_bytes(run.model, length=length, mesh=mesh)
    read = memory.local_rows(engine.num_slots, mesh) * (1 + engine.draft_tokens)
    return Phase(
        {
            'weights of both players': 2 * own,
            'frozen base': frozen,
            'weights in int8': quantized_bytes(run, mesh),
            'cache of the slots': cache_bytes(batch=engine.num_slots, length=engine.max_length),
            'cache of a prefill': cache_bytes(batch=rows, length=length),
            'layer of a prefill': int(tokens * (part['scores'] + part['rest'])),
            'logits': 3 * read * here.vocab * 4,
            'gathered weights': memory.gathered_bytes(run.model, mesh=mesh, trained=False),
        }
    )


def phases(run: Run, machine: Topology) -> dict[str, Phase]:
    """Every phase of a run on a machine.

    Raises ValueError where a shape does not divide, or attention does not run there.
    """
    kernels.check_backend(run.model, platform(machine))
    mesh = memory.abstract_mesh(fill_mesh(run.mesh, machine.num_chips))
    found = {t.name: training_phase(run, t, mesh) for t in run.trainings}
    if run.sampling is not None:
        found['sampling'] = sampling_phase(run, mesh)
    return found


def fits(found: dict[str, Phase], machine: Topology) -> bool:
    return all(phase.total <= machine.usable for phase in found.values())


def nearest_fit(run: Run, machine: Topology) -> tuple[Run, Topology] | None:
    """The least change that fits: recompute more, split batches, shard more, or a larger machine.

    Among machines up to 64 times as large; on each, the config's mesh comes before others.
    """
    for _ in range(7):
        for changed in variations(run, machine):
            try:
                if fits(phases(changed, machine), machine):
                    return changed, machine
            except ValueError:  # this mesh does not divide
                continue
        machine = larger(machine)
    return None


def variations(run: Run, machine: Topology) -> Iterator[Run]:
    """Runs of the same result with another mesh, remat policy or number of microbatches."""
    count = machine.num_chips
    meshes = [run.mesh, *((1, count // t, t) for t in (1, 2, 4, 8, 16) if count % t == 0)]
    remats = ('none', 'dots', 'full')
    remats = remats[remats.index(run.model.remat) :]
    for mesh, splits, remat in itertools.product(dict.fromkeys(meshes), (1, 2, 4, 8, 16), remats):
        trainings = tuple(
            dataclasses.replace(t, num_microbatches=t.num_microbatches * splits)
            for t in run.trainings
        )
        try:
            parts = fill_mesh(mesh, count)
        except ValueError:
            continue
        rows = [t.rows % (t.num_microbatches * parts[0] * parts[1]) for t in trainings]
        if not any(rows):
            model = dataclasses.replace(run.model, remat=remat)
            yield dataclasses.replace(run, model=model, mesh=parts, trainings=trainings)
