"""The wheel: its list of packages, its files, and a command that works from it alone."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from elenchus.train.config import build, config_paths

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


DECLARED = {
    'google.protobuf': 'protobuf',
    'orbax.checkpoint': 'orbax-checkpoint',
    'absl': 'absl-py',
}
"""Imported name -> package, where normalising does not give it."""
_NAMES = ('peers', 'tunix', 'compare_import', 'compare_greedy', 'compare_templates')
COMPARED = {f'scripts/bench/{name}.py' for name in _NAMES}
"""Files that run in an environment of their own (extras `peers` and `tunix`)."""


OPTIONAL = ('api', 'gguf', 'gcs', 'peers', 'trackio', 'wandb')
"""Extras whose packages our files import where they are used."""


def imported_packages():
    """Packages that our files import, by the names of pyproject.toml."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob('*.py'):
            if path.relative_to(ROOT).as_posix() in COMPARED:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [f'{node.module}.{alias.name}' for alias in node.names]
                else:
                    continue
                for name in names:
                    top = name.partition('.')[0]
                    if top not in sys.stdlib_module_names and top != 'elenchus':
                        two = '.'.join(name.split('.')[:2])
                        yield DECLARED.get(two, DECLARED.get(top, top)).replace('_', '-').lower()


def test_every_import_is_declared_and_every_dependency_imported():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']
    declared = {re.match(r'[\w.-]+', d)[0].lower() for d in project['dependencies']}
    extras = project['optional-dependencies']
    optional = {re.match(r'[\w.-]+', d)[0].lower() for name in OPTIONAL for d in extras[name]}
    assert set(imported_packages()) - optional == declared - optional


def test_the_metadata_says_whose_and_where(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [n for n in file.namelist() if n.endswith('.dist-info/METADATA')]
        fields = file.read(name).decode().splitlines()
        licences = [n for n in file.namelist() if n.endswith('/LICENSE')]
        (entries,) = [n for n in file.namelist() if n.endswith('/entry_points.txt')]
        scripts = file.read(entries).decode()
    for start in ('License-Expression: Apache-2.0', 'Author: ', 'Project-URL: ', 'Classifier: '):
        assert any(field.startswith(start) for field in fields), start
    assert licences and 'elenchus = elenchus.scripts.console:main' in scripts


@pytest.mark.parametrize('name', ['lab', 'configs.lab', 'elenchus.configs.lab', 'configs/lab.py'])
def test_a_config_is_named_by_module_or_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = str(build.ROOT / 'configs' / 'lab.py')
    assert config_paths.locate(['x', f'--config={name}:smoke']) == ['x', f'--config={file}:smoke']
    assert config_paths.locate(['--config', name, '--config.seed=1']) == [
        *('--config', file, '--config.seed=1'),
    ]
    assert config_paths.locate(['--config=released.shapes']) == [
        f'--config={build.ROOT / "configs" / "released" / "shapes.py"}'
    ]
    for word in ('--config=lb', '--config=', '--workdir=lab', '--config=/x/lab.py'):
        assert config_paths.locate([word]) == [word]
    (tmp_path / 'lab').write_text('')
    assert config_paths.locate(['--config=lab']) == ['--config=lab']


def test_lab_sh_refuses_to_install_into_site_packages(installed):
    before = sorted(path.name for path in (installed / 'elenchus').iterdir())
    done = subprocess.run(
        ['bash', installed / 'elenchus/scripts/lab.sh'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and 'is no clone' in done.stderr and done.stderr.count('\n') == 1
    assert sorted(path.name for path in (installed / 'elenchus').iterdir()) == before


def elenchus(installed, folder, *words, **options):
    """Runs the command `elenchus` of the unpacked wheel; returns its output."""
    environment = os.environ | {'PYTHONPATH': str(installed)}
    return run('elenchus.scripts.console', *words, cwd=folder, env=environment, **options)


def test_the_command_lists_and_explains_itself_with_the_wheel_alone(installed, tmp_path):
    assert '  judge ' in elenchus(installed, tmp_path, '--help')
    assert '--num_votes' in elenchus(installed, tmp_path, 'judge', '--help')


@pytest.mark.slow
def test_every_command_works_outside_of_the_clone(installed, tmp_path):
    """Beside folders `data` and `scripts` of another project's."""
    for name in ('data', 'scripts'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').touch()
    tiny = ("--config.stages=('base','actor')", '--config.data.num_train=1500')
    elenchus(installed, tmp_path, 'run', '--config=lab:smoke', '--workdir=runs/a', *tiny)
    assert (tmp_path / 'runs/a/summary.json').exists()
    assert 'report.html' in elenchus(installed, tmp_path, 'report', 'runs/a')
    assert (tmp_path / 'runs/a/browser/index.html').exists()
    model, short = '--model=runs/a/stages/01-actor', '--config.sampling.attempt_tokens=64'
    sets = ('--data=lab', '--num_problems=4', '--greedy_only', '--out=figures')
    elenchus(installed, tmp_path, 'evaluate', model, short, *sets)
    assert (tmp_path / 'figures/results.json').exists()
    question = 'ben gets 3 and 4 . how many ?\n'
    assert elenchus(installed, tmp_path, 'chat', model, short, input=question).strip()
    shown = elenchus(installed, tmp_path, 'tools', 'roofline', '--rows=512', '--length=2048')
    assert 'v5e' in shown


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
