"""The smoke run, uninterrupted and killed; and mistakes of the user, each one line."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from etils import epath

from elenchus.configs import lab
from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.model import sharding
from elenchus.train import distributed
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build
from elenchus.train.run import workspace
from tests.support import fake_workspace

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = 'configs/lab.py:smoke'
ENVIRONMENT = os.environ | {'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'}


def start(workdir, log):
    return subprocess.Popen(
        [
            *(sys.executable, '-m', 'scripts.run', '--config', SMOKE, '--workdir', str(workdir)),
            '--config.model.num_layers=1',  # compiles sooner
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def finish(workdir):
    """Runs until done; returns what was printed."""
    with open(f'{workdir}.log', 'w+') as log:
        code = start(workdir, log).wait(timeout=900)
        log.seek(0)
        told = log.read()
    assert code == 0, told[-3000:]
    return told


def kill_when(workdir, appears):
    """Runs until a path appears in the workdir, then kills the process outright."""
    with open(f'{workdir}.log', 'w') as log:
        process = start(workdir, log)
        stop_at = time.monotonic() + 600
        while not (workdir / appears).exists():
            assert process.poll() is None, pathlib.Path(log.name).read_text()[-3000:]
            assert time.monotonic() < stop_at, f'no {appears}'
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert not (workdir / 'report.html').exists()


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    finish(workdir)
    return workdir


@pytest.fixture(scope='module')
def resumed(tmp_path_factory, uninterrupted):
    """A run that was killed while the critic learnt and while the actor was reinforced."""
    workdir = tmp_path_factory.mktemp('killed') / 'run'
    kill_when(workdir, 'stages/03-critic/checkpoints/3')
    kill_when(workdir, 'stages/07-reinforce/checkpoints/2')
    finish(workdir)
    return workdir


def found(workdir, pattern):
    return sorted(path.relative_to(workdir) for path in workdir.glob(pattern))


def test_a_whole_run_leaves_every_stage_and_a_report(uninterrupted):
    stages = [path.name for path in found(uninterrupted, 'stages/*')]
    assert stages == [f'{i:02d}-{name}' for i, name in enumerate(lab.STAGES)]
    summary = json.loads((uninterrupted / 'summary.json').read_text())
    assert list(summary['stages']) == stages
    assert '<html' in (uninterrupted / 'report.html').read_text()[:1000].lower()


def smoke():
    """The config that `start` runs."""
    config = lab.get_config('smoke')
    config.model.num_layers = 1
    return config


def opened(workdir):
    """A workspace that can find its stages, without the checks and the data of a real one."""
    made = object.__new__(workspace.Workspace)
    return fake_workspace.describe(made, smoke(), epath.Path(workdir))


def test_a_finished_stage_is_not_run_again(uninterrupted):
    def never(*_):
        raise AssertionError('run again')

    for folder, told in json.loads((uninterrupted / 'summary.json').read_text())['stages'].items():
        stage = folder.partition('-')[2]
        assert opened(uninterrupted).run_stage(stage, never) == told


def test_a_killed_run_writes_the_same_metrics_bit_for_bit(uninterrupted, resumed):
    files = found(uninterrupted, 'stages/**/metrics.jsonl')
    assert len(files) == 8 and files == found(resumed, 'stages/**/metrics.jsonl')
    for name in files:
        assert (resumed / name).read_bytes() == (uninterrupted / name).read_bytes(), name


def test_a_killed_run_samples_the_same_episodes(uninterrupted, resumed):
    files = found(uninterrupted, 'stages/**/*.array_record')
    assert files and files == found(resumed, 'stages/**/*.array_record')
    for folder in sorted({name.parent for name in files}):
        whole = list(episode_files.read_episodes(uninterrupted / folder))
        assert list(episode_files.read_episodes(resumed / folder)) == whole, folder


def test_a_killed_run_ends_with_the_same_weights(uninterrupted, resumed):
    folders = [path.parent for path in found(uninterrupted, 'stages/*/model/model_config.json')]
    assert len(folders) == 6
    mesh = sharding.make_mesh((-1, 1, 1))
    for folder in folders:
        config, fingerprint = saved_models.read_description(uninterrupted / folder)
        one, other = (
            saved_models.load_model(
                workdir / folder, config, mesh=mesh, tokenizer_fingerprint=fingerprint
            )
            for workdir in (uninterrupted, resumed)
        )
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=str(folder))


def test_a_killed_run_tells_the_same_figures_but_for_the_seconds(uninterrupted, resumed):
    told = [json.loads((w / 'summary.json').read_text()) for w in (uninterrupted, resumed)]
    for stage in (stage for summary in told for stage in summary['stages'].values()):
        for figures in (stage, *stage.get('rounds', ())):
            assert figures.pop('seconds') >= 0
    assert told[0] == told[1]


def test_a_killed_run_leaves_nothing_half_written(resumed):
    assert not [path for path in resumed.rglob('*') if 'orbax-checkpoint-tmp' in path.name]


# Mistakes of the user: one process imports everything once, and is forked for each of them.

DRIVER = """
import json, os, runpy, sys
import scripts.run
told = []
for arguments in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ['run.py', *arguments]
        del sys.modules['scripts.run']
        try:
            runpy.run_module('scripts.run', run_name='__main__')
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with open(reader) as pipe:
        errors = pipe.read()
    told.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errors))
print(json.dumps(told))
"""

MISTAKES = {
    'unknown field': (['--config.train.bogus=1'], ['train.bogus', 'nearest']),
    'wrong type': (['--config.train.rows=many'], ['train.rows', 'many']),
    'GSM8K that is not there': (
        ['--config=configs/gsm8k.py:smoke', '--config.data.path=/nowhere'],
        ['config.data: path=', '/nowhere', 'train.jsonl', 'put the file there'],
    ),
    'problems that are not there': (
        ['--config.data.source=jsonl', '--config.data.path=/nowhere.jsonl'],
        ['config.data: path=', '/nowhere.jsonl', 'give a JSONL file'],
    ),
    'mesh': (['--config.mesh=(3, 1, 1)'], ['mesh=(3, 1, 1)', '1 devices', '(1, 1, 1)']),
    'vocabulary': (['--config.model.vocab_size=32'], ['model.vocab_size=32', '64']),
    'tokenizer file': (
        ['--config.tokenizer.kind=file', '--config.tokenizer.path=no.model'],
        ["tokenizer.path='no.model'", 'tokenizer.py'],
    ),
    'stage': (["--config.stages=('base', 'critik')"], ['stages[1]', 'nearest: critic']),
    'rows': (['--config.train.num_microbatches=3'], ['train.rows=8', 'nearest: 6']),
    'lengths': (
        ['--config.sampling.attempt_tokens=500'],
        ['reinforce.length=128', 'sampling.*_tokens lower'],
    ),
    'base model': (
        ['--config.base.checkpoint=nowhere'],
        ["base.checkpoint='nowhere'", "or ''"],
    ),
    'critic of its own': (
        ['--config.critic.checkpoint=nowhere'],
        ["critic.checkpoint='nowhere'", "or ''"],
    ),
    'annotator': (
        ['--config.critique.annotator=monte'],
        ["critique.annotator='monte'", 'nearest: monte_carlo'],
    ),
    'critiques that are not there': (
        ['--config.critique.annotator=file', '--config.critique.annotator_path=nowhere.jsonl'],
        ["critique.annotator_path='nowhere.jsonl'", 'give a file of critiques'],
    ),
    'annotating model': (
        ['--config.critique.annotator=model'],
        ["critique.annotator_path=''", 'give a saved model'],
    ),
    'path that is not read': (
        ['--config.critique.annotator_path=nowhere.jsonl'],
        ["critique.annotator='oracle'", "set it to ''"],
    ),
    'heads': (['--config.model.num_kv_heads=3'], ['num_kv_heads=3', 'nearest divisor']),
    'another config': (['--config.seed=5'], ['field seed was 0, now 5', 'new --workdir']),
}


@pytest.fixture(scope='module')
def mistakes(tmp_path_factory):
    """name -> (workdir, exit code, what stood on stderr) of every mistake."""
    folder = tmp_path_factory.mktemp('mistakes')
    workdirs = {name: folder / str(i) for i, name in enumerate(MISTAKES)}
    begun = workdirs['another config']
    begun.mkdir()
    (begun / 'config.json').write_text(build.to_json(lab.get_config('smoke')))
    arguments = [
        [f'--config={SMOKE}'] * (not given[0].startswith('--config='))
        + [*given, '--workdir', str(workdirs[name])]
        for name, (given, _) in MISTAKES.items()
    ]
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, json.dumps(arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        name: (workdirs[name], code, errors)
        for name, (code, errors) in zip(MISTAKES, told, strict=True)
    }


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_one_line_that_names_field_and_remedy(mistakes, name):
    _, code, errors = mistakes[name]
    assert code == 2, errors
    assert errors.startswith('error: ') and errors.count('\n') == 1, errors
    assert all(word in errors for word in MISTAKES[name][1]), errors


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_leaves_nothing_behind(mistakes, name):
    workdir = mistakes[name][0]
    left = [path.name for path in workdir.rglob('*')] if workdir.exists() else []
    assert left == (['config.json'] if name == 'another config' else [])


def test_a_stage_that_lacks_its_input_says_which(tmp_path):
    """Stages may be run one by one; the missing one is named."""
    with pytest.raises(ValueError, match=r"stage 'actor' has not been run in .*: run it first"):
        opened(tmp_path).load_model('actor')
    with pytest.raises(ValueError, match=r"stage='actr' is none of config\.stages="):
        opened(tmp_path).load_model('actr')


# A stage that is not as it was begun, asked to leave, or without its folder


def begun(workdir, **changes):
    """The run's folder of `base` as another config began it."""
    config = smoke()
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    folder = opened(workdir).stage_folder('base')
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(build.to_json(config))
    return folder


def test_a_stage_begun_with_another_config_is_refused_by_field(tmp_path):
    begun(tmp_path, train__rows=4)
    with pytest.raises(ValueError, match=r"'00-base' was begun .* field train\.rows was 4, now 8"):
        opened(tmp_path).run_stage('base', lambda *_: {})


def test_a_stage_may_continue_on_another_mesh(tmp_path):
    begun(tmp_path, mesh=(2, 2, 2), train__nonfinite='skip')
    assert opened(tmp_path).run_stage('base', lambda *_: {'made': 1})['made'] == 1


def test_a_stage_whose_config_is_damaged_is_one_line(tmp_path):
    (begun(tmp_path) / 'config.json').write_text('{"seed":')
    with pytest.raises(ValueError, match=r'config\.json: invalid JSON'):
        opened(tmp_path).run_stage('base', lambda *_: {})


def part(items, first):
    turn = records.Turn('question', (4,), (10 + first,))
    return [records.Episode(f'p{i}', 1, (turn,), {}) for i in items], 7


def test_asked_to_leave_a_sampling_stage_keeps_its_parts_and_goes_on_after_them(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / 'config.json').write_text('{}')
    made, told = [], []

    def make(items, first):
        made.append(first)
        told.append(True)
        return part(items, first)

    with monkeypatch.context() as patch:
        patch.setattr(distributed, 'is_preempted', lambda: len(told) == 2)
        with pytest.raises(distributed.Preempted) as left:
            opened(tmp_path).in_parts(tmp_path, range(12), description='x', make=make)
    assert left.value.code == 75 and '2 of 3 parts are sampled' in capsys.readouterr().err
    episodes, tokens = opened(tmp_path).in_parts(tmp_path, range(12), description='x', make=make)
    assert made == [0, 5, 10] and tokens == 21
    assert [e.problem_id for e in episodes] == [f'p{i}' for i in range(12)]


def test_a_work_directory_that_vanishes_is_not_made_again(tmp_path):
    workdir = tmp_path / 'run'
    begun(workdir)
    (workdir / 'config.json').write_text('{}')

    def make(items, first):
        shutil.rmtree(workdir)
        return part(items, first)

    with pytest.raises(FileNotFoundError, match=r'work directory is gone'):
        opened(workdir).in_parts(workdir / 'x', range(5), description='x', make=make)
    assert not workdir.exists()
