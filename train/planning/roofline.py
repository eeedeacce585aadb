"""Roofline bounds of a training step and a decoding step, by model shape and machine.

python -m scripts.tools.roofline                          # the table of docs/scale.md
python -m scripts.tools.roofline --rows=512 --length=2048 --slots=4096

These are bounds, not forecasts: every part runs at its published peak, and all parts overlap.
The second table is of an iteration of GRPO: sampling and updates on all chips by turns, or at the
same time on chips of their own (`reinforce.rollout_devices`), with weights one iteration older.
"""

import dataclasses
import functools
from collections.abc import Mapping

from elenchus.model import config as model_config
from elenchus.model.config import ModelConfig
from elenchus.train.planning import machines


@dataclasses.dataclass(frozen=True)
class Machine:
    """Chips of one kind, with the published peaks of each."""

    num_chips: int
    memory_bytes: float  # of one chip, with decimal prefixes (1 GB = 1e9 bytes)
    peaks: machines.Peaks


def machine(name: str) -> Machine:
    """Returns a machine by name, such as 'v5e-256'; its chip must have `peaks` in CHIPS."""
    topology = machines.topology(name)
    chip = machines.CHIPS[topology.chip]
    return Machine(topology.num_chips, chip.memory_size * 1e9, chip.peaks)


MACHINES = {name: machine(name) for name in ('v5e-256', 'v5p-128', '8xh100')}


def models(gsm8k: ModelConfig) -> dict[str, ModelConfig]:
    """Models of the table by size: that of configs/gsm8k.py, and the shapes of Llama 3."""
    llama_8b = dataclasses.replace(
        gsm8k,
        vocab_size=128_256,
        num_layers=32,
        embed_dim=4096,
        mlp_dim=14_336,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        max_length=8192,
        qk_norm=False,
        tie_embeddings=False,
    )
    llama_70b = dataclasses.replace(
        llama_8b, num_layers=80, embed_dim=8192, mlp_dim=28_672, num_heads=64
    )
    return {'0.1B': gsm8k, '8B': llama_8b, '70B': llama_70b}


def train_seconds(c: ModelConfig, m: Machine, *, rows: int, length: int) -> dict[str, float]:
    """Seconds of a training step if each limit acted alone; weights and state are sharded (fsdp).

    The compute is three forward passes. Each chip receives all bf16 weights twice (forward and
    backward pass) and sends its float32 gradients once.
    """
    flops = 3 * model_config.forward_flops(c, tokens=rows * length, length=length / 2)
    sent_bytes = model_config.num_parameters(c) * (2 * 2 + 4) * (m.num_chips - 1) / m.num_chips
    return {
        'compute': flops / (m.num_chips * m.peaks.flops_per_s),
        'link': sent_bytes / m.peaks.link_bytes_per_s,
    }


def state_bytes(c: ModelConfig, m: Machine) -> float:
    """Bytes of float32 weights, gradients and Adam's two moments on each chip."""
    return 16 * model_config.num_parameters(c) / m.num_chips


def compute_bound_tokens(m: Machine) -> float:
    """Smallest batch, in tokens per chip, for which training is compute-bound, for any model.

    Solves 6 P tokens / flops = 8 P / link, for P parameters; attention is not counted.
    """
    return 8 * m.peaks.flops_per_s / (6 * m.peaks.link_bytes_per_s)


def decode_seconds(
    c: ModelConfig, m: Machine, *, slots: int, length: int, tensor: int
) -> dict[str, float]:
    """Seconds of one token for every slot; slots are sharded over data, weights over `tensor`.

    A chip reads its share of the weights and of its slots' caches, which are half full on average.
    After each of two products per layer the tensor shards add up their activations.
    """
    slots_per_shard = slots * tensor / m.num_chips
    weights = 2 * model_config.num_parameters(c) / tensor
    tokens_cached = slots_per_shard / tensor * length / 2
    cache = tokens_cached * c.num_layers * 2 * c.num_kv_heads * c.head_dim * 2
    sent = 2 * c.num_layers * slots_per_shard * c.embed_dim * 2 * 2 * (tensor - 1) / tensor
    flops = model_config.forward_flops(c, tokens=1, length=length / 2) * slots / m.num_chips
    return {
        'weights': weights / m.peaks.memory_bytes_per_s,
        'cache': cache / m.peaks.memory_bytes_per_s,
        'compute': flops / m.peaks.flops_per_s,
        'link': sent / m.peaks.link_bytes_per_s,
    }


def smallest_tensor(c: ModelConfig, m: Machine) -> int:
    """Fewest chips that hold the bf16 weights of both players in half of their memory.

    At most the number of key/value heads, because these are sharded over `tensor`.
    """
    tensor = 1
    while (
        tensor < min(m.num_chips, c.num_kv_heads)
        and 4 * model_config.num_parameters(c) / tensor > m.memory_bytes / 2
    ):
        tensor *= 2
    return tensor


def slowest(parts: Mapping[str, float]) -> tuple[str, float]:
    """(name, seconds) of the part that takes longest, which bounds the step."""
    name = max(parts, key=parts.__getitem__)
    return name, parts[name]


def table(gsm8k: ModelConfig, *, rows: int, length: int, slots: int) -> list[str]:
    """Markdown lines: the bound of each model on each machine, and the resulting speed."""
    head = ('machine', 'model', 'state a chip', 'train step', 'bound by', 'tokens/s', 'tensor')
    head += ('decode step', 'bound by', 'tokens/s')
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for name, m in MACHINES.items():
        for size, c in models(gsm8k).items():
            train_bound, train_step = slowest(train_seconds(c, m, rows=rows, length=length))
            state, tensor = state_bytes(c, m), smallest_tensor(c, m)
            decode_parts = decode_seconds(c, m, slots=slots, length=length, tensor=tensor)
            decode_bound, decode_step = slowest(decode_parts)
            # Above 80 % of the memory nothing remains for activations or caches.
            state_note = '' if state < 0.8 * m.memory_bytes else ' (too much)'
            players = 4 * model_config.num_parameters(c) / tensor
            tensor_note = '' if players < 0.8 * m.memory_bytes else ' (too few)'
            cells = (
                name,
                size,
                f'{state / 1e9:.2f} GB{state_note}',
                f'{train_step * 1e3:.1f} ms',
                train_bound,
                f'{rows * length / train_step:,.0f}',
                f'{tensor}{tensor_note}',
                f'{decode_step * 1e3:.2f} ms',
                decode_bound,
                f'{slots / decode_step:,.0f}',
            )
            lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def iteration_seconds(
    c: ModelConfig, m: Machine, *, rows: int, length: int, share: float = 0.0
) -> tuple[float, float]:
    """(seconds of sampling, seconds of the update) of an iteration of `rows` sequences.

    The longest sequence has `length` tokens, the mean is half of it. A `share` of the chips samples
    and the others train; 0: all do both. Then the update needs no pass for the log-probabilities of
    the weights that sampled, which otherwise is a forward pass more. Each copy of the weights that
    samples is received over the links.
    """
    sampling = dataclasses.replace(m, num_chips=round(m.num_chips * (share or 1)))
    training = dataclasses.replace(m, num_chips=m.num_chips - sampling.num_chips * bool(share))
    tensor = smallest_tensor(c, m)
    _, step = slowest(decode_seconds(c, sampling, slots=rows, length=length, tensor=tensor))
    copy = 2 * model_config.num_parameters(c) / tensor / m.peaks.link_bytes_per_s
    _, update = slowest(train_seconds(c, training, rows=rows, length=length // 2))
    return copy + length * step, update * (4 / 3 if share else 1)


def overlap_table(gsm8k: ModelConfig, *, rows: int, length: int) -> list[str]:
    """Markdown lines: an iteration by turns, and on the best division of the chips."""
    head = ('machine', 'model', 'sampling', 'update', 'by turns', 'chips that sample')
    head += ('at the same time', 'times as fast')
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for name, m in MACHINES.items():
        for size, c in models(gsm8k).items():
            parts = functools.partial(iteration_seconds, c, m, rows=rows, length=length)
            tensor, serial = smallest_tensor(c, m), parts()
            counts = range(tensor, m.num_chips, tensor)
            if not counts:
                continue
            best = min(counts, key=lambda n: max(parts(share=n / m.num_chips)))
            seconds = max(parts(share=best / m.num_chips))
            cells = (
                *(name, size, f'{serial[0]:.1f} s', f'{serial[1]:.1f} s', f'{sum(serial):.1f} s'),
                *(f'{best}', f'{seconds:.1f} s', f'{sum(serial) / seconds:.2f}'),
            )
            lines.append('| ' + ' | '.join(cells) + ' |')
    return lines
