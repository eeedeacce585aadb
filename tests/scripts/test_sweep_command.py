"""The command lines of sweep, watch and plots: a line for a mistake, and --help that teaches."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SWEEP = ('sweep', '--config=configs/lab.py:smoke')
RANK = '--rank=evaluate.accuracy.refined.all'


def call(*arguments, **environment):
    """Runs a script; returns exit code, output and errors."""
    name, *rest = arguments
    result = subprocess.run(
        [sys.executable, '-m', f'elenchus.scripts.{name}', *map(str, rest)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip
    return result.returncode, result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((*SWEEP, RANK, '--vary=train.row=1'), "unknown field 'train.row'; did you mean"),
        ((*SWEEP, RANK), 'the sweep has no points'),
        ((*SWEEP, '--vary=train.rows=8'), '--rank='),
        ((*SWEEP, '--rank=evalute.x', '--vary=train.rows=8'), "nearest: 'evaluate'"),
        ((*SWEEP, RANK, '--vary=train.rows=8', '--seeds=a'), "'a' is no whole number"),
        ((*SWEEP, RANK, '--vary=train.rows=8', '--launcher=a "b'), 'quote it as for a shell'),
        ((*SWEEP, RANK, '--points=none.jsonl'), 'file not found: none.jsonl'),
        ((*SWEEP, RANK, '--vary=train.rows=8', '--random=2'), 'only 1 different points'),
        (('watch',), 'WORKDIR is missing'),
        (('watch', 'nowhere', '--once'), 'folder not found; nearest'),
        (('plots',), 'WORKDIR is missing'),
        (('plots', 'docs'), 'has no chart yet'),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    own = (f'--workdir={tmp_path}/sweep',) if arguments[0] == 'sweep' else ()
    code, _, errors = call(*arguments, *own)
    assert code == 2 and errors.count('\n') == 1 and message in errors, errors
    assert not (tmp_path / 'sweep').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'words'), [('sweep', '--vary'), ('watch', '--once'), ('plots', 'CSV')]
)
def test_help_teaches(name, words):
    _, output, _ = call(name, '--help')
    assert words in output and f'python -m scripts.{name}' in output


@pytest.mark.slow
def test_commands_for_other_machines_are_printed():
    fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)
    with fake_gcs.FakeGcs('bucket') as fake:
        code, output, errors = call(
            *SWEEP, '--vary=train.rows=8,16', '--seeds=0,1', '--action=print',
            '--workdir=gs://bucket/rows', '--launcher=bash scripts/launch/tpu.sh keep --zone=z',
            **fake.environment,
        )  # fmt: skip
    lines = output.splitlines()
    assert code == 0 and len(lines) == 4, errors
    for line in lines:
        assert line.startswith('bash scripts/launch/tpu.sh keep --zone=z --name=rows-')
        assert ' -- --config=configs/lab.py:smoke --workdir=gs://bucket/rows/seed' in line
