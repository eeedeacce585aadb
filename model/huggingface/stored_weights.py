"""Weights of a model folder by the names of its family, whatever wrote the files.

Resolves wrappers around names, drops a copy of a tied head and what follows from config.json, and
reads values with their scales.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from elenchus.model.huggingface import quantized_files, safetensors_files
from elenchus.model.huggingface.family import HFConfig
from elenchus.model.huggingface.safetensors_files import StoredTensor

HEAD, EMBEDDING = 'lm_head.weight', 'model.embed_tokens.weight'

# Wrappers that training code leaves before the names of a saved model.
_WRAPPERS = re.compile(r'^(_orig_mod\.|module\.|base_model\.model\.)+')
_BASE_PART = re.compile(r'^(embed_tokens|layers\.\d+|norm)\.')
_DERIVED = '.rotary_emb.inv_freq'  # old files store it although it follows from config.json
_ROWS = 4096  # of a head compared at once


class StoredWeights(NamedTuple):
    """The weights of a model folder; values are read one tensor at a time."""

    tensors: Mapping[str, StoredTensor]  # by the family's names
    scales: Mapping[str, StoredTensor]  # of weights in fp8, by their names in the file
    hf_config: HFConfig
    head_differs: str  # how the head of a tied model differs from its embedding; '' if it does not

    def read(self, name: str) -> np.ndarray:
        """Reads one weight, dequantized if it is stored in fp8."""
        return quantized_files.read_weight(self.tensors[name], self.scales, self.hf_config)

    @property
    def dtypes(self) -> set[str]:
        """The dtypes of the weights that are not quantized."""
        return {t.dtype for t in self.tensors.values() if t.name not in self.scales}


def list_weights(
    folder: Any, hf_config: HFConfig, *, renamed: Callable[[str], str | None], tied: bool
) -> StoredWeights:
    """Lists the weights of a folder.

    Args:
        folder: folder with safetensors files.
        hf_config: its config.json.
        renamed: name in the file -> name in the text model; None for other parts.
        tied: the output head is the embedding; a copy of it is dropped.

    A head that differs stays, with `head_differs`. Raises ValueError if files are damaged or
    quantized in a way that cannot be read, or if two tensors are one weight.
    """
    stored = safetensors_files.list_tensors(folder)
    unquantized, scales = quantized_files.split_scales(stored, hf_config)
    tensors = {}
    for name, tensor in unquantized.items():
        ours = renamed(_unwrapped(name))
        if ours is None or ours.endswith(_DERIVED):
            continue
        if ours in tensors:
            both = f'{tensors[ours].name} and {name}'
            raise ValueError(f'{tensor.path}: {both} are the same weight; remove one of them')
        tensors[ours] = tensor
    tensors = _with_prefix(tensors)
    weights = StoredWeights(tensors, scales, hf_config, '')
    if not tied or HEAD not in tensors or EMBEDDING not in tensors:
        return weights
    if difference := _difference(weights):
        return weights._replace(head_differs=difference)
    del tensors[HEAD]
    return weights


def _unwrapped(name: str) -> str:
    return _WRAPPERS.sub('', name)


def _with_prefix(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Adds 'model.' where the model was saved without its head, by the class of its body."""
    if any(name.startswith('model.') for name in tensors):
        return tensors
    return {f'model.{name}' if _BASE_PART.match(name) else name: t for name, t in tensors.items()}


def _difference(weights: StoredWeights) -> str:
    """Returns how the head of a tied model differs from its embedding; '' if it is a copy."""
    head, embedding = weights.tensors[HEAD], weights.tensors[EMBEDDING]
    differ = f'{head.name} {head.shape} in {head.path} is no copy of {embedding.name}'
    remedy = (
        'though tie_word_embeddings is true in config.json (or by default): set it to false to '
        'import both, or remove the head'
    )
    if head.shape != embedding.shape:
        return f'{differ} {embedding.shape}, {remedy}'
    for row, ours, theirs in _row_blocks(weights, HEAD, EMBEDDING):
        same = np.array_equal(ours, theirs, equal_nan=True)  # NaN is refused later, by name
        if not same:
            first = row + int(np.flatnonzero((ours != theirs).any(axis=1))[0])
            return f'{differ} (row {first} differs), {remedy}'
    return ''


def _row_blocks(weights: StoredWeights, *names: str) -> Iterator[tuple]:
    """Yields (first row, rows of each weight in float32) for blocks of rows."""
    tensors = [weights.tensors[name] for name in names]
    if any(tensor.name in weights.scales for tensor in tensors):
        yield 0, *(weights.read(name).astype(np.float32) for name in names)
        return
    for row in range(0, tensors[0].shape[0], _ROWS):
        yield (
            row,
            *(safetensors_files.read_rows(t, row, row + _ROWS).astype(np.float32) for t in tensors),
        )


def is_finite(values: np.ndarray) -> bool:
    """Returns True if no value is NaN or infinite; values are float32 or bfloat16."""
    # The exponent of such values has only ones. Eight times as fast as np.isfinite in bfloat16.
    bits = values.view(f'uint{8 * values.itemsize}')
    mask = bits.dtype.type(0x7F80 << (8 * values.itemsize - 16))
    return not values.size or (bits & mask).max() < mask
