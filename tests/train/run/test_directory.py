"""Folders of a run and its stages: resuming, stopping on request, refusing another config."""

import dataclasses
import json
import shutil
from unittest import mock

import pytest
from etils import epath

from elenchus.configs import lab
from elenchus.data import records
from elenchus.data.grading import verify
from elenchus.train import distributed
from elenchus.train.checkpoints import model_store
from elenchus.train.config import build, run_settings
from elenchus.train.run import runner, session
from elenchus.train.run.directory import RunDirectory, StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import Stage
from tests.support import fake_run


def directory_of(workdir, **changes):
    """The directory of a smoke run, in which nothing is written."""
    config = lab.get_config('smoke')
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    text, part_size = build.to_json(config), config.sampling.part_size
    return RunDirectory(epath.Path(workdir), text, config.stages, part_size)


def run_of(workdir):
    """A smoke run without data and models."""
    settings = build.build(run_settings.RunSettings, lab.get_config('smoke'))
    store = mock.create_autospec(model_store.ModelStore, instance=True)
    return session.Run(
        settings,
        directory_of(workdir),
        inputs=fake_run.make_inputs(),
        samplers=Samplers(settings.sampling, None),
        store=store,
        mesh=None,
    )


@pytest.fixture
def stages(monkeypatch):
    """The table of stages, in which `base` returns one figure and needs nothing."""
    table = {'base': Stage(lambda stage: {'figure': 1}, lambda run: {})}
    monkeypatch.setattr(runner, 'STAGES', table)
    return table


def start_base(workdir, **changes):
    """Writes the folder of `base` as a run with another config started it."""
    stage = directory_of(workdir, **changes).stage('base')
    stage.path.mkdir(parents=True)
    stage.write_text('config.json', stage.directory.config)
    return stage.path


def episodes_of(items, first):
    turn = records.Turn('question', (4,), (10 + first,))
    return [records.Episode(f'p{i}', 1, (turn,)) for i in items]


# Stages


def test_a_stage_that_lacks_its_input_says_which(tmp_path):
    """Stages may be run one by one; the missing one is named."""
    directory = directory_of(tmp_path)
    with pytest.raises(ValueError, match=r"stage 'actor' has left no model in .*; run it first"):
        directory.model_folder('actor')
    message = r"config\.stages=.* does not contain 'actr'; did you mean 'actor'\?"
    with pytest.raises(ValueError, match=message):
        directory.model_folder('actr')


def test_a_stage_with_another_config_is_refused_by_field(tmp_path, stages):
    start_base(tmp_path, train__rows=4)
    message = r"'00-base' was started with another config: field train\.rows was 4, now 8"
    with pytest.raises(ValueError, match=message):
        runner.run_stage(run_of(tmp_path), 'base')


def test_a_stage_may_continue_on_another_mesh(tmp_path, stages):
    start_base(tmp_path, mesh=(2, 2, 2), train__nonfinite='skip')
    assert runner.run_stage(run_of(tmp_path), 'base')['figure'] == 1


def test_a_stage_whose_config_is_damaged_is_one_line(tmp_path, stages):
    (start_base(tmp_path) / 'config.json').write_text('{"seed":')
    with pytest.raises(ValueError, match=r'config\.json: invalid JSON'):
        runner.run_stage(run_of(tmp_path), 'base')


def test_a_stage_that_fails_has_no_summary_and_runs_again(tmp_path, stages):
    def fail(stage):
        raise FloatingPointError('loss')

    stages['base'], works = Stage(fail, lambda run: {}), stages['base']
    run = run_of(tmp_path)
    with pytest.raises(FloatingPointError):
        runner.run_stage(run, 'base')
    assert run.directory.stage('base').read_summary() is None
    stages['base'] = works
    summary = runner.run_stage(run, 'base')
    assert summary['figure'] == 1 and summary['seconds'] >= 0
    assert run.directory.stage('base').read_summary() == summary


def test_the_figures_of_the_verifier_are_those_of_the_stage_and_no_part_of_its_summary(
    tmp_path, stages
):
    with verify.Verifier(comparator='no_such_module:compare') as verifier:
        verifier.check([('#### 1', '1')] * 5)

        def base(stage):
            verifier.check([('#### 7', '7'), ('#### (1,234)', '1234')])
            return {}

        stages['base'] = Stage(base, lambda run: {})
        run = dataclasses.replace(run_of(tmp_path), verifier=verifier)
        summary = runner.run_stage(run, 'base')
    figures = json.loads((tmp_path / 'stages/00-base/verifier.json').read_text())
    assert figures.pop('pairs_per_s') > 0
    assert figures == {'pairs': 2, 'algebra': 0, 'unsure': 0.5, 'timeout': 0, 'error': 0}
    assert 'verifier' not in summary


def test_a_stage_that_judges_nothing_has_no_figures_of_the_verifier(tmp_path, stages):
    with verify.Verifier() as verifier:
        runner.run_stage(dataclasses.replace(run_of(tmp_path), verifier=verifier), 'base')
    assert not (tmp_path / 'stages/00-base/verifier.json').exists()


def test_no_stage_starts_after_a_request_to_stop(tmp_path, stages, monkeypatch, capsys):
    monkeypatch.setattr(distributed, 'is_preempted', lambda: True)
    with pytest.raises(distributed.Preempted) as stop:
        runner.run_stage(run_of(tmp_path), 'base')
    assert stop.value.code == 75 and "'00-base' has not started" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Parts of a stage that samples


def test_a_stopped_sampling_stage_keeps_its_parts_and_continues_after_them(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / 'config.json').write_text('{}')
    parts = StageFolder(epath.Path(tmp_path), directory_of(tmp_path)).parts(
        '', range(12), description='x'
    )
    sampled = []

    def sample_missing():
        for part in parts.missing():
            sampled.append(part.first)
            part.write(episodes_of(part.items, part.first), 7)
        return parts.read()

    with monkeypatch.context() as patch:
        patch.setattr(distributed, 'is_preempted', lambda: len(sampled) == 2)
        with pytest.raises(distributed.Preempted) as stop:
            sample_missing()
    assert stop.value.code == 75 and '2 of 3 parts are sampled' in capsys.readouterr().err
    episodes, tokens = sample_missing()
    assert sampled == [0, 5, 10] and tokens == 21
    assert [e.problem_id for e in episodes] == [f'p{i}' for i in range(12)]


def test_a_work_directory_that_vanishes_is_not_created_again(tmp_path):
    workdir = tmp_path / 'run'
    start_base(workdir)
    (workdir / 'config.json').write_text('{}')
    parts = StageFolder(epath.Path(workdir) / 'x', directory_of(workdir)).parts(
        '', range(5), description='x'
    )
    with pytest.raises(FileNotFoundError, match=r'work directory is gone'):
        for part in parts.missing():
            shutil.rmtree(workdir)
            part.write(episodes_of(part.items, part.first), 7)
    assert not workdir.exists()


def test_a_temporary_stage_is_deleted_with_its_object():
    stage = StageFolder.temporary()
    stage.write_text('x', 'text')
    path = stage.path
    assert (path / 'x').read_text() == 'text'
    del stage
    assert not path.exists()
