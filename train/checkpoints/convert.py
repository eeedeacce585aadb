"""Conversion between folders of `transformers` models and our model folders.

`import_model` reads config.json and the safetensors files one tensor at a time, straight onto the
mesh, so the host never holds the whole model. `export_model` is its inverse: after both, the
tensors are the same bit for bit, unless the dtype was changed.

Families: Llama 2 and 3, Mistral, Qwen 2.5 and 3, Gemma 2 and 3. Of a Gemma 3 with images only the
text model is imported, and it is exported as a text-only model.
"""

import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from elenchus.data.files import atomic, jsonl
from elenchus.model import config as config_lib
from elenchus.model import huggingface
from elenchus.model.config import ModelConfig
from elenchus.model.huggingface import Family, Tensor, safetensors_files
from elenchus.train.checkpoints import saved_models

CONFIG = 'config.json'
TOKENIZERS = ('tokenizer.json', 'tokenizer.model')
CARRIED_FILES = (
    'tokenizer*',
    'chat_template*',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.json',
    'merges.txt',
    'generation_config.json',
)
"""Patterns of the files copied in both directions, beside config.json."""
REPLACED_KEYS = ('rope_parameters', 'rope_theta', 'rope_scaling', 'dtype', 'torch_dtype')
"""Keys dropped from a copied config.json: versions of `transformers` spell these settings in
different keys, and an old spelling would contradict the one that we write."""
FILE_BYTES = 5_000_000_000
"""Size limit of one safetensors file, as of `transformers`."""


def import_model(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    dtype: str | None,
    mesh: jax.sharding.Mesh,
) -> str:
    """Converts a folder of `transformers` into a model folder of ours; returns a one-line summary.

    Args:
        source: folder with config.json and safetensors files.
        target: folder that does not exist yet or is empty. It receives parameters and
            model_config.json, whose fields are the `model` section of a run's config, and copies of
            the tokenizer, chat template and generation config.
        dtype: 'float32' or 'bfloat16' of the stored parameters; None keeps that of the files.
        mesh: devices to load onto.

    Raises ValueError, before anything is written, if the config asks for something that the model
    lacks, or if tensors are missing, unexpected, misshaped or, without `dtype`, of several dtypes.
    """
    source, target = pathlib.Path(source), _empty_folder(target)
    hf_config, renamed = huggingface.text_only(_read_config(source))
    family = huggingface.family_of(hf_config)
    stored = {
        renamed(name): tensor for name, tensor in safetensors_files.list_tensors(source).items()
    }
    stored.pop(None, None)  # the tensors of images
    dtype = dtype or _common_dtype(stored)
    config = imported_config(family, hf_config, dtype)
    model = saved_models.abstract_model(config, mesh)
    tensors = family.tensors(_shapes(saved_models.parameters(model)))
    _check_complete(tensors, stored)
    loaded = {
        name: _load_parameter(leaf, [t for t in tensors if t.parameter == name], stored)
        for name, leaf in saved_models.parameters(model).items()
    }
    saved_models.save_model(
        target,
        saved_models.with_parameters(model, loaded),
        tokenizer_fingerprint=_fingerprint(source),
    )
    _copy_files(source, target)
    _write_config(target, hf_config)
    return _summary(config, f'{family.architecture} in {dtype}: {source} -> {target}')


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
) -> str:
    """Converts a model folder of ours into one for `transformers`; returns a one-line summary.

    Args:
        source: model folder of ours.
        target: folder that does not exist yet or is empty.
        files: folder with the tokenizer, chat template and config.json files to copy; None: source.
            The family is that of the config.json there; without one, the first family that can
            express the model's config.
        mesh: devices to load onto.
        file_bytes: size limit of one safetensors file.

    Raises ValueError, before anything is written, if no family can express the model's config.
    """
    source, target = pathlib.Path(source), _empty_folder(target)
    files = pathlib.Path(files or source)
    config, fingerprint = saved_models.read_description(source)
    family, hf_config = _exported_config(files, config)
    parameters = saved_models.parameters(
        saved_models.load_model(source, config, mesh=mesh, tokenizer_fingerprint=fingerprint)
    )
    tensors = {tensor.name: tensor for tensor in family.tensors(_shapes(parameters))}

    def values(name: str) -> np.ndarray:
        """Values of an exported tensor, on the host."""
        tensor = tensors[name]
        if tensor.layer is None:
            # np.asarray caches a host copy in the array: drop the array, or all copies add up.
            return tensor.to_tensor(np.asarray(parameters.pop(tensor.parameter)))
        return tensor.to_tensor(np.asarray(_layer(parameters[tensor.parameter], tensor.layer)))

    target.mkdir(parents=True, exist_ok=True)
    safetensors_files.write_tensors(
        target,
        {name: tensor.shape for name, tensor in tensors.items()},
        dtype=jnp.dtype(config.param_dtype),
        values=values,
        file_bytes=file_bytes,
    )
    _copy_files(files, target)
    _write_config(target, hf_config)
    return _summary(config, f'{family.architecture} in {config.param_dtype}: {source} -> {target}')


def _exported_config(files: pathlib.Path, config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """(family, config.json) of an exported model; other keys of the config.json in `files` stay."""
    copied = _read_config(files) if (files / CONFIG).exists() else {}
    family = huggingface.family_of(copied) if copied else huggingface.family_for(config)
    hf_config = {key: value for key, value in copied.items() if key not in REPLACED_KEYS}
    hf_config |= family.write_config(config) | {'torch_dtype': config.param_dtype}
    if copied:  # a run's sequences may be shorter than the model's own maximum
        hf_config['max_position_embeddings'] = family.read_config(copied)['max_length']
    return family, hf_config


def _load_parameter(
    leaf: jax.ShapeDtypeStruct,
    tensors: Sequence[Tensor],
    stored: Mapping[str, safetensors_files.StoredTensor],
) -> jax.Array:
    """Loads a parameter onto its devices, one tensor (layer) at a time."""

    def read(tensor: Tensor) -> np.ndarray:
        """The tensor in our layout and dtype."""
        values = tensor.to_parameter(safetensors_files.read_tensor(stored[tensor.name]))
        return values.astype(leaf.dtype, copy=False)

    if tensors[0].layer is None:
        return jax.device_put(read(tensors[0]), leaf.sharding)
    layer_sharding = _layer_sharding(leaf)
    # Donation writes each layer in place: a second copy of the stack would not fit.
    put = jax.jit(_put, donate_argnums=0, out_shardings=leaf.sharding)
    stacked = jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
    for tensor in tensors:
        stacked = put(stacked, jax.device_put(read(tensor), layer_sharding), tensor.layer)
    return stacked


def _put(stacked: jax.Array, values: jax.Array, layer: int) -> jax.Array:
    return stacked.at[layer].set(values)


def _layer(stacked: jax.Array, layer: int) -> jax.Array:
    """One layer of a stacked parameter, sharded as the stack is."""
    return _take_layer(_layer_sharding(stacked))(stacked, layer)


@functools.cache
def _take_layer(layer_sharding: NamedSharding):
    return jax.jit(lambda stacked, layer: stacked[layer], out_shardings=layer_sharding)


def _layer_sharding(leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
    return NamedSharding(leaf.sharding.mesh, jax.P(*leaf.sharding.spec[1:]))


def _shapes(parameters: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in parameters.items()}


def _check_complete(
    tensors: Sequence[Tensor], stored: Mapping[str, safetensors_files.StoredTensor]
) -> None:
    """Raises one ValueError that lists every missing, unexpected or misshaped tensor."""
    expected = {tensor.name: tensor.shape for tensor in tensors}
    problems = {
        'missing': [name for name in expected if name not in stored],
        'unexpected': [
            name
            for name in stored
            if name not in expected and not name.endswith(huggingface.DERIVED_TENSOR_SUFFIX)
        ],
        'misshaped': [
            f'{name} {stored[name].shape}, not {shape}'
            for name, shape in expected.items()
            if name in stored and stored[name].shape != shape
        ],
    }
    if any(problems.values()):
        listed = '; '.join(
            f'{kind}: {", ".join(names)}' for kind, names in problems.items() if names
        )
        raise ValueError(f'tensors do not match config.json: {listed}')


def _common_dtype(stored: Mapping[str, safetensors_files.StoredTensor]) -> str:
    """The dtype of all tensors, if it is one that we store."""
    dtypes = {tensor.dtype for tensor in stored.values()}
    if dtypes not in ({'F32'}, {'BF16'}):
        raise ValueError(
            f'tensors have dtypes {sorted(dtypes)}; choose --dtype=float32 (exact) or '
            '--dtype=bfloat16'
        )
    return safetensors_files.DTYPES[dtypes.pop()].name


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise ValueError(f'file not found: {folder / CONFIG}; use the folder of a model')
    return jsonl.at_place(
        str(folder / CONFIG), jsonl.parse_object, (folder / CONFIG).read_text(encoding='utf-8')
    )


def _write_config(folder: pathlib.Path, hf_config: Mapping[str, Any]) -> None:
    atomic.write_text(folder / CONFIG, json.dumps(hf_config, indent=2) + '\n')


def _empty_folder(target: str | os.PathLike) -> pathlib.Path:
    target = pathlib.Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f'{target} already exists; use a folder that does not exist')
    return target


def _fingerprint(folder: pathlib.Path) -> str:
    """Fingerprint of the folder's tokenizer as data/text computes it; '' without a tokenizer."""
    files = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    return hashlib.sha256(files[0].read_bytes()).hexdigest()[:12] if files else ''


def _copy_files(source: pathlib.Path, target: pathlib.Path) -> None:
    for path in sorted({path for pattern in CARRIED_FILES for path in source.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def _summary(config: ModelConfig, conversion: str) -> str:
    return f'{config_lib.num_parameters(config):,} parameters, {conversion}'
