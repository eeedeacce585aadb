"""The engine's real schedule, with lengths instead of a device: what it prefills and decodes."""

import dataclasses

import numpy as np

from elenchus.sampling.engine.engine import Engine
from elenchus.sampling.engine.refill import Refill
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings


@dataclasses.dataclass
class Schedule:
    """Counts of a simulated call of `generate`, in tokens or steps of slots."""

    prefilled: int = 0  # tokens of all prefills, padding included
    prompts: int = 0  # tokens of prompts among them
    prefills: int = 0  # calls
    decoded: int = 0  # tokens that requests sampled
    slot_steps: int = 0  # steps of all slots, empty ones included

    @property
    def padding(self) -> float:
        """Prefilled tokens over those of prompts."""
        return self.prefilled / self.prompts

    @property
    def utilisation(self) -> float:
        """Share of all slots' steps that sampled a token."""
        return self.decoded / self.slot_steps


def simulate(settings: EngineSettings, requests, lengths: dict[int, int], *, shards=1) -> Schedule:
    """Schedules requests that sample lengths[id] tokens each."""
    engine = Engine(settings, stop_ids=(1,))
    engine._shards = shards
    refill, running, result = Refill(settings, shards, requests), {}, Schedule()
    position, end = np.zeros((2, settings.num_slots), int)
    while refill.queue or running:
        for prefill in refill.next(running):
            result.prefills += 1
            result.prefilled += shards * prefill.num_rows * prefill.length
            result.prompts += sum(prompt.length for _, prompt in prefill.prompts)
            for slot, request in prefill.entries:
                assert slot not in running
                running[slot] = request
                position[slot] = len(request.prompt) - 1
                end[slot] = position[slot] + lengths[request.id]
        engine._chunk_shape(running, position)
        remaining = {slot: int(end[slot] - position[slot]) for slot in running}
        steps = min(settings.chunk_steps, max(remaining.values()))
        result.slot_steps += settings.num_slots * steps
        for slot, count in remaining.items():
            result.decoded += min(steps, count)
            position[slot] += min(steps, count)
            if count <= steps:
                del running[slot]
    return result


def make_requests(rng, num_prompts: int, samples: int, *, shortest: int, longest: int, limit: int):
    """Requests with prompts of uniform lengths, `samples` of each."""
    requests = []
    for i in range(num_prompts):
        prompt = (i + 2,) * int(rng.integers(shortest, longest))
        requests += [Request(i * samples + j, prompt, limit) for j in range(samples)]
    return requests
