"""The wheel: its list of packages, its files, and a command that works from it alone."""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ('configs', 'data', 'model', 'sampling', 'scripts', 'train')
PROJECT_FILES = ('pyproject.toml', 'README.md', 'LICENSE')


def run(*arguments, **options):
    """Runs a Python module; returns its output."""
    process = subprocess.run(
        [sys.executable, '-m', *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    return process.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Path of a wheel built from a clean copy of the project."""
    copy, out = (tmp_path_factory.mktemp(name) for name in ('copy', 'out'))
    for name in FOLDERS:
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in PROJECT_FILES:
        shutil.copy(ROOT / name, copy / name)
    run('pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', out, copy)
    (path,) = out.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def test_the_listed_packages_are_those_on_disk():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
    folders = {path.parent for name in FOLDERS for path in (ROOT / name).rglob('*.py')}
    with_init = {path.parent for name in FOLDERS for path in (ROOT / name).rglob('__init__.py')}
    assert folders == with_init
    names = ['.'.join(('elenchus', *path.relative_to(ROOT).parts)) for path in folders]
    assert project['tool']['setuptools']['packages'] == sorted(names)


def test_a_wheel_has_every_file_of_the_packages_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith('/')}
    tops = {name.partition('/')[0] for name in names}
    assert 'elenchus' in tops and len(tops) == 2
    assert all(top == 'elenchus' or top.endswith('.dist-info') for top in tops)
    packed = {name.partition('/')[2] for name in names if name.startswith('elenchus/')}
    sources = {
        path.relative_to(ROOT).as_posix()
        for name in FOLDERS
        for path in (ROOT / name).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    assert packed == sources
    assert {'configs/lab.py', 'scripts/launch/slurm.sh', 'train/report/template.html'} <= packed
    assert [name for name in packed if name.startswith('data/lab/checkpoint/')]


@pytest.mark.slow
def test_a_config_is_described_with_the_wheel_alone(installed, tmp_path):
    output = run(
        'elenchus.scripts.run',
        f'--config={installed}/elenchus/configs/lab.py:smoke',
        '--describe',
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(installed)},
    )
    assert 'num_documents = 200 ' in output and '# that it is trained on' in output
    assert not list(tmp_path.iterdir())
