"""All configs and variants that are shipped, and settings built from them."""

import ast
import functools
import importlib
import pathlib
import re
from collections.abc import Iterator

import ml_collections
import pytest

from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ('', 'released.', 'studies.')


def get_config(name: str) -> ml_collections.ConfigDict:
    """Returns the run of a config such as 'lab:smoke'; of a study, the run that its arms change."""
    module, _, variant = name.partition(':')
    config = importlib.import_module(f'elenchus.configs.{module}').get_config(variant)
    return config.run if 'arms' in config else config


@functools.cache
def settings_of(name: str) -> RunSettings:
    """Builds the settings of a config."""
    return build.build(RunSettings, get_config(name))


def variants() -> Iterator[str]:
    """module:variant of every file in configs/, as the files' own errors list them."""
    for folder in FOLDERS:
        for path in sorted((ROOT / 'configs' / folder.rstrip('.')).glob('[!_]*.py')):
            module = folder + path.stem
            if not hasattr(importlib.import_module(f'elenchus.configs.{module}'), 'get_config'):
                continue  # derive.py and what configs share
            with pytest.raises(ValueError, match='no such variant; there are') as error:
                get_config(f'{module}:')
            for variant in ast.literal_eval(re.search(r'\[.*\]', str(error.value))[0]):
                yield f'{module}:{variant}'


ALL = tuple(variants())

RELEASED = {
    'released.llama3_8b_mathcritique:default': 8_030_261_248,
    'released.qwen2p5_math_1p5b_gsm8k:default': 1_543_714_304,
    'released.qwen2p5_math_1p5b_gsm8k:lora': 1_543_714_304,
    'released.qwen3_0p6b_gsm8k:default': 596_049_920,
    'released.smollm2_135m:default': 134_515_008,
    'released.smollm2_135m:tiny': 134_515_008,
    'released.smollm2_135m:qwen3_0p6b': 596_049_920,
    'released.gemma3_1b_lora:default': 999_885_952,
    'released.gemma3_1b_lora:int8': 999_885_952,
    'released.gemma3_1b_lora:nf4': 999_885_952,
}
"""Published numbers of parameters."""


class Naming:
    """Adds the name of a config to every error in its block, so that a test can loop over configs.

    for name in ALL:
        with Naming(name):
            assert settings_of(name).seed == 0
    """

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            error.add_note(f'config: {self._name}')
