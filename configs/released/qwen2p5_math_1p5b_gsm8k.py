"""GSM8K from Qwen2.5-Math-1.5B, all weights trained.

qwen2p5_math_1p5b_gsm8k.py        lr 1e-5 linear, 10 % warm-up, 64 rows of 1024 tokens
qwen2p5_math_1p5b_gsm8k.py:lora    adapters of rank 32, lr 2e-4

models/qwen2p5_math_1p5b/ holds the converted model and its tokenizer.
"""

from ml_collections import ConfigDict

from elenchus.configs import defaults, derive
from elenchus.configs.released import shapes

NAME = 'qwen2p5_math_1p5b'


def default() -> ConfigDict:
    """Returns a fine-tuning of all weights."""
    return fine_tuned(shapes.adamw(1e-5, warmup_fraction=0.1))


def lora() -> ConfigDict:
    """Returns adapters of rank 32."""
    config = fine_tuned(shapes.adamw(2e-4, warmup_fraction=0.1))
    return shapes.with_adapters(config, defaults.lora(rank=32, alpha=64.0))


def fine_tuned(optimizer: dict) -> ConfigDict:
    """Returns the stages of GSM8K with one optimizer for all."""
    folder = f'models/{NAME}'
    return shapes.config(
        shapes.QWEN2P5_MATH_1P5B, folder, optimizer, template='qwen2.5-math', num_steps=100
    )


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    variants = {'default': default, 'lora': lora}
    derive.check_variant(f'{NAME}_gsm8k', arg, variants)
    return variants[arg]()
