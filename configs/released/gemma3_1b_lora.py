"""GSM8K from Gemma 3 1B: actor and critic are two adapters on one frozen base.

configs/released/gemma3_1b_lora.py         the base in bfloat16
configs/released/gemma3_1b_lora.py:int8    its blocks' matrices in 8 bits
configs/released/gemma3_1b_lora.py:nf4     ... in 4 bits

models/gemma3_1b/ holds the converted model and its tokenizer.
"""

from ml_collections import ConfigDict

from elenchus.configs import defaults, derive
from elenchus.configs.released import shapes


def default() -> ConfigDict:
    """Returns adapters of rank 16 on a base in bfloat16."""
    optimizer = shapes.adamw(2e-4, schedule='cosine', warmup_fraction=0.03)
    config = shapes.config(
        shapes.GEMMA3_1B, 'models/gemma3_1b', optimizer, template='gemma', num_steps=100
    )
    return shapes.with_adapters(config, defaults.lora(rank=16, alpha=32.0))


def quantized(kind: str) -> ConfigDict:
    """Returns the same on a quantized base."""
    config = default()
    config.base.quantize = kind
    return config


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    variants = {
        'default': default,
        'int8': lambda: quantized('int8'),
        'nf4': lambda: quantized('nf4'),
    }
    derive.check_variant('gemma3_1b_lora', arg, variants)
    return variants[arg]()
