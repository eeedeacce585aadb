"""Checkpoints, by Orbax: resumable training states, and models to hand on."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.serialization import types as transfers  # exported nowhere else

from elenchus.data.files import atomic, episode_files, jsonl
from elenchus.model import lora, sharding
from elenchus.model.config import ModelConfig
from elenchus.model.transformer import Transformer, init_model
from elenchus.train import distributed
from elenchus.train.config import build

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
        self._folder = atomic.absolute(folder)
        self._checkpointer = ocp.training.Checkpointer(
            self._folder, preservation_policy=policy, cleanup_tmp_directories=True
        )

    def save(self, step: int, state: Any, cursor: dict[str, Any]) -> None:
        """Starts writing in the background; `cursor` is plain JSON."""
        told = {'cursor': cursor, 'fingerprint': distributed.fingerprint(state)}
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
            if distributed.fingerprint(loaded['state']) == told['fingerprint']:
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
    """What is written beside a saved model. Raises ValueError where there is nothing."""
    path = atomic.absolute(folder) / CONFIG
    if not path.exists():
        raise ValueError(f'no model at {path.parent}: {CONFIG} is missing')
    return jsonl.at_place(str(path), jsonl.parse_object, path.read_text())


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
    folder = atomic.absolute(folder)
    own = parameters(lora.split(model)[0])
    with _on_disk(folder), _one_by_one(own):
        ocp.save(folder, own, overwrite=True)
    described = {
        'model': dataclasses.asdict(model.config),
        'tokenizer': tokenizer_fingerprint,
        'fingerprint': distributed.fingerprint(own),
    }
    how = lora.adaptation_of(model)
    if how is not None:
        described |= {
            'lora': dataclasses.asdict(how.settings),
            'base': {
                'folder': _seen_from(folder, how.folder),
                'fingerprint': how.fingerprint,
                'quantize': how.quantize,
            },
        }
    atomic.write_text(folder / CONFIG, json.dumps(described, indent=1))
    distributed.barrier()


def _seen_from(folder: epath.Path, base: str) -> str:
    """The way to a base from what is on it; the whole path where only one is in a bucket."""
    apart = atomic.is_remote(base) != atomic.is_remote(folder)
    return base if apart else os.path.relpath(base, folder)


def _at_end_of(way: str, folder: epath.Path) -> str:
    """The path that `_seen_from` told the way to."""
    return os.fspath(atomic.absolute(way if atomic.is_remote(way) else folder / way))


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

    Raises ValueError as check_model does, and where the folder holds adapters or is damaged.
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
    return lora.attach(base, _load_parameters(atomic.absolute(folder), abstract))


def saved_adaptation(folder: str | os.PathLike) -> lora.Adaptation | None:
    """What the adapters of a folder belong to; None where it holds a whole model."""
    folder = atomic.absolute(folder)
    described = _described(folder)
    if 'lora' not in described:
        return None
    how, base = described['lora'], described['base']
    return lora.Adaptation(
        lora.LoraSettings(how['rank'], how['alpha'], tuple(how['targets'])),
        _at_end_of(base['folder'], folder),
        base['fingerprint'],
        base['quantize'],
    )


def fingerprint(model: Transformer) -> int:
    """The number by which a base and its adapters know one another, the same on every mesh."""
    return distributed.fingerprint(parameters(model))


def _load_parameters(folder: pathlib.Path, abstract: Any) -> Any:
    """Raises ValueError where files are damaged or the arrays are not those that were saved."""
    asked = parameters(abstract)
    try:
        with _one_by_one(asked):
            named = ocp.load_checkpointables(folder, {'state': asked})['state']
    except DAMAGE as error:
        raise ValueError(f'{folder} is damaged ({reason(error)}): {episode_files.REMEDY}') from None
    expected = _described(folder).get('fingerprint')  # the shipped model has none
    if expected is not None and distributed.fingerprint(named) != expected:
        raise ValueError(f'{folder} is damaged (not the arrays saved): {episode_files.REMEDY}')
    return with_parameters(abstract, named)


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
            f'{folder} was trained with tokenizer {fingerprint}, the '
            f'config gives {tokenizer_fingerprint}: use the tokenizer saved with it'
        )
    return folder


def read_description(folder: str | os.PathLike) -> tuple[ModelConfig, str]:
    """The config of a saved model and the fingerprint of its tokenizer.

    Raises ValueError where nothing is there.
    """
    described, path = _described(folder), os.path.join(folder, CONFIG)
    config = build.build(ModelConfig, EARLIER | described['model'], path=path)
    return config, described['tokenizer']


NUMERICS = ('dtype', 'attention', 'remat', 'scan_layers', 'logits_chunk', 'max_length')
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
    'attention': 'einsum',
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
