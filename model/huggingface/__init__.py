"""Model families of Hugging Face: maps config.json and tensors to and from our models."""

import difflib
import re
from collections.abc import Callable

from elenchus.model.config import ModelConfig
from elenchus.model.huggingface.family import Family, HFConfig, Tensor
from elenchus.model.huggingface.gemma import GEMMA2, GEMMA3
from elenchus.model.huggingface.llama import LLAMA
from elenchus.model.huggingface.mistral import MISTRAL
from elenchus.model.huggingface.mixtral import MIXTRAL
from elenchus.model.huggingface.qwen import QWEN2, QWEN3, QWEN3_MOE

__all__ = [
    'FAMILIES',
    'VISION_MODELS',
    'Family',
    'HFConfig',
    'Tensor',
    'family_for',
    'family_of',
    'text_only',
]

_ALL = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, MIXTRAL, QWEN3_MOE)
FAMILIES = {f.model_type: f for f in _ALL}
"""model_type of config.json -> family, in the order that `family_for` tries them."""

VISION_MODELS = {'gemma3': 'gemma3_text'}
"""model_type of a vision-language model -> that of its text-only part."""

_SHARED_KEYS = ('tie_word_embeddings', 'quantization_config')
"""Keys that belong to the whole of a vision-language model; its text part may repeat them."""

_VISION_TENSOR = re.compile(r'(model\.)?(vision_tower|multi_modal_projector)\.')
_TEXT_PREFIX = re.compile(r'language_model\.(?=model\.|lm_head\.)|(?<=^model\.)language_model\.')


def text_only(hf_config: HFConfig) -> tuple[HFConfig, Callable[[str], str | None]]:
    """Returns the config.json of the text part and a function that renames its tensors.

    The function returns None for a tensor of the vision part. A text-only model is unchanged. Ids
    of special tokens are kept. Knows the names of published files (`language_model.model.`) and of
    newer `transformers` (`model.language_model.`).
    """
    if str(hf_config.get('model_type')) not in VISION_MODELS:
        return hf_config, lambda name: name
    if not isinstance(hf_config.get('text_config'), dict):
        raise ValueError(f'config.json of {hf_config["model_type"]}: missing key text_config')
    shared = {k: v for k, v in hf_config.items() if k.endswith('_token_id') or k in _SHARED_KEYS}
    model_type = {'model_type': VISION_MODELS[hf_config['model_type']]}
    return (
        shared | hf_config['text_config'] | model_type,
        lambda name: None if _VISION_TENSOR.match(name) else _TEXT_PREFIX.sub('', name, count=1),
    )


def family_of(hf_config: HFConfig) -> Family:
    """Returns the family of a config.json. Raises ValueError for an unknown model_type."""
    kind = str(hf_config.get('model_type'))
    if kind not in FAMILIES:
        nearest = difflib.get_close_matches(kind, FAMILIES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'config.json: unknown model_type={kind!r}; known: {list(FAMILIES)}; '
            f'nearest: {nearest!r}'
        )
    return FAMILIES[kind]


def family_for(config: ModelConfig) -> Family:
    """Returns the first family whose config.json can express `config`.

    Raises ValueError if no family can, with the fields that each cannot express.
    """
    errors = []
    for family in FAMILIES.values():
        try:
            family.write_config(config)
        except ValueError as error:
            errors.append(str(error))
        else:
            return family
    raise ValueError('no family can express this model: ' + '; '.join(errors))
