"""The smoke run: complete, and killed and continued with the same results bit for bit."""

import json
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath

from elenchus.configs import lab
from elenchus.data.files import episode_files
from elenchus.model import sharding
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build
from elenchus.train.run import runner
from elenchus.train.run.directory import RunDirectory
from elenchus.train.stages import Stage
from tests.support import multi_process

SMOKE = 'configs/lab.py:smoke'


def start(workdir, log):
    return subprocess.Popen(
        [
            *(
                sys.executable,
                '-m',
                'elenchus.scripts.run',
                '--config',
                SMOKE,
                '--workdir',
                str(workdir),
            ),
            '--config.model.num_layers=1',  # compiles sooner
        ],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1),
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def finish(workdir):
    """Runs until done; returns what was printed."""
    with open(f'{workdir}.log', 'w+') as log:
        code = start(workdir, log).wait(timeout=900)
        log.seek(0)
        text = log.read()
    assert code == 0, text[-3000:]
    return text


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
    """A run that was killed while the critic and while the actor was trained."""
    workdir = tmp_path_factory.mktemp('killed') / 'run'
    kill_when(workdir, 'stages/03-critic/checkpoints/3')
    kill_when(workdir, 'stages/07-reinforce/checkpoints/2')
    finish(workdir)
    return workdir


def paths_in(workdir, pattern):
    return sorted(path.relative_to(workdir) for path in workdir.glob(pattern))


def test_a_whole_run_writes_every_stage_and_a_report(uninterrupted):
    stages = [path.name for path in paths_in(uninterrupted, 'stages/*')]
    assert stages == [f'{i:02d}-{name}' for i, name in enumerate(lab.get_config().stages)]
    summary = json.loads((uninterrupted / 'summary.json').read_text())
    assert list(summary['stages']) == stages
    assert '<html' in (uninterrupted / 'report.html').read_text()[:1000].lower()


def test_a_complete_stage_is_not_run_again(uninterrupted, monkeypatch):
    def never(*_, **__):
        raise AssertionError('run again')

    config = lab.get_config('smoke')
    config.model.num_layers = 1  # as in `start`
    text, path = build.to_json(config), epath.Path(uninterrupted)
    run = mock.Mock(settings=mock.Mock(stages=config.stages))
    run.directory = RunDirectory(path, text, config.stages, config.sampling.part_size)
    summaries = json.loads((uninterrupted / 'summary.json').read_text())['stages']
    assert len(summaries) == len(config.stages)
    for folder, summary in summaries.items():
        stage = folder.partition('-')[2]
        monkeypatch.setattr(runner, 'STAGES', {stage: Stage(never, never)})
        assert runner.run_stage(run, stage) == summary


def test_a_killed_run_writes_the_same_metrics_bit_for_bit(uninterrupted, resumed):
    files = paths_in(uninterrupted, 'stages/**/metrics.jsonl')
    assert len(files) == 8 and files == paths_in(resumed, 'stages/**/metrics.jsonl')
    for name in files:
        assert (resumed / name).read_bytes() == (uninterrupted / name).read_bytes(), name


def test_a_killed_run_samples_the_same_episodes(uninterrupted, resumed):
    files = paths_in(uninterrupted, 'stages/**/*.array_record')
    assert files and files == paths_in(resumed, 'stages/**/*.array_record')
    for folder in sorted({name.parent for name in files}):
        whole = list(episode_files.read_episodes(uninterrupted / folder))
        assert list(episode_files.read_episodes(resumed / folder)) == whole, folder


def test_a_killed_run_ends_with_the_same_weights(uninterrupted, resumed):
    folders = [path.parent for path in paths_in(uninterrupted, 'stages/*/model/model_config.json')]
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


def test_a_killed_run_has_the_same_figures_except_the_seconds(uninterrupted, resumed):
    whole, killed = (
        json.loads((workdir / 'summary.json').read_text()) for workdir in (uninterrupted, resumed)
    )
    for stage in (stage for summary in (whole, killed) for stage in summary['stages'].values()):
        for figures in (stage, *stage.get('rounds', ())):
            assert figures.pop('seconds') >= 0
    assert whole == killed


def test_a_killed_run_has_no_half_written_files(resumed):
    assert not [path for path in resumed.rglob('*') if 'orbax-checkpoint-tmp' in path.name]
