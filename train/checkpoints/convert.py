"""Converts models between the format of `transformers` and our model folders.

`import_model` reads one tensor at a time, straight onto the mesh, so the host never holds the whole
model. Besides folders of `transformers` it reads GGUF files, and adapters of PEFT. `export_model`
is its inverse: after both, the tensors of a folder are the same bit for bit, unless the dtype was
changed.

Families: Llama 2 and 3, Mistral, Mixtral, Qwen 2.5 and 3 (with experts too), Gemma 2 and 3. Of a
Gemma 3 with images only the text model is imported, and it is exported as a text-only model.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from elenchus.data.files import atomic, remote_folders
from elenchus.data.text import chat_templates
from elenchus.data.text.chat import Chat
from elenchus.model import config as config_lib
from elenchus.model import huggingface
from elenchus.model.config import ModelConfig
from elenchus.model.huggingface import (
    Family,
    peft_files,
    quantized_files,
    safetensors_files,
    stored_weights,
)
from elenchus.train.checkpoints import (
    carried_files,
    exported_chat,
    import_sources,
    peft_adapters,
    saved_models,
    stacked_parameters,
)

CONFIG = 'config.json'
REPLACED_KEYS = (
    *('rope_parameters', 'rope_theta', 'rope_scaling', 'dtype', 'torch_dtype'),
    *quantized_files.CONFIG_KEYS,
)
"""Keys dropped from a copied config.json: versions of `transformers` spell these settings in
different keys, and an old spelling would contradict the one that we write. Exported weights are
never quantized."""
FILE_BYTES = 5_000_000_000
"""Size limit of one safetensors file, as of `transformers`."""


def import_model(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    dtype: str | None,
    mesh: jax.sharding.Mesh,
    base: str | os.PathLike | None = None,
) -> str:
    """Converts a model into a model folder of ours; returns a one-line summary.

    Args:
        source: folder with config.json and safetensors files, folder of PEFT adapters, GGUF file,
            or `package:NAME` for the GGUF file in an installed package.
        target: folder that does not exist yet or is empty. It receives parameters and
            model_config.json, whose fields are the `model` section of a run's config, and copies of
            the tokenizer, chat template and generation config.
        dtype: 'float32' or 'bfloat16' of the stored parameters; None keeps that of the files.
        mesh: devices to load onto.
        base: model folder of ours, if `source` has adapters of PEFT for it.

    Raises ValueError, before anything is written, if the config asks for something that the model
    lacks, if a file is damaged or quantized (fp8 with its scales is dequantized), or if tensors are
    missing, unexpected, misshaped, not finite or, without `dtype`, of several dtypes.
    """
    target = saved_models.empty_folder(target)
    with remote_folders.fetched(import_sources.resolve_source(source)) as local:
        note = _import(local, target, dtype=dtype, mesh=mesh, base=base)
    return note.replace(f'{local} -> ', f'{source} -> ') if atomic.is_remote(source) else note


def _import(
    source: pathlib.Path,
    target: epath.Path,
    *,
    dtype: str | None,
    mesh: jax.sharding.Mesh,
    base: str | os.PathLike | None,
) -> str:
    """Imports a source that is on the local disk; see `import_model`."""
    is_gguf = import_sources.is_gguf(source)
    if not is_gguf and peft_adapters.is_adapter_folder(source):
        if dtype is not None:
            raise ValueError(f'--dtype={dtype}: adapters are stored in float32; leave it out')
        return _import_adapters(source, target, base=base, mesh=mesh)
    if base is not None:
        raise ValueError(f'--base={base}: {source} has no {peft_files.CONFIG}; leave --base out')
    if is_gguf:
        read = import_sources.read_gguf(source)
        hf_config, stored, fingerprint = read.hf_config, read.weights, read.fingerprint
    else:
        hf_config, stored = _read_folder(source)
        fingerprint = carried_files.fingerprint(source)
    family = huggingface.family_of(hf_config)
    dtype = dtype or _common_dtype(stored.dtypes)
    config = imported_config(family, hf_config, dtype)
    model = _load(config, family, stored, mesh=mesh)
    saved_models.save_model(target, model, tokenizer_fingerprint=fingerprint)
    if is_gguf:
        for name, text in read.files.items():
            atomic.write_text(target / name, text)
        hf_config = {**hf_config, **family.write_config(config), 'torch_dtype': dtype}
    else:
        carried_files.copy_files(source, target)
    _write_config(target, hf_config)
    return _summary(config, f'{family.architecture} in {dtype}: {source} -> {target}')


def _read_folder(
    source: pathlib.Path,
) -> tuple[dict[str, Any], stored_weights.StoredWeights]:
    """Returns the config.json and the weights of a folder of `transformers`."""
    hf_config, renamed = huggingface.text_only(_read_config(source))
    tied = huggingface.family_of(hf_config).read_config(hf_config)['tie_embeddings']
    return hf_config, stored_weights.list_weights(source, hf_config, renamed=renamed, tied=tied)


def _load(
    config: ModelConfig,
    family: Family,
    stored: import_sources.Weights,
    *,
    mesh: jax.sharding.Mesh,
) -> Any:
    """Loads the weights of a model onto the mesh, one tensor at a time."""
    model = saved_models.abstract_model(config, mesh)
    tensors = family.tensors(_shapes(saved_models.parameters(model)))
    import_sources.check_complete(tensors, stored)
    loaded = {
        name: stacked_parameters.load_parameter(
            leaf, [t for t in tensors if t.parameter == name], stored
        )
        for name, leaf in saved_models.parameters(model).items()
    }
    return saved_models.with_parameters(model, loaded)


def _import_adapters(source: pathlib.Path, target: pathlib.Path, *, base, mesh) -> str:
    """Imports adapters of PEFT; copies the tokenizer and config files of their base."""
    if base is None:
        raise ValueError(
            f'{source} has adapters of PEFT: import their base first, then name it with --base'
        )
    note = peft_adapters.import_adapters(source, target, base=base, mesh=mesh)
    base = epath.Path(base)
    carried_files.copy_files(base, target)
    if (base / CONFIG).exists():
        atomic.write_bytes(target / CONFIG, (base / CONFIG).read_bytes())
    return note


def imported_config(family: Family, hf_config: Mapping[str, Any], dtype: str) -> ModelConfig:
    """Config of an imported model: the family's fields, and our defaults for the numerics."""
    return ModelConfig(
        **family.read_config(hf_config),
        dtype=dtype,
        param_dtype=dtype,
        attention='einsum',
        remat='dots',
        scan_layers=True,
        logits_chunk=4096,
    )


def export_model(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    files: str | os.PathLike | None,
    mesh: jax.sharding.Mesh,
    file_bytes: int,
    template: str | None = None,
    system: str = chat_templates.PUBLISHED,
    base: str | None = None,
) -> str:
    """Converts a model folder of ours into one for `transformers`; returns a one-line summary.

    Args:
        source: model folder of ours.
        target: folder that does not exist yet or is empty.
        files: folder with the tokenizer, chat template and config.json files to copy; None: source,
            and the tokenizer of the run that trained the model. Its config.json names the family;
            without one, it is the first that can express the model's config.
        mesh: devices to load onto.
        file_bytes: size limit of one safetensors file.
        template: name of the chat template whose end token and text are written; None: that of
            the run that trained the model, if one did, with its system message.
        system: system message with `template`, as `tokenizer.system` of a run.
        base: of adapters, name or folder of their base model for `transformers`.

    Adapters become a folder of PEFT; merge them (scripts/merge.py) to export a whole model. Raises
    ValueError, before anything is written, if no family can express the model's config, or if the
    tokenizer in `files` is not that of the model or lacks tokens of the template.
    """
    source, target = epath.Path(source), saved_models.empty_folder(target)
    if files and not epath.Path(files).is_dir():
        raise ValueError(f'--files={files} is no folder; use one with a tokenizer and {CONFIG}')
    tokenizer = None if files else _tokenizer_above(source)
    files = epath.Path(files or source)
    texts = tokenizer.parent if tokenizer else files
    chat, note = _exported_chat(source, texts, template=template, system=system)
    is_whole = saved_models.saved_adaptation(source) is None
    if is_whole and base is not None:
        raise ValueError(f'--base={base}: {source} is a whole model; leave --base out')
    with remote_folders.delivered(target) as local:
        if is_whole:
            done = _export_whole(source, local, files=files, mesh=mesh, file_bytes=file_bytes)
        else:
            done = peft_adapters.export_adapters(source, local, base_name=base, mesh=mesh)
            carried_files.copy_files(files, local)
        if tokenizer:
            atomic.write_bytes(local / tokenizer.name, tokenizer.read_bytes())
        note = exported_chat.write_chat(local, chat) if chat else note
    return f'{done.replace(f"-> {local}", f"-> {target}")}; {note}'


def _export_whole(
    source: pathlib.Path,
    target: pathlib.Path,
    *,
    files: pathlib.Path,
    mesh: jax.sharding.Mesh,
    file_bytes: int,
) -> str:
    """Writes the weights, config.json and carried files of a whole model; returns a summary."""
    config, fingerprint = saved_models.read_description(source)
    family, hf_config = _exported_config(files, config)
    parameters = saved_models.parameters(
        saved_models.load_model(source, config, mesh=mesh, tokenizer_fingerprint=fingerprint)
    )
    tensors = {tensor.name: tensor for tensor in family.tensors(_shapes(parameters))}

    def values(name: str) -> np.ndarray:
        """Values of an exported tensor, on the host."""
        tensor = tensors[name]
        if not tensor.index:
            # np.asarray caches a host copy in the array: drop the array, or all copies add up.
            return tensor.to_tensor(np.asarray(parameters.pop(tensor.parameter)))
        part = stacked_parameters.take_part(parameters[tensor.parameter], tensor.index)
        return tensor.to_tensor(np.asarray(part))

    target.mkdir(parents=True, exist_ok=True)
    safetensors_files.write_tensors(
        target,
        {name: tensor.shape for name, tensor in tensors.items()},
        dtype=jnp.dtype(config.param_dtype),
        values=values,
        file_bytes=file_bytes,
    )
    carried_files.copy_files(files, target)
    _write_config(target, hf_config)
    return _summary(config, f'{family.architecture} in {config.param_dtype}: {source} -> {target}')


def _tokenizer_above(source: pathlib.Path) -> epath.Path | None:
    """Returns the tokenizer of the run that trained a model; None if its folder has one itself."""
    if carried_files.tokenizers(source):
        return None
    trained_with = saved_models.read_description(source)[1]
    found = carried_files.tokenizers_above(source).items()
    return next((path for path, digest in found if digest == trained_with), None)


def _exported_chat(
    source: pathlib.Path, files: pathlib.Path, *, template: str | None, system: str
) -> tuple[Chat | None, str]:
    """Returns (chat to write or None, what the summary says if there is none)."""
    trained = saved_models.saved_chat(source)
    if template is None and trained is None:
        return None, 'end tokens and chat template as copied (--template writes others)'
    fingerprint = saved_models.read_description(source)[1]
    layout = {'template': template, 'system': system} if template is not None else trained
    chat = exported_chat.load_chat(files, **layout, fingerprint=fingerprint)
    if chat is None and template is not None:
        raise ValueError(
            f'--template={template}: no tokenizer in {files}; name its folder: --files'
        )
    return chat, f'no tokenizer in {files}: end tokens and chat template not written (--files)'


def _exported_config(files: pathlib.Path, config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """Returns (family, config.json); keeps keys of the one in `files` but for REPLACED_KEYS."""
    copied = _read_config(files) if (files / CONFIG).exists() else {}
    copied, _ = huggingface.text_only(copied)  # `files` may be the folder of a model with images
    family = huggingface.family_of(copied) if copied else huggingface.family_for(config)
    hf_config = {key: value for key, value in copied.items() if key not in REPLACED_KEYS}
    hf_config |= family.write_config(config) | {'torch_dtype': config.param_dtype}
    if copied:  # a run's sequences may be shorter than the model's own maximum
        hf_config['max_position_embeddings'] = family.read_config(copied)['max_length']
    return family, hf_config


def _shapes(parameters: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in parameters.items()}


def _common_dtype(dtypes: set[str]) -> str:
    """The dtype of all tensors, if it is one that we store."""
    if dtypes not in ({'F32'}, {'BF16'}):
        raise ValueError(
            f'tensors have dtypes {sorted(dtypes)}; choose --dtype=float32 (exact) or '
            '--dtype=bfloat16'
        )
    return safetensors_files.DTYPES[next(iter(dtypes))].name


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Reads config.json; raises ValueError, naming the file, if one to be carried is damaged."""
    for path in carried_files.list_files(folder):
        safetensors_files.check_content(path)
    if not (folder / CONFIG).is_file():
        near = import_sources.beside(folder)
        raise ValueError(f'file not found: {folder / CONFIG}; use the folder of a model{near}')
    return safetensors_files.read_json(folder / CONFIG)


def _write_config(folder: pathlib.Path, hf_config: Mapping[str, Any]) -> None:
    atomic.write_text(folder / CONFIG, json.dumps(hf_config, indent=2) + '\n')


def _summary(config: ModelConfig, conversion: str) -> str:
    return f'{config_lib.num_parameters(config):,} parameters, {conversion}'
