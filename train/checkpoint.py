"""Checkpoints, by Orbax: resumable training states, and models to hand on."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.serialization import types as transfers  # exported nowhere else

from model import lora, sharding
from model.config import ModelConfig
from model.transformer import Transformer, init_model
from train import settings

CONFIG = 'model_config.json'


class Checkpointer:
    """Training checkpoints in a folder: state, data position and cursor in one atomic step.

    A step is written beside and renamed by Orbax, so a folder holds whole steps only.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int):
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(
            os.path.abspath(folder), preservation_policy=policy, cleanup_tmp_directories=True
        )

    def save(self, step: int, state: Any, cursor: dict[str, Any]) -> None:
        """Starts writing in the background; `cursor` is plain JSON."""
        self._checkpointer.save_checkpointables_async(
            step, {'state': state, 'cursor': cursor}, force=True
        )

    def restore(self, state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, cursor) of the newest checkpoint, or None. `state` gives the shardings."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        abstract = jax.tree.map(_abstract, state)
        loaded = self._checkpointer.load_checkpointables(
            latest.step, {'state': abstract, 'cursor': None}
        )
        return latest.step, loaded['state'], loaded['cursor']

    def close(self) -> None:
        """Waits until everything is written."""
        self._checkpointer.close()


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def place(model: Transformer, mesh: jax.sharding.Mesh) -> Transformer:
    """The model with its parameters sharded over the mesh by their logical axes."""
    return jax.device_put(model, sharding.shardings(model, mesh))


def abstract_model(config: ModelConfig, mesh: jax.sharding.Mesh) -> Transformer:
    """Shapes, dtypes and shardings of a model, without any array."""
    return _placed(jax.eval_shape(lambda: init_model(config, jax.random.key(0))), mesh)


def _placed(shapes: Any, mesh: jax.sharding.Mesh) -> Any:
    """Abstract parameters with the shardings that their axes ask for."""
    return jax.tree.map(
        lambda s, sh: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sh),
        shapes,
        sharding.shardings(shapes, mesh),
    )


def save_model(folder: str | os.PathLike, model: Transformer, *, tokenizer_fingerprint: str):
    """Writes parameters (Orbax) and, beside them, what they mean (JSON).

    Of a model with adapters only these are written, and which base they belong to.
    """
    folder = pathlib.Path(os.path.abspath(folder))
    written = parameters(lora.split(model)[0])
    with _one_by_one(written):
        ocp.save(folder, written, overwrite=True)
    described = {'model': dataclasses.asdict(model.config), 'tokenizer': tokenizer_fingerprint}
    how = lora.adaptation(model)
    if how is not None:
        described |= {
            'lora': dataclasses.asdict(how.settings),
            'base': {
                'folder': os.path.relpath(how.folder, folder),
                'fingerprint': how.fingerprint,
                'quantize': how.quantize,
            },
        }
    beside = folder / f'{CONFIG}.writing'
    beside.write_text(json.dumps(described, indent=1))
    os.replace(beside, folder / CONFIG)


class _InTurn(transfers.DefaultSerializationStatusCallback):
    """Lets arrays come to the host in turn; `first` at once, or Orbax warns that none does."""

    def __init__(self, first: str):
        self._first = first

    def key_priority(self, keypath) -> transfers.TransferPriority:
        if keypath[-1].key == self._first:
            return transfers.TransferPriority.SYNCHRONOUS
        return transfers.TransferPriority.ASYNCHRONOUS_DEPRIORITIZED


def _one_by_one(arrays: Mapping[str, Any]) -> ocp.Context:
    """Orbax with no more in the host's memory than the largest array, read or written."""
    sizes = {name: array.size * array.dtype.itemsize for name, array in arrays.items()}
    context = ocp.Context()
    context.memory.transfer_concurrent_bytes = 1  # an array that is larger goes alone
    context.memory.serialization_status_callback = _InTurn(min(sizes, key=sizes.get))
    context.memory.read_concurrent_bytes = 1 + max(sizes.values())
    return context


def load_model(
    folder: str | os.PathLike,
    config: ModelConfig,
    *,
    mesh: jax.sharding.Mesh,
    tokenizer_fingerprint: str,
) -> Transformer:
    """A saved model, on the mesh, with the numerics (dtype, remat, ...) of `config`.

    Raises ValueError as check_model does, and where the folder holds adapters.
    """
    folder = check_model(folder, config, tokenizer_fingerprint=tokenizer_fingerprint)
    if saved_adaptation(folder) is not None:
        raise ValueError(f'{folder} holds adapters, no whole model: merge them (scripts/merge.py)')
    return _load_parameters(folder, abstract_model(config, mesh))


def load_adapters(
    folder: str | os.PathLike, base: Transformer, adaptation: lora.Adaptation
) -> Transformer:
    """`base` with the adapters that a folder holds, over the mesh in force."""
    shapes = jax.eval_shape(lambda: lora.init_adapters(base.config, adaptation, jax.random.key(0)))
    abstract = _placed(shapes, jax.sharding.get_mesh())
    return lora.attach(base, _load_parameters(pathlib.Path(folder), abstract))


def saved_adaptation(folder: str | os.PathLike) -> lora.Adaptation | None:
    """What the adapters of a folder belong to; None where it holds a whole model."""
    folder = pathlib.Path(os.path.abspath(folder))
    described = json.loads((folder / CONFIG).read_text())
    if 'lora' not in described:
        return None
    how, base = described['lora'], described['base']
    return lora.Adaptation(
        lora.LoraSettings(how['rank'], how['alpha'], tuple(how['targets'])),
        os.path.normpath(folder / base['folder']),
        base['fingerprint'],
        base['quantize'],
    )


def fingerprint(model: Transformer) -> str:
    """Sixteen hexadecimal digits of a model's parameters, the same on every mesh."""
    sums = [int(x) for x in _checksums(jax.tree.leaves(model))]
    told = json.dumps(dict(zip(parameters(model), sums, strict=True)))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    """Sums of the bits, each times an odd number of its place: exact in any order."""

    def of_leaf(x):
        width = 8 * x.dtype.itemsize
        bits = jax.lax.bitcast_convert_type(x, f'uint{width}').astype('uint32')
        place = jax.numpy.zeros((), 'uint32')
        for dim, size in enumerate(x.shape):
            place = place * size + jax.lax.broadcasted_iota('uint32', x.shape, dim)
        return jax.numpy.sum(bits * (2 * place + 1), dtype='uint32')

    return [of_leaf(x) for x in leaves]


def _load_parameters(folder: pathlib.Path, abstract: Any) -> Any:
    asked = parameters(abstract)
    with _one_by_one(asked):
        return with_parameters(abstract, ocp.load(folder, asked))


def saved_config(folder: str | os.PathLike, numerics: ModelConfig) -> ModelConfig:
    """The architecture of a saved model with the numerics (dtype, remat, ...) of another config.

    Raises ValueError where no model is there, or its vocabulary is another.
    """
    kept = {name: getattr(numerics, name) for name in NUMERICS}
    config = dataclasses.replace(read_description(folder)[0], **kept)
    if config.vocab_size != numerics.vocab_size:
        raise ValueError(
            f'model.vocab_size={numerics.vocab_size}, but {folder} holds a model with '
            f'vocab_size={config.vocab_size}'
        )
    return config


def check_model(
    folder: str | os.PathLike, config: ModelConfig, *, tokenizer_fingerprint: str
) -> pathlib.Path:
    """The absolute folder of a saved model that fits `config` and the tokenizer.

    Raises ValueError where nothing is there, or where shapes or tokenizer are not those saved.
    """
    folder = pathlib.Path(os.path.abspath(folder))
    saved, fingerprint = read_description(folder)
    for name, value in dataclasses.asdict(config).items():
        if name not in NUMERICS and getattr(saved, name) != getattr(config, name):
            raise ValueError(
                f'model.{name}={value!r}, but {folder} holds a model with '
                f'{name}={getattr(saved, name)!r}'
            )
    if fingerprint != tokenizer_fingerprint:
        raise ValueError(
            f'{folder} was trained with tokenizer {fingerprint}, the '
            f'config gives {tokenizer_fingerprint}: use the tokenizer saved with it'
        )
    return folder


def read_description(folder: str | os.PathLike) -> tuple[ModelConfig, str]:
    """The config of a saved model and the fingerprint of its tokenizer.

    Raises ValueError where nothing is there.
    """
    path = pathlib.Path(os.path.abspath(folder)) / CONFIG
    if not path.exists():
        raise ValueError(f'no model at {path.parent}: {CONFIG} is missing')
    described = json.loads(path.read_text())
    config = settings.build(ModelConfig, EARLIER | described['model'], path=str(path))
    return config, described['tokenizer']


NUMERICS = ('dtype', 'remat', 'scan_layers', 'logits_chunk', 'max_length')
"""Fields of ModelConfig that may differ from those a model was saved with."""

EARLIER = {
    'windows': (0,),
    'local_rope_theta': 0.0,
    'rope_scaling': None,
    'zero_centered_norms': False,
    'post_norms': False,
    'query_scale_dim': 0,
    'attention_soft_cap': 0.0,
    'logits_soft_cap': 0.0,
    'scale_embeddings': False,
}
"""What all saved models were before these fields were added; their descriptions lack them."""


def parameters(model: Transformer | lora.Adapters) -> dict[str, Any]:
    """The leaves by dotted name: a form that any Orbax user can read."""
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator='.')
    return {name(path[:-1]): leaf for path, leaf in paths}


def with_parameters(model: Any, named: Mapping[str, Any]) -> Any:
    """The model, or adapters, with the leaves of these names, as `parameters` gave them."""
    leaves = [named[name] for name in parameters(model)]
    return jax.tree.unflatten(jax.tree.structure(model), leaves)
