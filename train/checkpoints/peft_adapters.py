"""Conversion between adapter folders of PEFT and ours."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from elenchus.data.files import atomic
from elenchus.model import huggingface, lora
from elenchus.model.huggingface import peft_files, safetensors_files, stored_weights
from elenchus.train.checkpoints import model_store, saved_models


def is_adapter_folder(folder: pathlib.Path) -> bool:
    """Returns True if a folder has the adapters of PEFT."""
    return (folder / peft_files.CONFIG).exists()


def import_adapters(
    source: pathlib.Path, target: pathlib.Path, *, base: str | os.PathLike, mesh: jax.sharding.Mesh
) -> str:
    """Converts PEFT's adapters into a folder of ours; returns a one-line summary.

    Args:
        source: folder with adapter_config.json and adapter_model.safetensors.
        target: folder to write.
        base: model folder of ours that the adapters belong to.
        mesh: devices to load onto.

    Raises ValueError if the adapters are not plain LoRA on matrices of the blocks, do not fit the
    base, are incomplete, or have values that are not finite.
    """
    adapter_config = safetensors_files.read_json(source / peft_files.CONFIG)
    path = source / peft_files.WEIGHTS
    if not path.is_file():
        raise ValueError(f'file not found: {path}; only safetensors files are read')
    stored = {
        name.replace('.default.weight', '.weight'): tensor
        for name, tensor in safetensors_files.read_headers(path).items()
    }
    family = _family_of(epath.Path(base))
    targets = {name: peft_files.target_of(family, name) for name in stored}
    if unknown := [name for name, target_ in targets.items() if target_ is None]:
        raise ValueError(
            f'{path}: {unknown[0]} and {len(unknown) - 1} more are no LoRA factors of a block of '
            f'{family.model_type}: merge the adapters with PEFT and import the whole model'
        )
    settings = peft_files.read_settings(adapter_config, set(targets.values()))
    store = _store(epath.Path(base), mesh)
    adapters, frozen = lora.split(store.load_to_train(base, settings, seed=0))
    loaded = _load(adapters, family, stored, path=path)
    store.save(target, lora.attach(frozen, saved_models.with_parameters(adapters, loaded)))
    return (
        f'adapters of rank {settings.rank} on {", ".join(settings.targets)}: {source} -> {target}'
    )


def _load(
    adapters: lora.Adapters,
    family: huggingface.Family,
    stored: Mapping[str, safetensors_files.StoredTensor],
    *,
    path: pathlib.Path,
) -> dict[str, Any]:
    """Returns the factors by our names, each on its devices."""
    leaves = saved_models.parameters(adapters)
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    tensors = peft_files.factor_tensors(
        family, shapes, targets=adapters.adaptation.settings.targets
    )
    if missing := [t.name for t in tensors if t.name not in stored]:
        raise ValueError(f'{path}: missing: {", ".join(missing)}')
    names = {t.name for t in tensors}
    if extra := [name for name in stored if name not in names]:
        raise ValueError(f'{path}: the base has no matrix for {", ".join(extra)}')
    values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for tensor in tensors:
        place = stored[tensor.name]
        if place.shape != tensor.shape:
            raise ValueError(
                f'{path}: misshaped for the base: {place.name} {place.shape}, not {tensor.shape}'
            )
        if place.dtype not in safetensors_files.DTYPES:
            raise ValueError(f'{path}: {place.name} has dtype {place.dtype}, which is no weight')
        read = safetensors_files.read_tensor(place).astype(np.float32)
        if not stored_weights.is_finite(read):
            raise ValueError(f'{path}: {place.name} has values that are NaN or infinite')
        values[tensor.parameter][tensor.index] = tensor.to_parameter(read)
    return {name: jax.device_put(values[name], leaf.sharding) for name, leaf in leaves.items()}


def export_adapters(
    source: pathlib.Path, target: pathlib.Path, *, base_name: str | None, mesh: jax.sharding.Mesh
) -> str:
    """Writes adapters of ours as a folder of PEFT; returns a one-line summary.

    `base_name` is the name or folder of the base model for `transformers`; None: that of the
    base's config.json, if it has one.
    """
    adaptation = saved_models.saved_adaptation(source)
    base = epath.Path(adaptation.folder)
    family = _family_of(base)
    adapters, _ = lora.split(_store(source, mesh).load(source))
    leaves = saved_models.parameters(adapters)
    values = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    shapes = {name: array.shape for name, array in values.items()}
    settings = adaptation.settings
    tensors = {
        t.name: np.ascontiguousarray(t.to_tensor(values[t.parameter][t.index]))
        for t in peft_files.factor_tensors(family, shapes, targets=settings.targets)
    }
    if base_name is None and (base / 'config.json').exists():
        base_name = safetensors_files.read_json(base / 'config.json').get('_name_or_path') or None
    target.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, target / peft_files.WEIGHTS, metadata={'format': 'pt'})
    adapter_config = peft_files.write_settings(settings, family, base=base_name)
    text = json.dumps(adapter_config, indent=2) + '\n'
    atomic.write_text(target / peft_files.CONFIG, text)
    note = f'base {base_name}' if base_name else 'base not named (--base)'
    return f'PEFT adapters of rank {settings.rank}: {source} -> {target}; {note}'


def _family_of(base: pathlib.Path) -> huggingface.Family:
    """Returns the family of a base: that of its config.json, else one that can express it."""
    if (base / 'config.json').exists():
        hf_config, _ = huggingface.text_only(safetensors_files.read_json(base / 'config.json'))
        return huggingface.family_of(hf_config)
    return huggingface.family_for(saved_models.read_description(base)[0])


def _store(folder: pathlib.Path, mesh: jax.sharding.Mesh) -> model_store.ModelStore:
    """Returns a store with the settings of a saved model."""
    config, fingerprint = saved_models.read_description(folder)
    return model_store.ModelStore(
        config,
        mesh,
        tokenizer_fingerprint=fingerprint,
        quantize='none',
        chat=saved_models.saved_chat(folder),
    )
