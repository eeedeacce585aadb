"""Cases of the benchmark: model sizes, shapes, and the roofline bound of each case.

The bound of one forward pass is the larger of its operations divided by the machine's matrix
multiplication rate, and its bytes divided by the machine's read bandwidth. The bound of a case is
the sum over its passes.
"""

import dataclasses
import functools
import runpy
from typing import Any, NamedTuple

import numpy as np

from elenchus.model.config import ModelConfig, forward_flops, num_parameters
from elenchus.model.kv_cache import cache_bytes
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings

SIZES: dict[str, dict[str, int]] = {
    '1m': {
        'vocab_size': 512,
        'num_layers': 4,
        'embed_dim': 128,
        'mlp_dim': 352,
        'num_heads': 4,
        'num_kv_heads': 4,
        'head_dim': 32,
    },
    '30m': {
        'vocab_size': 4096,
        'num_layers': 8,
        'embed_dim': 512,
        'mlp_dim': 1408,
        'num_heads': 8,
        'num_kv_heads': 8,
        'head_dim': 64,
    },
}
CONTENDERS = {
    'decode': ('ours', 'hf', 'hf static', 'tunix'),
    'prefill': ('ours', 'hf', 'tunix'),
    'ragged': ('ours', 'ours, padded', 'hf', 'tunix'),
    'episode': ('ours', 'ours, no prefix cache', 'hf', 'tunix'),
    'sft': ('ours', 'torch', 'tunix'),
    'grpo': ('ours', 'trl', 'tunix'),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to measure. A worker receives it as JSON."""

    work: str  # kind of work, a key of CONTENDERS
    size: str  # key of SIZES
    model: dict[str, int]  # fields of ModelConfig
    shape: dict[str, Any]  # batch and token counts, by kind of work

    @property
    def name(self) -> str:
        """Name in tables; the vocabulary is named if it is not that of the size."""
        vocabulary = self.model['vocab_size']
        other = f' V{vocabulary}' if vocabulary != SIZES[self.size]['vocab_size'] else ''
        return f'{self.work} {self.size}{other} B{self.shape["batch"]}'


class Machine(NamedTuple):
    """Measured speeds of the machine."""

    flops: float  # operations per second, in matrix multiplications
    bandwidth: float  # bytes read per second


def load_settings(config: str, shape: dict[str, int]) -> RunSettings:
    """Loads a config file, with the model's shape replaced and enough positions for all cases."""
    run = build.build(RunSettings, runpy.run_path(config)['get_config']())
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, **shape, qk_norm=False, max_length=1024)
    )


def cases(size: str, work: str) -> list[Case]:
    """Cases of a kind of work at a size."""
    # Log-normal lengths: many short requests and a long tail.
    lengths = np.random.default_rng(0).lognormal(np.log(60), 0.8, 128)
    ragged = np.clip(lengths.round(), 1, 256).astype(int).tolist()
    episode = {'problems': 4, 'samples': 8, 'prompt': 64}
    turns = {'attempt': 64, 'critique': 96, 'refinement': 64}
    shapes = {
        'decode': [{'batch': n, 'prompt': 16, 'new': 128} for n in (1, 16, 64)],
        'prefill': [{'batch': 16, 'prompt': 256}],
        'ragged': [{'batch': 64, 'prompt': 64, 'lengths': ragged}],
        'episode': [{'batch': 32, **episode, **turns}],
        'sft': [{'batch': 16, 'length': 256}],
        'grpo': [{'batch': 64, 'problems': 8, 'samples': 8, 'prompt': 64, 'new': 64}],
    }
    of_work = [Case(work, size, SIZES[size], shape) for shape in shapes[work]]
    if work == 'sft':
        large = SIZES[size] | {'vocab_size': 32768, 'logits_chunk': 1024}
        of_work += [dataclasses.replace(case, model=large) for case in of_work]
    return of_work


def bound_seconds(case: Case, config: ModelConfig, machine: Machine) -> float:
    """Roofline bound: the shortest possible time of one repetition of a case on a machine."""
    s, B = case.shape, case.shape['batch']
    seconds = functools.partial(_pass_seconds, config, machine)

    def read(rows: int, tokens: int, start: int = 0) -> float:
        """Seconds to prefill `tokens` per row after `start` cached ones; logits of the last."""
        return seconds(rows=rows, tokens=tokens, length=start + tokens / 2, heads=1)

    def write(rows: float, tokens: int, start: int) -> float:
        """Seconds of decoding `tokens` per row after `start` cached ones; the cache grows."""
        return tokens * seconds(rows=rows, tokens=1, length=start + tokens / 2, heads=1)

    def train(rows: int, tokens: int, *, start: int = 0, trained: bool = True) -> float:
        """Seconds of forward and backward pass after `start` tokens; logits only if `trained`."""
        heads = tokens if trained else 0
        return 3 * seconds(rows=rows, tokens=tokens, length=start + tokens / 2, heads=heads)

    if case.work == 'decode':
        return read(B, s['prompt']) + write(B, s['new'], s['prompt'])
    if case.work == 'prefill':
        return read(B, s['prompt'])
    if case.work == 'ragged':
        total, longest = sum(s['lengths']), max(s['lengths'])
        steps = max(longest, -(-total // B))
        mean_before = sum(n * n for n in s['lengths']) / total / 2  # new tokens before a new token
        length = s['prompt'] + mean_before
        step = seconds(rows=total / steps, tokens=1, length=length, heads=1)
        return read(len(s['lengths']), s['prompt']) + steps * step
    if case.work == 'episode':
        attempt, critique = s['prompt'] + s['attempt'], s['critique']
        return (
            2 * read(s['problems'], s['prompt'])
            + write(B, s['attempt'], s['prompt'])
            + read(B, s['attempt'], s['prompt'])
            + write(B, critique, attempt)
            + read(B, critique + 1, attempt - 1)
            + write(B, s['refinement'], attempt + critique)
        )
    if case.work == 'sft':
        return train(B, s['length'])
    return (
        read(s['problems'], s['prompt'])
        + write(B, s['new'], s['prompt'])
        + train(s['problems'], s['prompt'], trained=False)
        + train(B, s['new'], start=s['prompt'])
    )


def _pass_seconds(
    config: ModelConfig, machine: Machine, *, rows: float, tokens: int, length: float, heads: int
) -> float:
    """Bound of one forward pass: rows of `tokens` that attend to `length` keys each.

    `heads` is the number of tokens of a row whose logits are computed.
    """
    head = 2.0 * config.vocab_size * config.embed_dim
    flops = forward_flops(config, tokens=1, length=length) * rows * tokens
    flops -= head * rows * (tokens - heads)
    element = np.dtype(config.dtype if config.dtype != 'bfloat16' else 'float16').itemsize
    bytes_ = (
        num_parameters(config) * element + cache_bytes(config, batch=1, length=1) * rows * length
    )
    return max(flops / machine.flops, bytes_ / machine.bandwidth)
