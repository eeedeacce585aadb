"""The least that each program of a run must compute and move on one device: its roofline bound."""

import dataclasses
import re

from elenchus.model import config as model_config
from elenchus.model import memory_estimate
from elenchus.train.planning import machines, memory_plan, sampling_memory
from elenchus.train.planning.machines import Topology
from elenchus.train.planning.memory_plan import RunPlan
from elenchus.train.planning.program_cost import Cost


@dataclasses.dataclass(frozen=True)
class Least:
    """Work of one device."""

    flops: float
    memory_bytes: float

    def seconds(self, peaks: machines.Peaks) -> float:
        """Time at the chip's published peaks."""
        return max(self.flops / peaks.flops_per_s, self.memory_bytes / peaks.memory_bytes_per_s)


def seconds(cost: Cost, peaks: machines.Peaks) -> dict[str, float]:
    """Seconds of a counted cost by what limits it, at the chip's published peaks."""
    return {
        'compute': cost.flops / peaks.flops_per_s,
        'memory': cost.memory_bytes / peaks.memory_bytes_per_s,
        'link': cost.received_bytes / peaks.link_bytes_per_s,
    }


def least_work(plan: RunPlan, machine: Topology, name: str) -> Least | None:
    """The least work of a program by its name (programs.py); of decoding, of one step.

    None for small programs that have no bound worth knowing.
    """
    mesh = memory_estimate.abstract_mesh(plan.mesh)
    shape = re.match(r'(prefill|decode|scoring) (\d+) x (\d+)', name)
    if shape:
        return _sampling(plan, shape[1], rows=int(shape[2]), length=int(shape[3]))
    names, _, kind = name.partition(': ')
    training = next((t for t in plan.trainings if t.name == names.split(',')[0]), None)
    if training is None or kind not in ('train step', 'log-probabilities'):
        return None
    # The pass for log-probabilities has the rows of a microbatch.
    rows = training.rows // (training.num_microbatches if kind == 'log-probabilities' else 1)
    flops = model_config.forward_flops(
        plan.model, tokens=rows * training.length, length=training.length / 2
    )
    trained, optimizer, frozen = memory_plan.state_bytes(plan, training, mesh)
    if kind == 'log-probabilities':
        return Least(flops / mesh.size, trained + frozen)
    # The backward pass through a frozen base computes no gradients of its weights.
    passes = 2 if training.lora.rank else 3
    return Least(passes * flops / mesh.size, 2 * (trained + optimizer) + frozen)


def _sampling(plan: RunPlan, kind: str, *, rows: int, length: int) -> Least:
    """A program that reads a whole player, split over the sampler's `tensor` alone."""
    c, mesh = plan.model, sampling_memory.sampler_mesh(plan)
    divided = sampling_memory.sampler_config(plan)  # in its dtype, with repeated key/value heads
    # Scoring reads the trainer's weights.
    dtype = c.dtype if kind == 'scoring' else divided.dtype
    weights = model_config.num_parameters(c) * memory_estimate.itemsize(dtype)
    weights /= mesh.shape['tensor']
    engine = plan.sampling.engine
    cache = memory_estimate.cache_bytes(
        divided,
        batch=rows,
        length=length,
        mesh=mesh,
        dtype=engine.cache_dtype,
        step_tokens=engine.step_tokens if kind == 'decode' else 0,
    )
    if kind == 'decode':
        flops = model_config.forward_flops(c, tokens=rows, length=length)
        return Least(flops / mesh.size, weights + cache)
    flops = model_config.forward_flops(c, tokens=rows * length, length=length / 2)
    head = 2 * rows * length * c.vocab_size * c.embed_dim  # neither computes all logits
    written = cache if kind == 'prefill' else 0
    return Least((flops - head) / mesh.size, weights + written)
