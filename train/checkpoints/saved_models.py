"""Saved models and adapters: parameters written by Orbax, and a JSON description beside them."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.serialization import types as transfers  # exported nowhere else

from elenchus.data.files import atomic, episode_files, failures, jsonl
from elenchus.model import lora, placement
from elenchus.model.config import ModelConfig
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer, init_model
from elenchus.train import distributed
from elenchus.train.checkpoints import training_state
from elenchus.train.config import build

DESCRIPTION = 'model_config.json'
"""File beside the parameters: architecture, tokenizer, fingerprint; of adapters, their base."""

NUMERICS = (
    *('dtype', 'attention', 'remat', 'remat_saved', 'remat_offloaded', 'scan_layers'),
    *('logits_chunk', 'max_length', 'balance_coef', 'numerics', 'expert_parallel'),
)
"""Fields of ModelConfig that may differ from those a model was saved with."""

EARLIER_DEFAULTS = {
    'windows': (0,),
    'local_rope_theta': 0.0,
    'rope_scaling': None,
    'zero_centered_norms': False,
    'post_norms': False,
    'query_scale_dim': 0,
    'attention_soft_cap': 0.0,
    'logits_soft_cap': 0.0,
    'scale_embeddings': False,
    'attention': 'einsum',
    'remat_saved': (),
    'remat_offloaded': (),
    'num_experts': 0,
    'experts_per_token': 0,
    'normalise_experts': False,
    'balance_coef': 0.0,
    'expert_parallel': False,
    'numerics': 'fast',
}
"""Values of fields that descriptions of older checkpoints lack."""


def abstract_model(config: ModelConfig, mesh: jax.sharding.Mesh) -> Transformer:
    """Returns a model of ShapeDtypeStructs: shapes, dtypes and shardings without arrays."""
    shapes = jax.eval_shape(lambda: init_model(config, jax.random.key(0)))
    return Placement(mesh).abstract(shapes)


def empty_folder(path: str | os.PathLike) -> epath.Path:
    """Returns the folder of a new model. Raises ValueError if it has files, which would be lost."""
    path = epath.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f'{path} already exists; use a folder that does not exist')
    return path


def save_model(
    folder: str | os.PathLike,
    model: Transformer,
    *,
    tokenizer_fingerprint: str,
    chat: Mapping[str, str] | None = None,
):
    """Writes the parameters and then, beside them, the description of the model.

    `chat` has the names `template` and `system` of the chat template it was trained with, if any.

    Of a model with adapters only the adapters are written, with a reference to their base. A folder
    without description counts as empty, so an interrupted save leaves no half model.
    """
    folder = atomic.absolute(folder)
    trained = parameters(lora.split(model)[0])
    with failures.named_errors(folder), _one_by_one(trained):
        ocp.save(folder, trained, overwrite=True)
    description = {
        'model': dataclasses.asdict(model.config),
        'tokenizer': tokenizer_fingerprint,
        'fingerprint': distributed.fingerprint(trained),
    } | ({} if chat is None else {'chat': dict(chat)})
    adaptation = lora.adaptation_of(model)
    if adaptation is not None:
        description |= {
            'lora': dataclasses.asdict(adaptation.settings),
            'base': {
                'folder': _relative_path(folder, adaptation.folder),
                'fingerprint': adaptation.fingerprint,
                'quantize': adaptation.quantize,
            },
        }
    atomic.write_text(folder / DESCRIPTION, json.dumps(description, indent=1))
    distributed.barrier()


def _relative_path(folder: epath.Path, base: str) -> str:
    """Path from an adapter checkpoint to its base; absolute if only one of them is in a bucket.

    Relative, so that a run directory can be moved as a whole.
    """
    mixed = atomic.is_remote(base) != atomic.is_remote(folder)
    return base if mixed else os.path.relpath(base, folder)


def _resolve_path(path: str, folder: epath.Path) -> str:
    """Absolute path of a base; the inverse of `_relative_path`."""
    return os.fspath(atomic.absolute(path if atomic.is_remote(path) else folder / path))


class _OneByOne(transfers.DefaultSerializationStatusCallback):
    """Has Orbax transfer arrays to the host one by one, to bound host memory.

    The array `first` is transferred synchronously: Orbax warns if none is.
    """

    def __init__(self, first: str):
        self._first = first

    def key_priority(self, keypath) -> transfers.TransferPriority:
        """Priority of the array at `keypath`; called by Orbax."""
        if keypath[-1].key == self._first:
            return transfers.TransferPriority.SYNCHRONOUS
        return transfers.TransferPriority.ASYNCHRONOUS_DEPRIORITIZED


def _one_by_one(arrays: Mapping[str, Any]) -> ocp.Context:
    """Orbax context in which reads and writes hold at most the largest array in host memory."""
    sizes = {name: array.size * array.dtype.itemsize for name, array in arrays.items()}
    context = ocp.Context()
    # A limit of one byte: every array is larger, so it is transferred alone.
    context.memory.transfer_concurrent_bytes = 1
    context.memory.serialization_status_callback = _OneByOne(min(sizes, key=sizes.get))
    context.memory.read_concurrent_bytes = 1 + max(sizes.values())
    return context


def load_model(
    folder: str | os.PathLike,
    config: ModelConfig,
    *,
    mesh: jax.sharding.Mesh,
    tokenizer_fingerprint: str,
) -> Transformer:
    """Loads a whole model onto the mesh, with the numerics (dtype, remat, ...) of `config`.

    Raises ValueError as check_model does, and if the folder holds adapters or is damaged.
    """
    folder = check_model(folder, config, tokenizer_fingerprint=tokenizer_fingerprint)
    if saved_adaptation(folder) is not None:
        raise ValueError(
            f'{folder} holds adapters, not a whole model: merge them (scripts/merge.py)'
        )
    return _load_parameters(folder, abstract_model(config, mesh))


def load_adapters(
    folder: str | os.PathLike, base: Transformer, adaptation: lora.Adaptation
) -> Transformer:
    """Loads the adapters of a folder onto `base`, sharded over the current mesh."""
    shapes = jax.eval_shape(lambda: lora.init_adapters(base.config, adaptation, jax.random.key(0)))
    abstract = placement.current().abstract(shapes)
    return lora.attach(base, _load_parameters(atomic.absolute(folder), abstract))


def saved_adaptation(folder: str | os.PathLike) -> lora.Adaptation | None:
    """Returns the LoRA settings and base of a folder's adapters; None for a whole model."""
    folder = atomic.absolute(folder)
    description = _read_json(folder)
    if 'lora' not in description:
        return None
    try:
        settings, base = description['lora'], description['base']
        return lora.Adaptation(
            lora.LoraSettings(settings['rank'], settings['alpha'], tuple(settings['targets'])),
            _resolve_path(base['folder'], folder),
            base['fingerprint'],
            base['quantize'],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{folder / DESCRIPTION}: adapters are not described: {error}') from None


def fingerprint(model: Transformer) -> int:
    """Returns the checksum that adapters store of their base; independent of the mesh."""
    return distributed.fingerprint(parameters(model))


def _load_parameters(folder: pathlib.Path, abstract: Any) -> Any:
    """Loads parameters of these shapes; raises ValueError if files or arrays are damaged."""
    shapes = parameters(abstract)
    try:
        with _one_by_one(shapes):
            named = ocp.load_checkpointables(folder, {'state': shapes})['state']
    except training_state.DAMAGE_ERRORS as error:
        cause = training_state.root_cause(error)
        raise ValueError(f'{folder} is damaged ({cause}): {episode_files.REMEDY}') from None
    expected = _read_json(folder).get('fingerprint')  # the model in data/lab/ has none
    if expected is not None and distributed.fingerprint(named) != expected:
        raise ValueError(f'{folder} is damaged (not the arrays saved): {episode_files.REMEDY}')
    return with_parameters(abstract, named)


def saved_config(folder: str | os.PathLike, numerics: ModelConfig) -> ModelConfig:
    """Returns the architecture of a saved model with the numerics (dtype, ...) of another config.

    Its vocabulary may be larger: ids that no tokenizer has pad it to some multiple.

    Raises ValueError if there is no model or if its vocabulary is smaller.
    """
    values = {name: getattr(numerics, name) for name in NUMERICS}
    config = dataclasses.replace(read_description(folder)[0], **values)
    if config.vocab_size < numerics.vocab_size:
        raise ValueError(
            f'model.vocab_size={numerics.vocab_size}, but {folder} holds a model with '
            f'vocab_size={config.vocab_size}'
        )
    return config


def check_model(
    folder: str | os.PathLike, config: ModelConfig, *, tokenizer_fingerprint: str
) -> pathlib.Path:
    """Returns the absolute folder of a saved model after checking architecture and tokenizer.

    Raises ValueError if there is no model, or if a field of `config` other than the numerics, or
    the tokenizer, differs from the saved one.
    """
    folder = atomic.absolute(folder)
    saved, fingerprint = read_description(folder)
    for name, value in dataclasses.asdict(config).items():
        if name not in NUMERICS and getattr(saved, name) != getattr(config, name):
            raise ValueError(
                f'model.{name}={value!r}, but {folder} holds a model with '
                f'{name}={getattr(saved, name)!r}'
            )
    if fingerprint != tokenizer_fingerprint:
        raise ValueError(
            f'{folder} was trained with tokenizer {fingerprint}, but the '
            f'config gives {tokenizer_fingerprint}: use the tokenizer saved with it'
        )
    return folder


def read_description(folder: str | os.PathLike) -> tuple[ModelConfig, str]:
    """Returns the config of a saved model and the fingerprint of its tokenizer.

    Raises ValueError if there is no model.
    """
    description, path = _read_json(folder), os.path.join(folder, DESCRIPTION)
    fields, fingerprint = description.get('model'), description.get('tokenizer')
    if not isinstance(fields, dict) or not isinstance(fingerprint, str):
        raise ValueError(f'{path}: it must have an object `model` and a text `tokenizer`')
    config = build.build(ModelConfig, EARLIER_DEFAULTS | fields, path=path)
    return config, fingerprint


def saved_chat(folder: str | os.PathLike) -> dict[str, str] | None:
    """Returns `template` and `system` of the chat template a model was saved with, if any."""
    return _read_json(folder).get('chat')


def _read_json(folder: os.PathLike) -> dict[str, Any]:
    """Reads the description of a saved model; raises ValueError if there is none."""
    path = atomic.absolute(folder) / DESCRIPTION
    if not path.exists():
        raise ValueError(f'no model at {path.parent}: {DESCRIPTION} is missing')
    return jsonl.read_object(path)


def parameters(model: Transformer | lora.Adapters) -> dict[str, Any]:
    """Returns {dotted name: leaf}; saved in this form, parameters can be read with Orbax alone."""
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator='.')
    return {name(path[:-1]): leaf for path, leaf in paths}


def with_parameters(model: Any, named: Mapping[str, Any]) -> Any:
    """Returns the model, or adapters, with new leaves by name; the inverse of `parameters`."""
    leaves = [named[name] for name in parameters(model)]
    return jax.tree.unflatten(jax.tree.structure(model), leaves)
