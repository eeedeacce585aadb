"""Finds what a saved model needs to be sampled: its folder, tokenizer and chat template."""

import contextlib
import pathlib
from typing import NamedTuple

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.text import auto_chat, chat_templates, derived_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.tokenizer_json import JsonTokenizer
from elenchus.model.config import ModelConfig
from elenchus.train.checkpoints import carried_files, saved_models
from elenchus.train.config import build
from elenchus.train.run.paths import resolve

_GUESSES = {
    '<question>': 'elenchus',
    '<|im_start|>': 'chatml',
    '<|start_header_id|>': 'llama3',
    '<start_of_turn>': 'gemma',
    '[INST]': 'mistral',
}
"""Special token -> the template of models that have it and do not say theirs."""


class SavedPlayer(NamedTuple):
    """A saved model that can be sampled."""

    folder: pathlib.Path
    config: ModelConfig
    tokenizer: tokenizers.Tokenizer
    tokenizer_path: pathlib.Path | None  # None: that of the lab, which has no file
    template: chat_templates.Template


def find_player(flag: str, path: str, *, template: str = '') -> SavedPlayer:
    """Returns the player of a folder: a model, or a stage of a run or an export that holds one.

    The template is `template`, else that which the model was trained with, else the one that lies
    beside the tokenizer, else the one whose special tokens the tokenizer has. Raises ValueError,
    naming the flag, if something is missing.
    """
    folder = find_model(flag, path)
    config, fingerprint = saved_models.read_description(folder)
    tokenizer, tokenizer_path = find_tokenizer(flag, folder, fingerprint)
    saved = saved_models.saved_chat(folder) or {}
    name = template or saved.get('template') or published_template(flag, tokenizer, tokenizer_path)
    if name not in auto_chat.template_names():
        near = build.nearest(name, auto_chat.template_names())
        raise ValueError(f'unknown --template={name!r}; nearest: {near!r}')
    is_saved = saved.get('template') == name
    chat = auto_chat.load_chat(
        tokenizer,
        tokenizer_path.parent if tokenizer_path else None,
        template=name,
        system=saved.get('system', '') if is_saved else chat_templates.PUBLISHED,
        source=derived_templates.from_json(saved['source'])
        if is_saved and saved.get('source')
        else None,
    )
    return SavedPlayer(folder, config, chat.tokenizer, tokenizer_path, chat.template)


def published_template(
    flag: str, tokenizer: tokenizers.Tokenizer, path: pathlib.Path | None
) -> str:
    """Returns `auto` if the model's folder has a chat template, else the one that it guesses."""
    if path is not None and isinstance(tokenizer, JsonTokenizer):
        with contextlib.suppress(ValueError):
            derived_templates.read_source(path.parent)
            return derived_templates.AUTO
    return guess_template(flag, tokenizer)


def find_model(flag: str, path: str) -> epath.Path:
    """Returns the folder with the parameters: the one that is named, or its subfolder `model`."""
    folder = resolve(path)
    if not folder.is_dir():
        raise ValueError(
            f'folder not found: --{flag}={path}; use a saved model, such as OUT of '
            'scripts.convert import, or a stage of a run, such as runs/lab/stages/01-actor'
        )
    for candidate in (folder, folder / 'model'):
        if (candidate / saved_models.DESCRIPTION).is_file():
            return atomic.absolute(candidate)
    if (folder / 'config.json').is_file() and any(folder.glob('*.safetensors')):
        raise ValueError(
            f'--{flag}={path} is a folder of transformers; import it first: '
            f'python -m scripts.convert import {path} OUT'
        )
    stages = sorted(p.parent.name for p in folder.glob('stages/*/model'))
    hint = f'; nearest: {folder / "stages" / stages[-1]}' if stages else ''
    raise ValueError(f'no model in --{flag}={path}: {saved_models.DESCRIPTION} is missing{hint}')


def find_tokenizer(
    flag: str, folder: pathlib.Path, fingerprint: str
) -> tuple[tokenizers.Tokenizer, pathlib.Path | None]:
    """Returns the tokenizer whose file has the fingerprint, from the folder or those above it."""
    lab = tokenizers.lab_tokenizer()
    if fingerprint == lab.fingerprint:
        return lab, None
    seen = carried_files.tokenizers_above(folder)
    for path, digest in seen.items():
        if digest == fingerprint:
            return tokenizers.load_tokenizer(path), path
    names = ', '.join(f'{path} ({digest})' for path, digest in seen.items())
    others = f'; there is {names}' if seen else ''
    raise ValueError(
        f'--{flag}={folder}: its tokenizer {fingerprint} (tokenizer.json or tokenizer.model) is '
        f'neither there nor above{others}; copy it into {folder}'
    )


def guess_template(flag: str, tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the template whose special token the tokenizer has. Raises ValueError if none."""
    for token, name in _GUESSES.items():
        try:
            tokenizer.special(token)
        except ValueError:
            continue
        return name
    raise ValueError(
        f'--{flag}: the model does not say its chat template; set --template to one of '
        f'{", ".join(chat_templates.TEMPLATES)}'
    )
