"""Model families: what a config.json and its tensors are among ours, in both directions."""

import difflib

from model.config import ModelConfig
from model.families.family import Described, Family, Tensor
from model.families.gemma import GEMMA2, GEMMA3
from model.families.llama import LLAMA
from model.families.mistral import MISTRAL
from model.families.qwen import QWEN2, QWEN3

__all__ = ['DERIVED', 'FAMILIES', 'Described', 'Family', 'Tensor', 'described_by', 'able_to_say']

FAMILIES = {f.model_type: f for f in (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3)}

DERIVED = '.rotary_emb.inv_freq'
"""How the names of tensors end that older files store although config.json says what is in them."""


def described_by(described: Described) -> Family:
    """The family of a config.json. Raises ValueError where it is none of FAMILIES."""
    kind = str(described.get('model_type'))
    if kind not in FAMILIES:
        near = difflib.get_close_matches(kind, FAMILIES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'config.json: model_type={kind!r} is none of {list(FAMILIES)}; nearest: {near!r}'
        )
    return FAMILIES[kind]


def able_to_say(config: ModelConfig) -> Family:
    """The first family whose config.json can say what `config` does.

    Raises ValueError where none can, with what each lacks.
    """
    lacking = []
    for family in FAMILIES.values():
        try:
            family.write_config(config)
        except ValueError as error:
            lacking.append(str(error))
        else:
            return family
    raise ValueError('no family can have this model: ' + '; '.join(lacking))
