r"""Brings in models as `transformers` stores them, and takes ours out in the same form.

    python -m scripts.convert import HF_DIR OUT
    python -m scripts.convert import HF_DIR OUT --dtype=float32
    python -m scripts.convert export CKPT HF_DIR
    python -m scripts.convert export runs/mine/stages/01-actor/model HF_DIR --files=OUT

Families: Llama 2 and 3, Mistral, Qwen 2.5 and 3, Gemma 2 and 3. Of a Gemma 3 that sees images the
part about text is taken, and exported as a model of text.

`import` reads config.json and the safetensors files of HF_DIR, one tensor at a time onto the mesh,
and writes OUT: our parameters and model_config.json, whose fields are the `model` section of a
run's config. Every tensor must have its place; if any is missing, left over or misshaped, all are
named and nothing is written. Tokenizer and chat template files, config.json and
generation_config.json are copied beside.

`export` writes the safetensors files, config.json and what was copied beside CKPT, or lies in
--files. The family is that of the config.json there; without one, the first that can say what the
model is. Importing and exporting again gives the same tensors, bit for bit, unless --dtype changed
them.
"""

import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import NamedSharding

from elenchus.data.files import atomic, jsonl
from elenchus.model import config as config_lib
from elenchus.model import huggingface, sharding
from elenchus.model.config import ModelConfig
from elenchus.model.huggingface import Family, Tensor, safetensors_files
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, cli

CONFIG = 'config.json'
TOKENIZERS = ('tokenizer.json', 'tokenizer.model')
BESIDE = (
    'tokenizer*',
    'chat_template*',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.json',
    'merges.txt',
    'generation_config.json',
)
"""What is carried along in both directions, beside config.json."""
OUTDATED = ('rope_parameters', 'rope_theta', 'rope_scaling', 'dtype', 'torch_dtype')
"""Keys of a carried config.json that go, because what is written may be said by another."""
FILE_BYTES = 5_000_000_000


def import_model(source: str, target: str, *, dtype: str | None, mesh: jax.sharding.Mesh) -> str:
    """Converts the model in folder `source` into a folder of ours; says what it is.

    Raises ValueError, before anything is written, where the config is beyond the model, or where
    tensors are missing, left over, misshaped or, without `dtype`, of different kinds.
    """
    source, target = pathlib.Path(source), _free(target)
    described, named = huggingface.text_only(_described(source))
    family = huggingface.family_of(described)
    found = {named(name): tensor for name, tensor in safetensors_files.list_tensors(source).items()}
    found.pop(None, None)  # what is of images
    dtype = dtype or _dtype(found)
    config = config_of(family, described, dtype)
    model = saved_models.abstract_model(config, mesh)
    tensors = family.tensors(_shapes(saved_models.parameters(model)))
    _check(tensors, found)
    loaded = {
        name: _load(leaf, [t for t in tensors if t.parameter == name], found)
        for name, leaf in saved_models.parameters(model).items()
    }
    saved_models.save_model(
        target,
        saved_models.with_parameters(model, loaded),
        tokenizer_fingerprint=_fingerprint(source),
    )
    _carry(source, target)
    _write_config(target, described)
    return _told(config, f'{family.architecture} in {dtype}: {source} -> {target}')


def config_of(family: Family, described: Mapping[str, Any], dtype: str) -> ModelConfig:
    """The config of an imported model."""
    return ModelConfig(
        **family.read_config(described),
        dtype=dtype,
        param_dtype=dtype,
        attention='einsum',
        remat='dots',
        scan_layers=True,
        logits_chunk=256,
    )


def export_model(
    source: str, target: str, *, files: str | None, mesh: jax.sharding.Mesh, file_bytes: int
) -> str:
    """Converts a model folder of ours into one that `transformers` loads; says what it is.

    Raises ValueError, before anything is written, where no family can say what the model is.
    """
    source, target = pathlib.Path(source), _free(target)
    files = pathlib.Path(files or source)
    config, fingerprint = saved_models.read_description(source)
    carried = _described(files) if (files / CONFIG).exists() else {}
    family = huggingface.family_of(carried) if carried else huggingface.family_for(config)
    kept = {key: value for key, value in carried.items() if key not in OUTDATED}
    described = kept | family.write_config(config) | {'torch_dtype': config.param_dtype}
    if carried:  # a run's sequences may be shorter than those the model was made for
        described['max_position_embeddings'] = family.read_config(carried)['max_length']
    ours = saved_models.parameters(
        saved_models.load_model(source, config, mesh=mesh, tokenizer_fingerprint=fingerprint)
    )
    tensors = {tensor.name: tensor for tensor in family.tensors(_shapes(ours))}

    def values(name):
        tensor = tensors[name]
        if tensor.layer is None:  # let go: an array on several devices keeps its copy on the host
            return tensor.to_tensor(np.asarray(ours.pop(tensor.parameter)))
        return tensor.to_tensor(np.asarray(_layer(ours[tensor.parameter], tensor.layer)))

    target.mkdir(parents=True, exist_ok=True)
    safetensors_files.write_tensors(
        target,
        {name: tensor.shape for name, tensor in tensors.items()},
        dtype=jnp.dtype(config.param_dtype),
        values=values,
        file_bytes=file_bytes,
    )
    _carry(files, target)
    _write_config(target, described)
    return _told(config, f'{family.architecture} in {config.param_dtype}: {source} -> {target}')


def _load(leaf: jax.ShapeDtypeStruct, tensors: Sequence[Tensor], found) -> jax.Array:
    """A parameter on its devices, from one tensor at a time."""

    def ours(tensor):
        values = tensor.to_parameter(safetensors_files.read_tensor(found[tensor.name]))
        return values.astype(leaf.dtype, copy=False)

    if tensors[0].layer is None:
        return jax.device_put(ours(tensors[0]), leaf.sharding)
    place = _place_of_a_layer(leaf)
    put = jax.jit(_put, donate_argnums=0, out_shardings=leaf.sharding)
    stacked = jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
    for tensor in tensors:
        stacked = put(stacked, jax.device_put(ours(tensor), place), tensor.layer)
    return stacked


def _put(stacked: jax.Array, values: jax.Array, layer: int) -> jax.Array:
    return stacked.at[layer].set(values)


def _layer(stacked: jax.Array, layer: int) -> jax.Array:
    """A layer of a stacked parameter, left on the devices that hold its parts."""
    return _taking(_place_of_a_layer(stacked))(stacked, layer)


@functools.cache
def _taking(place: NamedSharding):
    return jax.jit(lambda stacked, layer: stacked[layer], out_shardings=place)


def _place_of_a_layer(leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
    return NamedSharding(leaf.sharding.mesh, jax.P(*leaf.sharding.spec[1:]))


def _shapes(parameters: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in parameters.items()}


def _check(tensors: Sequence[Tensor], found: Mapping[str, safetensors_files.StoredTensor]) -> None:
    """Raises one ValueError that lists every tensor without a place, or a place without one."""
    expected = {tensor.name: tensor.shape for tensor in tensors}
    wrong = {
        'missing': [name for name in expected if name not in found],
        'left over': [
            name
            for name in found
            if name not in expected and not name.endswith(huggingface.DERIVED_TENSOR_SUFFIX)
        ],
        'misshaped': [
            f'{name} {found[name].shape}, not {shape}'
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
    }
    if any(wrong.values()):
        listed = '; '.join(f'{what}: {", ".join(names)}' for what, names in wrong.items() if names)
        raise ValueError(f'tensors that config.json does not account for: {listed}')


def _dtype(found: Mapping[str, safetensors_files.StoredTensor]) -> str:
    """The one dtype of all tensors, where we can have it."""
    kinds = {tensor.dtype for tensor in found.values()}
    if kinds not in ({'F32'}, {'BF16'}):
        raise ValueError(
            f'tensors of {sorted(kinds)}: say --dtype=float32 (exact) or --dtype=bfloat16'
        )
    return safetensors_files.DTYPES[kinds.pop()].name


def _described(folder: pathlib.Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise ValueError(f'{folder} has no {CONFIG}: no model is there')
    return jsonl.at_place(
        str(folder / CONFIG), jsonl.parse_object, (folder / CONFIG).read_text(encoding='utf-8')
    )


def _write_config(folder: pathlib.Path, described: Mapping[str, Any]) -> None:
    atomic.write_text(folder / CONFIG, json.dumps(described, indent=2) + '\n')


def _free(target: str) -> pathlib.Path:
    target = pathlib.Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f'{target} exists already: name a folder that does not')
    return target


def _fingerprint(folder: pathlib.Path) -> str:
    """The fingerprint of the folder's tokenizer, as data/tokenizer.py has it; '' without one."""
    there = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    return hashlib.sha256(there[0].read_bytes()).hexdigest()[:12] if there else ''


def _carry(source: pathlib.Path, target: pathlib.Path) -> None:
    for path in sorted({path for pattern in BESIDE for path in source.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def _told(config: ModelConfig, what: str) -> str:
    return f'{config_lib.num_parameters(config):,} parameters, {what}'


def _run(command: str, arguments: Sequence[str]) -> None:
    """One command. Raises ValueError on an unknown one, or where its arguments are not given."""
    if command not in ('import', 'export'):
        near = build.nearest(command, ('import', 'export'))
        raise ValueError(f'{command!r} is neither import nor export; nearest: {near}')
    if len(arguments) != 2:
        raise ValueError(f'{command} needs two folders; --help shows examples')
    values = flags.FLAGS
    mesh = sharding.make_mesh([int(n) for n in values.mesh])
    if command == 'import':
        print(import_model(*arguments, dtype=values.dtype, mesh=mesh))
    else:
        export = functools.partial(export_model, files=values.files, file_bytes=FILE_BYTES)
        print(export(*arguments, mesh=mesh))


if __name__ == '__main__':
    flags.DEFINE_enum(
        'dtype',
        None,
        ['float32', 'bfloat16'],
        'import: what parameters are stored in; that of the files where it is not given.',
    )
    flags.DEFINE_string(
        'files',
        None,
        'export: the folder whose tokenizer, chat template and config.json files go along; CKPT '
        'where it is not given.',
    )
    flags.DEFINE_list('mesh', ['1', '-1', '1'], 'Devices for data, fsdp and tensor; -1: the rest.')

    def main(argv):
        _run(argv[1] if len(argv) > 1 else '', argv[2:])

    cli.run_main(main)
