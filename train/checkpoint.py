"""Checkpoints, by Orbax: resumable training states, and models to hand on."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from model import sharding
from model.config import ModelConfig
from model.transformer import Transformer, init_model

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
    shapes = jax.eval_shape(lambda: init_model(config, jax.random.key(0)))
    return jax.tree.map(
        lambda s, sh: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sh),
        shapes,
        sharding.shardings(shapes, mesh),
    )


def save_model(folder: str | os.PathLike, model: Transformer, *, tokenizer_fingerprint: str):
    """Writes parameters (Orbax) and, beside them, what they mean (JSON)."""
    folder = pathlib.Path(os.path.abspath(folder))
    ocp.save(folder, _parameters(model), overwrite=True)
    described = {'model': dataclasses.asdict(model.config), 'tokenizer': tokenizer_fingerprint}
    beside = folder / f'{CONFIG}.writing'
    beside.write_text(json.dumps(described, indent=1))
    os.replace(beside, folder / CONFIG)


def load_model(
    folder: str | os.PathLike,
    config: ModelConfig,
    *,
    mesh: jax.sharding.Mesh,
    tokenizer_fingerprint: str,
) -> Transformer:
    """A saved model, on the mesh, with the numerics (dtype, remat, ...) of `config`.

    Raises ValueError as check_model does.
    """
    folder = check_model(folder, config, tokenizer_fingerprint=tokenizer_fingerprint)
    model = abstract_model(config, mesh)
    parameters = ocp.load(folder, _parameters(model))
    leaves = [parameters[name] for name in _names(model)]
    return jax.tree.unflatten(jax.tree.structure(model), leaves)


def saved_config(folder: str | os.PathLike, numerics: ModelConfig) -> ModelConfig:
    """The architecture of a saved model with the numerics (dtype, remat, ...) of another config.

    Raises ValueError where no model is there, or its vocabulary is another.
    """
    path = pathlib.Path(os.path.abspath(folder)) / CONFIG
    if not path.exists():
        raise ValueError(f'no model at {path.parent}: {CONFIG} is missing')
    saved = json.loads(path.read_text())['model']
    kept = {name: getattr(numerics, name) for name in NUMERICS}
    config = ModelConfig(**saved | kept)
    if config.vocab_size != numerics.vocab_size:
        raise ValueError(
            f'model.vocab_size={numerics.vocab_size}, but {path.parent} holds a model with '
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
    if not (folder / CONFIG).exists():
        raise ValueError(f'no model at {folder}: {CONFIG} is missing')
    described = json.loads((folder / CONFIG).read_text())
    _check_same(folder, described['model'], config)
    if described['tokenizer'] != tokenizer_fingerprint:
        raise ValueError(
            f'{folder} was trained with tokenizer {described["tokenizer"]}, the '
            f'config gives {tokenizer_fingerprint}: use the tokenizer saved with it'
        )
    return folder


NUMERICS = ('dtype', 'remat', 'scan_layers', 'logits_chunk', 'max_length')
"""Fields of ModelConfig that may differ from those a model was saved with."""


def _check_same(folder: pathlib.Path, saved: dict[str, Any], config: ModelConfig) -> None:
    for name, value in dataclasses.asdict(config).items():
        if name not in NUMERICS and saved.get(name) != value:
            raise ValueError(
                f'model.{name}={value!r}, but {folder} holds a model with '
                f'{name}={saved.get(name)!r}'
            )


def _names(model: Transformer) -> list[str]:
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    return ['.'.join(key.name for key in path[:-1]) for path, _ in paths]


def _parameters(model: Transformer) -> dict[str, Any]:
    """The leaves by dotted name: a form that any Orbax user can read."""
    return dict(zip(_names(model), jax.tree.leaves(model), strict=True))
