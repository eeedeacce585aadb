"""Paths in buckets: a client that is missing and a misspelt path are one line, before any work."""

import importlib.util
import os
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from elenchus.train.config import remote_paths
from tests.support import multi_process

WITHOUT = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *rest):
        if name.partition('.')[0] == 'gcsfs':
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'gcsfs' else found(name, *rest)
sys.argv = sys.argv[1:]
import runpy
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
"""
LAB = ('--config=configs/lab.py:smoke',)
COMMANDS = {
    'a work directory': ('scripts.run', *LAB, '--workdir=gs://b/run'),
    'a model': ('scripts.run', *LAB, '--workdir={out}', '--config.base.checkpoint=gs://b/m'),
    'problems': ('scripts.run', *LAB, '--workdir={out}', '--config.data.path=gs://b/p.jsonl'),
    'a report': ('scripts.report', '--workdir=gs://b/run'),
    'an evaluation': ('scripts.evaluate', '--model=gs://b/m', '--data=lab', '--out={out}'),
    'its problems': ('scripts.evaluate', '--model=models/m', '--data=gsm8k=gs://b', '--out={out}'),
    'a critic': ('scripts.judge', '--critic=gs://b/m', '--data=x.jsonl', '--out={out}'),
    'an import': ('scripts.convert', 'import', 'gs://b/hf', '{out}'),
    'an export': ('scripts.convert', 'export', '{out}', 'gs://b/hf'),
    'a merge': ('scripts.merge', *LAB, '--workdir={out}', '--stage=actor', '--out=gs://b/m'),
}


def run_without_gcsfs(arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', WITHOUT, *arguments],
        cwd=multi_process.ROOT, env=multi_process.environment(1), capture_output=True, text=True,
    )  # fmt: skip


def check_one_line(tmp_path, name):
    out = tmp_path / 'out'
    done = run_without_gcsfs([word.format(out=out) for word in COMMANDS[name]])
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert lines[0].startswith('error: ') and "pip install 'elenchus[gcs]'" in lines[0]
    assert 'gs://b' in lines[0] and not out.exists() and not os.path.exists('/gs')


@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_names_a_missing_client(tmp_path, name):
    check_one_line(tmp_path, name)


@pytest.mark.parametrize(
    ('value', 'nearest'),
    [
        ('gs:/b/run', 'gs://b/run'),
        ('gs:///b/run', 'gs://b/run'),
        ('gcs://b/run', 'gs://b/run'),
        ('GS://b/run', 'gs://b/run'),
        ('gs://', 'gs://BUCKET/FOLDER'),
        ('gsm8k=gs:/b', 'gs://b'),
        ('s3a://b/x', 's3://b/x'),
    ],
)
@pytest.mark.parametrize(
    'place',
    [
        lambda value: value,
        lambda value: [value],
        lambda value: ConfigDict({'data': {'path': value}}),
        lambda value: {1: (value,)},
    ],
)
def test_a_misspelt_bucket_is_refused_wherever_it_stands(value, nearest, place):
    with pytest.raises(ValueError, match=f'nearest: {nearest}$'):
        remote_paths.check_flags({'workdir': place(value)})


@pytest.mark.parametrize(
    'value',
    ['runs/x', '/a', '', 'http://localhost/v1', 'C:/x', 'see gs:/ b', 'lab', 'package:x', 3, None],
)
def test_other_values_pass(value):
    remote_paths.check_flags({'config': ConfigDict({'path': value}), 'other': value})


def test_a_missing_client_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for value in ('gs://b/run', ['x', 'gsm8k=gs://b/x'], ConfigDict({'path': 'gs://b'})):
        with pytest.raises(ValueError, match=r"gs://b.*pip install 'elenchus\[gcs\]'"):
            remote_paths.check_flags({'workdir': value})


def test_a_client_that_is_installed_passes(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    remote_paths.check_flags({'workdir': 'gs://b/run', 'data': ['gsm8k=gs://b/x', 's3://b']})
