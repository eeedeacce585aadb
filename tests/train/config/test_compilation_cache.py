"""The compilation cache is on for every entry point, and where it is can be changed."""

import os
import subprocess
import sys

import pytest

from elenchus.train.config import build

PROGRAM = """
import jax, jax.numpy as jnp
from absl import app
from elenchus.train.config import cli
def main(_):
    jax.jit(lambda x: jnp.sin(x @ x).sum())(jnp.ones((8, 8))).block_until_ready()
    print('folder', jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache)
app.run(main, flags_parser=cli.parse_flags)
"""


def run(*flags, folder=None):
    environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
    environment |= {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
    if folder is not None:
        environment['JAX_COMPILATION_CACHE_DIR'] = str(folder)
    result = subprocess.run(
        [sys.executable, '-c', PROGRAM, *flags],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return result.stdout


@pytest.mark.parametrize('by', ['flag', 'environment'])
def test_programs_are_kept_where_the_flag_or_the_environment_says(tmp_path, by):
    if by == 'flag':
        output = run(f'--compilation_cache={tmp_path / "kept"}', folder=tmp_path / 'other')
    else:
        output = run(folder=tmp_path / 'kept')
    assert f'folder {tmp_path / "kept"} True' in output
    assert any((tmp_path / 'kept').iterdir()) and not (tmp_path / 'other').exists()


def test_without_a_word_they_are_kept_in_the_clone():
    assert f'folder {build.ROOT / ".cache" / "jax"} True' in run()


def test_an_empty_folder_keeps_none(tmp_path):
    run('--compilation_cache=', folder=tmp_path / 'kept')
    assert not (tmp_path / 'kept').exists()
