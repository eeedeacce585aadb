"""GSM8K from Qwen3-0.6B, all weights trained: lr 1e-5 linear, 10 % warm-up, 64 rows of 1024 tokens.

configs/released/qwen3_0p6b_gsm8k.py

models/qwen3_0p6b/ holds the converted model and its tokenizer. Template `chatml` is the prompt of a
model that thinks; `--config.tokenizer.template=qwen3` is the published one without thinking.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive
from elenchus.configs.released import shapes


def default() -> ConfigDict:
    """Returns a fine-tuning of all weights."""
    optimizer = shapes.adamw(1e-5, warmup_fraction=0.1)
    return shapes.config(
        shapes.QWEN3_0P6B, 'models/qwen3_0p6b', optimizer, template='chatml', num_steps=100
    )


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('qwen3_0p6b_gsm8k', arg, ('default',))
    return default()
