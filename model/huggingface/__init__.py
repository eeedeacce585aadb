"""Model families: what a config.json and its tensors are among ours, in both directions."""

import difflib
import re
from collections.abc import Callable

from elenchus.model.config import ModelConfig
from elenchus.model.huggingface.family import Described, Family, Tensor
from elenchus.model.huggingface.gemma import GEMMA2, GEMMA3
from elenchus.model.huggingface.llama import LLAMA
from elenchus.model.huggingface.mistral import MISTRAL
from elenchus.model.huggingface.qwen import QWEN2, QWEN3

__all__ = [
    'DERIVED',
    'FAMILIES',
    'Described',
    'Family',
    'Tensor',
    'able_to_say',
    'described_by',
    'text_part',
]

FAMILIES = {f.model_type: f for f in (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3)}

DERIVED = '.rotary_emb.inv_freq'
"""How the names of tensors end that older files store although config.json says what is in them."""


SEEING = {'gemma3': 'gemma3_text'}
"""Models of text and images, and what their part about text is alone."""

_OF_IMAGES = re.compile(r'(model\.)?(vision_tower|multi_modal_projector)\.')
_OF_TEXT = re.compile(r'language_model\.(?=model\.|lm_head\.)|(?<=^model\.)language_model\.')


def text_part(described: Described) -> tuple[Described, Callable[[str], str | None]]:
    """(the config.json of the part about text, the names that tensors have there).

    A tensor of images has no name. Nothing changes for a model of text alone. Ids of special tokens
    stay. Names are those of published files (`language_model.model.`) and those of newer
    `transformers` (`model.language_model.`).
    """
    if described.get('model_type') not in SEEING:
        return described, lambda name: name
    if not isinstance(described.get('text_config'), dict):
        raise ValueError(f'a {described["model_type"]} config.json without text_config')
    ids = {key: value for key, value in described.items() if key.endswith('_token_id')}
    kind = {'model_type': SEEING[described['model_type']]}
    return (
        ids | described['text_config'] | kind,
        lambda name: None if _OF_IMAGES.match(name) else _OF_TEXT.sub('', name, count=1),
    )


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
