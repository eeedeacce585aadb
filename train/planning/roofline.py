"""What limits a run on a machine that is not there: a step of training and of decoding, by shape.

python -m scripts.tools.roofline                          # the table of docs/scale.md
python -m scripts.tools.roofline --rows=512 --length=2048 --slots=4096

Bounds, not forecasts: every part is taken at the published peak and all parts overlap.
"""

import dataclasses
from collections.abc import Mapping

from elenchus.model import config as model_config
from elenchus.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Machine:
    """Chips of one kind: published peaks of each, in bf16."""

    chips: int
    flops: float  # a second
    memory: float  # bytes
    bandwidth: float  # of memory, bytes a second
    link: float  # to the other chips, bytes a second in one direction


MACHINES = {
    'v5e-256': Machine(256, 197e12, 16e9, 819e9, 100e9),
    'v5p-128': Machine(64, 459e12, 95e9, 2765e9, 300e9),
    '8xh100': Machine(8, 989e12, 80e9, 3350e9, 450e9),
}
"""A TPU's link is half its published interchip bandwidth, which counts both directions; the name
v5p-128 counts cores, two a chip. Sources: the vendors' pages of TPU v5e, v5p and H100 SXM."""

GSM8K = ModelConfig(  # that of configs/gsm8k.py
    vocab_size=8192,
    num_layers=16,
    embed_dim=768,
    mlp_dim=2048,
    num_heads=12,
    num_kv_heads=4,
    head_dim=64,
    max_length=1024,
    windows=(0,),
    rope_theta=10000.0,
    local_rope_theta=0.0,
    rope_scaling=None,
    norm_epsilon=1e-6,
    zero_centered_norms=False,
    post_norms=False,
    qkv_bias=False,
    qk_norm=True,
    query_scale_dim=0,
    attention_soft_cap=0.0,
    logits_soft_cap=0.0,
    scale_embeddings=False,
    tie_embeddings=True,
    activation='silu',
    dtype='bfloat16',
    param_dtype='float32',
    attention='einsum',
    remat='dots',
    scan_layers=True,
    logits_chunk=256,
)
LLAMA_8B = dataclasses.replace(
    GSM8K,
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
LLAMA_70B = dataclasses.replace(
    LLAMA_8B, num_layers=80, embed_dim=8192, mlp_dim=28_672, num_heads=64
)
MODELS = {'0.1B': GSM8K, '8B': LLAMA_8B, '70B': LLAMA_70B}


def train_seconds(c: ModelConfig, m: Machine, *, rows: int, length: int) -> dict[str, float]:
    """A training step, weights and state over all chips (fsdp): what each limit alone would take.

    Computing is three forward passes. Each chip receives all bf16 weights twice (forward and
    backward pass) and sends its float32 gradients once.
    """
    flops = 3 * model_config.forward_flops(c, tokens=rows * length, length=length / 2)
    received = model_config.num_parameters(c) * (2 * 2 + 4) * (m.chips - 1) / m.chips
    return {'compute': flops / (m.chips * m.flops), 'link': received / m.link}


def state_bytes(c: ModelConfig, m: Machine) -> float:
    """Float32 weights, gradients and Adam's two moments on each chip."""
    return 16 * model_config.num_parameters(c) / m.chips


def least_tokens(m: Machine) -> float:
    """Tokens of a batch for each chip from which a step is bound by computing, for any model.

    6 P tokens / flops > 8 P / link, attention left out.
    """
    return 8 * m.flops / (6 * m.link)


def decode_seconds(
    c: ModelConfig, m: Machine, *, slots: int, length: int, tensor: int
) -> dict[str, float]:
    """One token for every slot, slots over data, weights over `tensor` chips.

    A chip reads its share of the weights, and of its slots' caches, half full; after each of two
    products a layer, the tensor shards add up their activations.
    """
    own = slots * tensor / m.chips
    weights = 2 * model_config.num_parameters(c) / tensor
    cache = own / tensor * length / 2 * c.num_layers * 2 * c.num_kv_heads * c.head_dim * 2
    sent = 2 * c.num_layers * own * c.embed_dim * 2 * 2 * (tensor - 1) / tensor
    flops = model_config.forward_flops(c, tokens=1, length=length / 2) * slots / m.chips
    return {
        'weights': weights / m.bandwidth,
        'cache': cache / m.bandwidth,
        'compute': flops / m.flops,
        'link': sent / m.link,
    }


def smallest_tensor(c: ModelConfig, m: Machine) -> int:
    """The fewest chips that hold the bf16 weights of two players in half of their memory.

    As many as there are key heads at most: these are split over `tensor`.
    """
    tensor = 1
    while (
        tensor < min(m.chips, c.num_kv_heads)
        and 4 * model_config.num_parameters(c) / tensor > m.memory / 2
    ):
        tensor *= 2
    return tensor


def limit(parts: Mapping[str, float]) -> tuple[str, float]:
    name = max(parts, key=parts.__getitem__)
    return name, parts[name]


def table(*, rows: int, length: int, slots: int) -> list[str]:
    """Markdown rows: what binds each model on each machine, and how fast it then is at most."""
    head = ('machine', 'model', 'state a chip', 'train step', 'bound by', 'tokens/s', 'tensor')
    head += ('decode step', 'bound by', 'tokens/s')
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for name, m in MACHINES.items():
        for size, c in MODELS.items():
            why, step = limit(train_seconds(c, m, rows=rows, length=length))
            held, tensor = state_bytes(c, m), smallest_tensor(c, m)
            slow, token = limit(decode_seconds(c, m, slots=slots, length=length, tensor=tensor))
            fits = '' if held < 0.8 * m.memory else ' (too much)'
            players = 4 * model_config.num_parameters(c) / tensor
            room = '' if players < 0.8 * m.memory else ' (too few)'
            cells = (name, size, f'{held / 1e9:.2f} GB{fits}', f'{step * 1e3:.1f} ms', why)
            cells += (
                f'{rows * length / step:,.0f}',
                f'{tensor}{room}',
                f'{token * 1e3:.2f} ms',
                slow,
            )
            lines.append('| ' + ' | '.join((*cells, f'{slots / token:,.0f}')) + ' |')
    return lines
