"""Writes the end token and chat template that a model was trained with into an exported folder.

A base model that was trained under a chat template ends its turns with that template's end token.
The model's published files do not name it, so other programs would never stop.
"""

import json
import os
import pathlib
from typing import Any

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.text import auto_chat, derived_templates, jinja_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.data.text.tokenizer import Tokenizer
from elenchus.model.huggingface import safetensors_files
from elenchus.train.checkpoints import carried_files
from elenchus.train.config import build

CONFIGS = ('config.json', 'generation_config.json')
TEMPLATE_FILE = 'chat_template.jinja'


def load_chat(
    files: str | os.PathLike, *, template: str, system: str, fingerprint: str, source: str = ''
) -> Chat | None:
    """Returns the chat of an exported model; None if the folder has no tokenizer.

    Args:
        files: folder with the tokenizer that is exported.
        template: name of a chat template.
        system: its system message, as in `tokenizer.system` of a run.
        source: of a derived template, its JSON text; '': read from the folder.
        fingerprint: of the tokenizer that the model was trained with; '' if it is not known.

    Raises ValueError if the template is unknown, or the tokenizer is another or lacks its tokens.
    """
    if template not in auto_chat.template_names():
        near = build.nearest(template, auto_chat.template_names())
        raise ValueError(f'unknown template {template!r}; nearest: {near!r}')
    paths = carried_files.tokenizers(epath.Path(files))
    hashes = {path: carried_files.file_hash(path) for path in paths}
    if not hashes:
        return None
    # A folder may have the same tokenizer in both formats, with a hash for each.
    fitting = [path for path, value in hashes.items() if fingerprint in ('', value)]
    if not fitting:
        path, value = next(iter(hashes.items()))
        raise ValueError(
            f'{path} is the tokenizer {value}, but the model was trained with '
            f'{fingerprint}: use the folder of that one as --files'
        )
    return auto_chat.load_chat(
        tokenizers.load_tokenizer(fitting[0]),
        files,
        template=template,
        system=system,
        source=derived_templates.from_json(source) if source else None,
    )


def write_chat(folder: pathlib.Path, chat: Chat) -> str:
    """Writes end tokens and chat template into the files of a folder; returns a short summary.

    The end token becomes the first of `eos_token_id` in config.json and generation_config.json,
    where the ids that are there stay, and the tokenizer's `eos_token`. The template is written to
    chat_template.jinja and, for older versions of `transformers`, to tokenizer_config.json.
    """
    end, text = chat.template.ending[-1].name, jinja_templates.chat_template(chat.template)
    for name in CONFIGS:
        if name == CONFIGS[0] and not (folder / name).exists():
            continue  # a folder of adapters, whose model is elsewhere
        values = _read(folder / name)
        _write(folder / name, values | {'eos_token_id': end_ids(values, chat.end_id)})
    for path in folder.glob('chat_template*'):
        path.unlink()
    atomic.write_text(folder / TEMPLATE_FILE, text)
    path = folder / 'tokenizer_config.json'
    kind, warning = {}, ''
    if not path.exists():
        name, warning = _tokenizer_class(chat.tokenizer)
        kind = {'tokenizer_class': name} if name else {}
    _write(path, kind | _read(path) | {'eos_token': end, 'chat_template': text})
    path = folder / 'special_tokens_map.json'
    if path.exists():
        _write(path, _read(path) | {'eos_token': end})
    return f'ends with {end} ({chat.end_id}), chat template {chat.template.name}{warning}'


def end_ids(values: dict[str, Any], end_id: int) -> int | list[int]:
    """Returns `eos_token_id` with an end token added in front, unless it is there already."""
    ids = values.get('eos_token_id')
    ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    if end_id not in ids:
        ids = [end_id, *ids]
    return ids[0] if len(ids) == 1 else ids


def _tokenizer_class(tokenizer: Tokenizer) -> tuple[str, str]:
    """Returns (class of `transformers` that reads a tokenizer's file or '', a warning or '')."""
    if tokenizer.file_name == 'tokenizer.json':
        return 'PreTrainedTokenizerFast', ''
    if tokenizer.model_type == 'bpe':
        return 'LlamaTokenizer', ''
    # LlamaTokenizer and T5Tokenizer (5.24) encode with such a file to other ids, silently.
    return '', (
        f'; tokenizer.model is SentencePiece of type {tokenizer.model_type}, which transformers '
        'does not read: encode with the library sentencepiece'
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    return safetensors_files.read_json(path) if path.exists() else {}


def _write(path: pathlib.Path, values: dict[str, Any]) -> None:
    atomic.write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + '\n')
