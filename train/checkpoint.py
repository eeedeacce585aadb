"""Checkpoints, by Orbax: resumable training states, and models to hand on."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from data import json_files, records
from model import sharding
from model.config import ModelConfig
from model.transformer import Transformer, init_model
from train import processes

CONFIG = 'model_config.json'
DAMAGE = (ValueError, OSError, KeyError)
"""What Orbax and TensorStore raise where files are missing, cut short or changed."""


class Checkpointer:
    """Training checkpoints in a folder: state, data position and cursor in one atomic step.

    A step is written beside and renamed by Orbax, so a folder holds whole steps only; each has
    the state's fingerprint, by which a restored state is checked.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int):
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._folder = json_files.absolute(folder)
        self._checkpointer = ocp.training.Checkpointer(
            self._folder, preservation_policy=policy, cleanup_tmp_directories=True
        )

    def save(self, step: int, state: Any, cursor: dict[str, Any]) -> None:
        """Starts writing in the background; `cursor` is plain JSON."""
        told = {'cursor': cursor, 'fingerprint': processes.fingerprint(state)}
        with _on_disk(self._folder):
            self._checkpointer.save_checkpointables_async(
                step, {'state': state, 'cursor': told}, force=True, overwrite=True
            )

    def restore(self, state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, cursor) of the newest intact checkpoint, or None where there is none.

        `state` gives the shardings, which need not be those saved with. A damaged checkpoint is
        told of on stderr and passed over.
        """
        abstract = jax.tree.map(_abstract, state)
        for found in reversed(self._checkpointer.checkpoints):
            loaded = self._load(found.step, abstract)
            if loaded is not None:
                return found.step, *loaded
        return None

    def _load(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]] | None:
        try:
            loaded = self._checkpointer.load_checkpointables(
                step, {'state': abstract, 'cursor': None}
            )
        except DAMAGE as error:
            fault = reason(error)
        else:
            told = loaded['cursor']
            if processes.fingerprint(loaded['state']) == told['fingerprint']:
                return loaded['state'], told['cursor']
            fault = 'the arrays are not those saved'
        print(
            f'warning: checkpoint {step} in {self._folder} is damaged ({fault}); '
            'the one before is taken',
            file=sys.stderr,
        )
        return None

    def close(self) -> None:
        """Waits until everything is written."""
        with _on_disk(self._folder):
            self._checkpointer.close()


@contextlib.contextmanager
def _on_disk(folder: os.PathLike) -> Iterator[None]:
    """Turns what TensorStore says of the system's errors into an OSError with their number."""
    try:
        yield
    except ValueError as error:
        found = re.search(r"os_error_code='(\d+)'", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), os.fspath(folder)) from None


def _described(folder: os.PathLike) -> dict[str, Any]:
    path = json_files.absolute(folder) / CONFIG
    return json_files.at(str(path), json_files.parse_object, path.read_text())


def reason(error: BaseException) -> str:
    """What is at the bottom of an error, in a few words."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__
    return ' '.join(str(error).split())[:160]


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
    folder = json_files.absolute(folder)
    parameters = _parameters(model)
    with _on_disk(folder):
        ocp.save(folder, parameters, overwrite=True)
    described = {
        'model': dataclasses.asdict(model.config),
        'tokenizer': tokenizer_fingerprint,
        'fingerprint': processes.fingerprint(parameters),
    }
    json_files.write_text(folder / CONFIG, json.dumps(described, indent=1))
    processes.barrier()


def load_model(
    folder: str | os.PathLike,
    config: ModelConfig,
    *,
    mesh: jax.sharding.Mesh,
    tokenizer_fingerprint: str,
) -> Transformer:
    """A saved model, on the mesh, with the numerics (dtype, remat, ...) of `config`.

    Raises ValueError as check_model does, and where the files are damaged.
    """
    folder = check_model(folder, config, tokenizer_fingerprint=tokenizer_fingerprint)
    model = abstract_model(config, mesh)
    try:
        parameters = ocp.load_checkpointables(folder, {'state': _parameters(model)})['state']
    except DAMAGE as error:
        raise ValueError(f'{folder} is damaged ({reason(error)}): {records.REMEDY}') from None
    expected = _described(folder).get('fingerprint')  # the shipped model has none
    if expected is not None and processes.fingerprint(parameters) != expected:
        raise ValueError(f'{folder} is damaged (not the arrays saved): {records.REMEDY}')
    leaves = [parameters[name] for name in _names(model)]
    return jax.tree.unflatten(jax.tree.structure(model), leaves)


def check_model(
    folder: str | os.PathLike, config: ModelConfig, *, tokenizer_fingerprint: str
) -> pathlib.Path:
    """The absolute folder of a saved model that fits `config` and the tokenizer.

    Raises ValueError where nothing is there, or where shapes or tokenizer are not those saved.
    """
    folder = json_files.absolute(folder)
    if not (folder / CONFIG).exists():
        raise ValueError(f'no model at {folder}: {CONFIG} is missing')
    described = _described(folder)
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
