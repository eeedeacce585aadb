"""The compilation cache is on for every entry point, and where it is can be changed."""

import pytest

from elenchus.train.config import build

PROGRAM = """
import os
os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)
os.environ.update({environment})
import jax, jax.numpy as jnp
from absl import app
from elenchus.train.config import cli
def main(_):
    jax.jit(lambda x: jnp.sin(x @ x).sum())(jnp.ones((8, 8))).block_until_ready()
    print('folder', jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache)
app.run(main, flags_parser=cli.parse_flags)
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory, fork):
    """Runs PROGRAM with flags and an environment, in a fork of a process that has imported JAX."""
    path = tmp_path_factory.mktemp('program') / 'program.py'

    def run_in(*flags, folder=None):
        environment = {} if folder is None else {'JAX_COMPILATION_CACHE_DIR': str(folder)}
        path.write_text(PROGRAM.replace('{environment}', repr(environment)))
        result = fork('program.py', path.parent, flags)
        assert result.code == 0, result.errors
        return result.output

    return run_in


@pytest.mark.parametrize('by', ['flag', 'environment'])
def test_programs_are_kept_where_the_flag_or_the_environment_says(run, tmp_path, by):
    if by == 'flag':
        output = run(f'--compilation_cache={tmp_path / "kept"}', folder=tmp_path / 'other')
    else:
        output = run(folder=tmp_path / 'kept')
    assert f'folder {tmp_path / "kept"} True' in output
    assert any((tmp_path / 'kept').iterdir()) and not (tmp_path / 'other').exists()


def test_without_a_word_they_are_kept_in_the_clone(run):
    assert f'folder {build.ROOT / ".cache" / "jax"} True' in run()


def test_an_empty_folder_keeps_none(run, tmp_path):
    run('--compilation_cache=', folder=tmp_path / 'kept')
    assert not (tmp_path / 'kept').exists()
