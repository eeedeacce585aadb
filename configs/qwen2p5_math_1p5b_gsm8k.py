"""GSM8K from Qwen2.5-Math-1.5B, all weights trained.

configs/qwen2p5_math_1p5b_gsm8k.py         lr 1e-5 linear, 10 % warm-up, 64 rows of 1024 tokens
configs/qwen2p5_math_1p5b_gsm8k.py:lora    adapters of rank 32, lr 2e-4

models/qwen2p5_math_1p5b/ holds the converted model and its tokenizer.
"""

from ml_collections import ConfigDict

from configs import _released, lab

NAME = 'qwen2p5_math_1p5b'


def default() -> ConfigDict:
    return fine_tuned(_released.adamw(1e-5, warmup_fraction=0.1))


def lora() -> ConfigDict:
    made = fine_tuned(_released.adamw(2e-4, warmup_fraction=0.1))
    return _released.adapt(made, lab.lora(rank=32, alpha=64.0))


def fine_tuned(optimizer: dict) -> ConfigDict:
    folder = f'models/{NAME}'
    return _released.config(
        _released.QWEN2P5_MATH_1P5B, folder, optimizer, template='qwen2.5', num_steps=100
    )


def get_config(arg: str = 'default') -> ConfigDict:
    variants = {'default': default, 'lora': lora}
    lab.check_variant(f'{NAME}_gsm8k', arg, variants)
    return variants[arg]()
