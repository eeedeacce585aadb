"""Folders of a run and its stages: resuming, stopping on request, refusing another config."""

import dataclasses
import functools
import json
import shutil
from unittest import mock

import pytest
from etils import epath

from elenchus.configs import lab
from elenchus.data import records
from elenchus.data.grading import verify
from elenchus.train import preemption
from elenchus.train.checkpoints import model_store
from elenchus.train.config import build, run_settings, stage_fields
from elenchus.train.run import runner, session, stage_inputs
from elenchus.train.run.directory import RunDirectory, StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import STAGES, Stage
from tests.support import fake_run


def config_of(**changes):
    config = lab.get_config('smoke')
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return config


def directory_of(workdir, **changes):
    """The directory of a smoke run, in which nothing is written."""
    config = config_of(**changes)
    text, part_size = build.to_json(config), config.sampling.part_size
    reads = functools.partial(stage_fields.reads, build.build(run_settings.RunSettings, config))
    return RunDirectory(epath.Path(workdir), text, config.stages, part_size, reads=reads)


def run_of(workdir, problems=(), **changes):
    """A smoke run without models."""
    settings = build.build(run_settings.RunSettings, config_of(**changes))
    store = mock.create_autospec(model_store.ModelStore, instance=True)
    return session.Run(
        settings,
        directory_of(workdir, **changes),
        inputs=fake_run.make_inputs(problems),
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
    monkeypatch.setattr(preemption.requests, 'is_requested', lambda: True)
    with pytest.raises(preemption.Preempted) as stop:
        runner.run_stage(run_of(tmp_path), 'base')
    assert stop.value.code == 75 and "'00-base' has not started" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Fields that change after a stage


@pytest.fixture
def all_stages(monkeypatch):
    """Stages that return one figure and save no model, whatever their settings are."""
    table = {name: Stage(lambda stage: {'figure': 1}, lambda run: {}) for name in STAGES}
    monkeypatch.setattr(runner, 'STAGES', table)
    return table


def never(stage):
    raise AssertionError('run again')


def test_a_later_field_may_change_and_the_stages_before_it_stay(tmp_path, all_stages):
    for name in ('base', 'actor'):
        runner.run_stage(run_of(tmp_path), name)
    all_stages['base'] = all_stages['actor'] = Stage(never, lambda run: {})
    later = {'sampling__temperature': 0.5, 'critique__num_attempts': 3, 'reinforce__num_steps': 9}
    run = run_of(tmp_path, **later)
    run.directory.check_stages()
    for name in ('base', 'actor', 'critique'):
        assert runner.run_stage(run, name)['figure'] == 1


def test_a_field_that_a_complete_stage_read_is_refused_with_both_values(tmp_path, all_stages):
    for name in ('base', 'actor', 'critique'):
        runner.run_stage(run_of(tmp_path), name)
    for changes, stage, words in (
        ({'base__fit__num_steps': 9}, '00-base', 'field base.fit.num_steps was 8, now 9'),
        ({'actor__num_problems': 9}, '01-actor', 'field actor.num_problems was 20, now 9'),
        ({'sampling__top_k': 9}, '02-critique', 'field sampling.top_k was 0, now 9'),
    ):
        with pytest.raises(ValueError) as error:
            run_of(tmp_path, **changes).directory.check_stages()
        assert f'stage {stage!r} was started with another config: {words}; ' in str(error.value)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('error', [ValueError('top_k'), FloatingPointError('loss nan')])
def test_a_stage_that_failed_does_not_bind_its_values(tmp_path, all_stages, error, capsys):
    def fail(stage):
        stage.write_text('work', 'under the wrong value')
        raise error

    runner.run_stage(run_of(tmp_path), 'base')
    works, all_stages['actor'] = all_stages['actor'], Stage(fail, lambda run: {})
    with pytest.raises(type(error)):
        runner.run_stage(run_of(tmp_path, actor__num_problems=9), 'actor')
    folder = tmp_path / 'stages' / '01-actor'
    assert (folder / 'failure.txt').read_text() == f'{error}\n'
    all_stages['actor'] = works
    run = run_of(tmp_path)
    run.directory.check_stages()
    assert (folder / 'work').exists()  # opening alone deletes nothing
    assert runner.run_stage(run, 'actor')['figure'] == 1
    assert 'starts again: field actor.num_problems was 9, now 20' in capsys.readouterr().out
    assert not (folder / 'work').exists() and not (folder / 'failure.txt').exists()


def test_a_stage_that_failed_continues_with_equal_values(tmp_path, all_stages):
    def fail(stage):
        stage.write_text('work', 'a checkpoint')
        raise ValueError('a file was missing')

    works, all_stages['base'] = all_stages['base'], Stage(fail, lambda run: {})
    with pytest.raises(ValueError):
        runner.run_stage(run_of(tmp_path), 'base')
    all_stages['base'] = works
    runner.run_stage(run_of(tmp_path), 'base')
    assert (tmp_path / 'stages' / '00-base' / 'work').exists()


def test_a_stage_that_was_killed_still_binds_what_it_read(tmp_path):
    """Its work may be hours of training: it is not deleted because of a slip in a flag."""
    start_base(tmp_path, base__fit__num_steps=9)
    with pytest.raises(ValueError, match=r"stage '00-base' .* base\.fit\.num_steps was 9, now 8"):
        run_of(tmp_path).directory.check_stages()


def test_stages_may_be_appended_but_complete_ones_do_not_move(tmp_path, all_stages):
    for name in ('base', 'actor'):
        runner.run_stage(run_of(tmp_path, stages=('base', 'actor')), name)
    run_of(tmp_path, stages=('base', 'actor', 'critique')).directory.check_stages()
    moved = directory_of(tmp_path, stages=('actor', 'base'))
    with pytest.raises(ValueError, match=r"puts 'actor' at place 0, but .*01-actor is complete"):
        moved.check_stages()


# What a stage reads besides the config


def test_other_problems_and_another_order_of_stages_are_refused(tmp_path, all_stages):
    problem = records.Problem('lab/train/0', 'q', '3', 's', source='lab', level=1)
    order = {'stages': ('base', 'actor', 'critique', 'critic', 'vanilla', 'evaluate')}
    run = run_of(tmp_path, [problem], **order)
    for name in run.settings.stages:
        runner.run_stage(run, name)
    stage_inputs.check(run.reader)
    other = run_of(tmp_path, [dataclasses.replace(problem, answer='4')], **order)
    with pytest.raises(ValueError, match=r"'00-base' was run with another training problems"):
        stage_inputs.check(other.reader)
    order['stages'] = ('base', 'actor', 'critique', 'critic', 'reinforce', 'evaluate')
    with pytest.raises(ValueError, match=r"'05-evaluate' .* model of stage '(vanilla|reinforce)'"):
        stage_inputs.check(run_of(tmp_path, [problem], **order).reader)


def test_a_model_that_changed_under_a_complete_stage_is_refused(tmp_path, all_stages):
    run = run_of(tmp_path)
    description = tmp_path / 'stages' / '00-base' / 'model' / 'model_config.json'
    description.parent.mkdir(parents=True)
    for fingerprint in (1, 2):
        description.write_text(f'{{"fingerprint": {fingerprint}}}')
        if fingerprint == 1:
            for name in ('base', 'actor'):
                runner.run_stage(run, name)
    with pytest.raises(ValueError, match=r"'01-actor' was run with another model of stage 'base'"):
        stage_inputs.check(run.reader)


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
        patch.setattr(preemption.requests, 'is_requested', lambda: len(sampled) == 2)
        with pytest.raises(preemption.Preempted) as stop:
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
