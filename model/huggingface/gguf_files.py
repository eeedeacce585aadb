"""Reads GGUF files, the format of llama.cpp, with the library `gguf`: metadata and weights.

Weights are returned one tensor at a time, in float32, with the names and layout of `transformers`:
quantized weights are dequantized, the permutation of rows by llama.cpp is undone, and 1 is
subtracted from Gemma's norms, which are stored with 1 added. Source: docs/gguf.md of ggml.
"""

import dataclasses
import difflib
import functools
import importlib
import os
import pathlib
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from elenchus.model.huggingface import safetensors_files
from elenchus.model.huggingface.safetensors_files import StoredTensor

MAGIC = b'GGUF'

_NAMES = {
    'token_embd': 'model.embed_tokens',
    'output_norm': 'model.norm',
    'output': 'lm_head',
}
_LAYER_NAMES = {
    'attn_norm': 'input_layernorm',
    'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj',
    'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj',
    'attn_q_norm': 'self_attn.q_norm',
    'attn_k_norm': 'self_attn.k_norm',
    'ffn_gate': 'mlp.gate_proj',
    'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
}
# Gemma has four norms a layer, and the norm before the MLP has another name there.
_NORMS = {'ffn_norm': 'post_attention_layernorm'}
_GEMMA_NORMS = {
    'ffn_norm': 'pre_feedforward_layernorm',
    'post_attention_norm': 'post_attention_layernorm',
    'post_ffw_norm': 'post_feedforward_layernorm',
}
ROPE_FACTORS = 'rope_freqs.weight'
"""Tensor of the divisors of rotary frequencies: Llama 3.1's scaling."""

_LAYER = re.compile(r'blk\.(\d+)\.(\w+)\.(weight|bias)')
_PERMUTED = re.compile(r'\.self_attn\.[qk]_proj\.')
# Exceptions of the library for a file that is cut off or has invalid numbers.
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError, OSError, MemoryError)


def load_library() -> types.ModuleType:
    """Returns the library `gguf`. Raises ValueError, saying how to install it, if it is missing."""
    try:
        return importlib.import_module('gguf')
    except ImportError as error:
        raise ValueError(
            f"a .gguf file needs the library gguf ({error}): pip install 'elenchus[gguf]', or "
            "pip install 'gguf>=0.17'"
        ) from None


@dataclasses.dataclass(frozen=True)
class GgufFile:
    """A GGUF file: its metadata and the tensors of its model.

    Values of tensors are read on demand. Raises ValueError, naming the file, if it is damaged, cut
    off, in several parts or big-endian.
    """

    path: pathlib.Path

    def __post_init__(self):
        _check_start(self.path)
        if self._reader.byte_order == 'S':
            raise ValueError(f'{self.path} has big-endian numbers; nearest: a little-endian file')
        parts = self.metadata.get('split.count', 1)
        if parts > 1:
            part = self.metadata.get('split.no', 0) + 1
            raise ValueError(
                f'{self.path} is part {part} of {parts}; join the parts into one file first: '
                'llama-gguf-split --merge FIRST_PART JOINED.gguf'
            )

    @functools.cached_property
    def _reader(self) -> Any:
        try:
            return load_library().GGUFReader(os.fspath(self.path))
        except _DAMAGE as error:
            if isinstance(error, ValueError) and 'gguf>=' in str(error):
                raise
            raise ValueError(
                f'{self.path} is damaged or cut off ({type(error).__name__}: {error}): download '
                'it again, or join all its parts'
            ) from None

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """Keys and values of the metadata. Raises ValueError if a value cannot be read."""
        try:
            return {name: field.contents() for name, field in self._reader.fields.items()}
        except _DAMAGE as error:
            raise ValueError(f'{self.path}: damaged metadata ({error})') from None

    @functools.cached_property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, which is the prefix of its keys."""
        return str(self.metadata.get('general.architecture', ''))

    @functools.cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by their names in `transformers`; a tensor without one keeps its own."""
        return {
            hf_name(tensor.name, self.architecture): StoredTensor(
                tensor.name,
                self.path,
                tuple(int(n) for n in reversed(tensor.shape)),
                tensor.tensor_type.name,
            )
            for tensor in self._reader.tensors
        }

    def read_raw(self, name: str) -> np.ndarray:
        """Returns a tensor by its name in the file, dequantized to float32."""
        tensor = self._by_name[name]
        return (
            load_library()
            .dequantize(tensor.data, tensor.tensor_type)
            .astype(np.float32, copy=False)
        )

    @functools.cached_property
    def _by_name(self) -> dict[str, Any]:
        return {tensor.name: tensor for tensor in self._reader.tensors}


@dataclasses.dataclass(frozen=True)
class GgufWeights:
    """The weights of a GGUF file as those of `transformers`; see stored_weights.StoredWeights."""

    file: GgufFile
    tensors: Mapping[str, StoredTensor]  # by the family's names
    heads: int
    kv_heads: int
    head_differs = ''  # a file has a head only if the model is not tied

    @property
    def dtypes(self) -> set[str]:
        """Always float32: the values of all quantizations are exact in it."""
        return {'F32'}

    def read(self, name: str) -> np.ndarray:
        """Returns one weight in float32, in the layout of `transformers`."""
        values = self.file.read_raw(self.tensors[name].name)
        values = values.reshape(self.tensors[name].shape)
        if self.file.architecture == 'llama' and _PERMUTED.search(name):
            return unpermuted(values, self.heads if '.q_proj.' in name else self.kv_heads)
        if self.file.architecture.startswith('gemma') and name.endswith('norm.weight'):
            return values - np.float32(1)
        return values


def list_weights(file: GgufFile, *, heads: int, kv_heads: int) -> GgufWeights:
    """Lists the weights of a file. Raises ValueError, naming the tensor, if one cannot be read."""
    readable = {}
    for tensor in file.tensors.values():
        kind = tensor.dtype
        if kind not in readable:
            readable[kind] = _is_readable(kind)
        if not readable[kind]:
            known = [name for name in _quantizations() if _is_readable(name)]
            raise ValueError(
                f'{file.path}: {tensor.name} is stored as {kind}, which the library gguf cannot '
                f'dequantize; it reads {", ".join(known)}; nearest: {_nearest(kind, known)}'
            )
    derived = {ROPE_FACTORS}
    tensors = {name: tensor for name, tensor in file.tensors.items() if name not in derived}
    return GgufWeights(file, tensors, heads, kv_heads)


def hf_name(name: str, architecture: str) -> str:
    """Returns a tensor's name in `transformers`, or the name itself if it has none there."""
    norms = _GEMMA_NORMS if architecture.startswith('gemma') else _NORMS
    layer = _LAYER.fullmatch(name)
    if layer is not None:
        index, kind, part = layer.groups()
        renamed = (_LAYER_NAMES | norms).get(kind)
        return name if renamed is None else f'model.layers.{index}.{renamed}.{part}'
    kind, _, part = name.partition('.')
    return f'{_NAMES[kind]}.{part}' if kind in _NAMES else name


def unpermuted(values: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of the rows of queries or keys.

    llama.cpp interleaves the two halves of each head, because it rotates neighbouring rows;
    `transformers` and this project rotate the halves. values [heads * H, ...].
    """
    rows = values.shape[0]
    if heads < 1 or rows % (2 * heads):
        raise ValueError(f'{rows} rows of queries or keys are not {heads} heads of an even width')
    pairs = values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _check_start(path: pathlib.Path) -> None:
    """Raises ValueError if a file is missing, empty or no GGUF file by its first bytes."""
    if not path.is_file():
        near = difflib.get_close_matches(path.name, (p.name for p in path.parent.glob('*.gguf')))
        raise ValueError(f'file not found: {path}' + (f'; nearest: {near[0]}' if near else ''))
    safetensors_files.check_content(path)
    with path.open('rb') as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise ValueError(f'{path} is no GGUF file: it begins with {start!r}, not {MAGIC!r}')


@functools.cache
def _is_readable(quantization: str) -> bool:
    """Returns True if the library dequantizes this quantization."""
    library = load_library()
    kind = library.GGMLQuantizationType[quantization]
    _, size = library.GGML_QUANT_SIZES[kind]
    try:
        with np.errstate(all='ignore'):
            library.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _quantizations() -> list[str]:
    library = load_library()
    return [kind.name for kind in library.GGMLQuantizationType if kind in library.GGML_QUANT_SIZES]


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
