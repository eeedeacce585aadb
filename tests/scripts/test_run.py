"""The smoke run: complete, and killed and continued with the same results bit for bit."""

import json
import shutil
import signal
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
CHANGES = {
    'model.num_layers': 1,
    'base.fit.num_steps': 4,
    'actor.fit.num_steps': 4,
    'critic.fit.num_steps': 4,
    'improve.fit.num_steps': 2,
    'improve.num_rounds': 1,
    'critique.num_problems': 6,
    'evaluate.num_problems': 6,
    'evaluate.uptake.num_problems': 2,
    'evaluate.beam.num_problems': 2,
    'improve.candidates.num_problems': 2,
    'sampling.attempt_tokens': 24,
    'sampling.critique_tokens': 40,
    'sampling.refinement_tokens': 24,
    'sampling.engine.max_length': 160,
    'sampling.engine.prompt_buckets': (136,),
    'sampling.score.lengths': (136,),
    'self_talk.tokens': 88,
    'reinforce.length': 96,
    'reinforce.critic_length': 136,
    'reinforce.overlong_tokens': 8,
}
"""Less work of every kind: still two parts of samples, and a checkpoint within a training."""


@pytest.fixture(scope='module')
def run(fork):
    """Runs the smoke run into a work directory in a process of its own; kills it at a path."""

    def run_in(workdir, *, kill_at=''):
        changes = (f'--config.{name}={value}' for name, value in CHANGES.items())
        arguments = (f'--config={SMOKE}', f'--workdir={workdir}', *changes)
        result = fork('elenchus.scripts.run', multi_process.ROOT, arguments, kill_at=kill_at)
        assert result.code == (-signal.SIGKILL if kill_at else 0), result.errors[-3000:]

    return run_in


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, run):
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    run(workdir)
    return workdir


@pytest.fixture(scope='module')
def resumed(tmp_path_factory, run, uninterrupted):
    """A run that was killed while the critic and while the actor was trained.

    It trains these two stages again and takes the others, which are complete, from the whole run.
    """
    workdir = tmp_path_factory.mktemp('killed') / 'run'
    shutil.copytree(uninterrupted, workdir)
    for stage in ('03-critic', '07-reinforce'):
        shutil.rmtree(workdir / 'stages' / stage)
    for name in ('summary.json', 'report.html'):
        (workdir / name).unlink()
    for checkpoint in ('03-critic/checkpoints/3', '07-reinforce/checkpoints/2'):
        run(workdir, kill_at=workdir / 'stages' / checkpoint)
        assert not (workdir / 'report.html').exists()
    run(workdir)
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
    config.update_from_flattened_dict(CHANGES)  # as in `run`
    text, path = build.to_json(config), epath.Path(uninterrupted)
    run = mock.Mock(directory=RunDirectory(path, text, config.stages, config.sampling.part_size))
    run.settings.stages, run.reader = config.stages, run
    monkeypatch.setattr(runner, 'write_summaries', lambda run: None)
    summaries = json.loads((uninterrupted / 'summary.json').read_text())['stages']
    assert len(summaries) == len(config.stages)
    for folder, summary in summaries.items():
        stage = folder.partition('-')[2]
        monkeypatch.setattr(runner, 'STAGES', {stage: Stage(never, never)})
        assert runner.run_stage(run, stage) == summary


def test_a_killed_run_writes_the_same_metrics_bit_for_bit(uninterrupted, resumed):
    files = paths_in(uninterrupted, 'stages/**/metrics.jsonl')
    assert len(files) == 6 and files == paths_in(resumed, 'stages/**/metrics.jsonl')
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
