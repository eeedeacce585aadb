"""What scripts/bench measures: sizes, cases, and the least time that a machine needs for each.

The bound of one forward pass is a roofline: the larger of its operations over the machine's matrix
multiplication rate and its bytes over the machine's read bandwidth. A case is a number of passes.
"""

import dataclasses
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
    'episode': ('ours', 'ours, nothing parked', 'hf', 'tunix'),
    'sft': ('ours', 'torch', 'tunix'),
    'grpo': ('ours', 'trl', 'tunix'),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to measure; all that a worker needs, as JSON."""

    work: str
    size: str
    model: dict[str, int]
    shape: dict[str, Any]

    @property
    def name(self) -> str:
        vocabulary = self.model['vocab_size']
        other = f' V{vocabulary}' if vocabulary != SIZES[self.size]['vocab_size'] else ''
        return f'{self.work} {self.size}{other} B{self.shape["batch"]}'


class Machine(NamedTuple):
    """What one was measured to do."""

    flops: float  # a second, in matrix multiplications
    bandwidth: float  # bytes read a second


def load_settings(config: str, shape: dict[str, int]) -> RunSettings:
    """What a config file says, with a model of another shape and positions enough."""
    run = build.build(RunSettings, runpy.run_path(config)['get_config']())
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, **shape, qk_norm=False, max_length=1024)
    )


def cases(size: str, work: str) -> list[Case]:
    """The cases of a kind of work at a size."""
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
    found = [Case(work, size, SIZES[size], shape) for shape in shapes[work]]
    if work == 'sft':
        large = SIZES[size] | {'vocab_size': 32768, 'logits_chunk': 64}
        found += [dataclasses.replace(case, model=large) for case in found]
    return found


def bound_seconds(case: Case, config: ModelConfig, machine: Machine) -> float:
    """The least time of one repetition of a case on a machine: the roofline."""
    s, B = case.shape, case.shape['batch']

    def read(rows: int, tokens: int, start: int = 0) -> float:
        """Rows of `tokens` after `start` others, logits for the last token alone."""
        return _pass(config, machine, rows, tokens, start + tokens / 2, heads=1)

    def write(rows: float, tokens: int, start: int) -> float:
        """`tokens` steps of one token a row; what is attended to grows."""
        return tokens * _pass(config, machine, rows, 1, start + tokens / 2, heads=1)

    def train(rows: int, tokens: int, *, start: int = 0, trained: bool = True) -> float:
        """Forward and backward, after `start` others; logits where they are `trained` on."""
        heads = tokens if trained else 0
        return 3 * _pass(config, machine, rows, tokens, start + tokens / 2, heads=heads)

    if case.work == 'decode':
        return read(B, s['prompt']) + write(B, s['new'], s['prompt'])
    if case.work == 'prefill':
        return read(B, s['prompt'])
    if case.work == 'ragged':
        total, longest = sum(s['lengths']), max(s['lengths'])
        steps = max(longest, -(-total // B))
        mean = sum(n * n for n in s['lengths']) / total / 2  # tokens before the one being written
        step = _pass(config, machine, total / steps, 1, s['prompt'] + mean, heads=1)
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


def _pass(
    config: ModelConfig, machine: Machine, rows: float, tokens: int, length: float, *, heads: int
) -> float:
    """One forward pass: rows of `tokens`, attending to `length` keys, logits of `heads` a row."""
    head = 2.0 * config.vocab_size * config.embed_dim
    flops = forward_flops(config, tokens=1, length=length) * rows * tokens
    flops -= head * rows * (tokens - heads)
    element = np.dtype(config.dtype if config.dtype != 'bfloat16' else 'float16').itemsize
    bytes_ = (
        num_parameters(config) * element + cache_bytes(config, batch=1, length=1) * rows * length
    )
    return max(flops / machine.flops, bytes_ / machine.bandwidth)
