"""Requests whose prompts and limits have many lengths."""

import numpy as np

from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings


def many_requests(settings: EngineSettings, number: int, *, end: int) -> tuple[Request, ...]:
    """Prompts of 1 to 16 tokens in [1, end); two of three requests may fill their slot."""
    rng = np.random.default_rng(0)
    result = []
    for i in range(number):
        prompt = tuple(rng.integers(1, end, rng.integers(1, 17)).tolist())
        room = settings.sequence_length - len(prompt)
        result.append(Request(7 * i, prompt, int(room if i % 3 else rng.integers(1, room))))
    return tuple(result)
