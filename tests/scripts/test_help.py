"""`--help` of every script: it teaches, succeeds, and does not wait for JAX."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(
    path.stem for path in (ROOT / 'scripts').glob('*.py') if 'app.run(' in path.read_text('utf-8')
)
SLOW = {'flax', 'grain', 'jax', 'matplotlib', 'optax', 'orbax', 'tensorflow_datasets', 'torch'}
HELP = """
import runpy, sys
sys.argv[:] = [sys.argv[1], *sys.argv[2:]]
try:
    runpy.run_module('elenchus.scripts.' + sys.argv[0], run_name='__main__', alter_sys=True)
finally:
    print('IMPORTED', *sorted({name.partition('.')[0] for name in sys.modules}))
"""


def test_the_scripts_are_all_there():
    assert {'run', 'stage', 'study', 'evaluate', 'judge', 'convert', 'report'} <= set(SCRIPTS)


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_teaches_at_once(name):
    words = ['-h'] if name == 'judge' else ['--help']
    process = subprocess.run(
        [sys.executable, '-c', HELP, name, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0 and not process.stderr, process.stderr
    text, _, imported = process.stdout.partition('IMPORTED')
    assert not SLOW & set(imported.split())
    source = (ROOT / 'scripts' / f'{name}.py').read_text('utf-8')
    assert text.startswith(source.partition('"""')[2].partition('\n')[0])
    for flag in re.findall(r"DEFINE_(?!bool)\w+\(\s*'(\w+)'", source):
        assert f'--{flag}:' in text
    for flag in re.findall(r"DEFINE_bool\(\s*'(\w+)'", source):
        assert f'--[no]{flag}:' in text


def test_help_among_other_flags_is_answered_and_nothing_runs(tmp_path):
    """A config that does not exist is not looked at."""
    process = subprocess.run(
        [
            sys.executable,
            '-m',
            'scripts.run',
            '--config=none.py',
            f'--workdir={tmp_path}',
            '--help',
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert process.returncode == 0 and '--workdir' in process.stdout
    assert not list(tmp_path.iterdir())
