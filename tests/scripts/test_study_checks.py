"""Checks of a study before it runs: arms, seeds, columns, and the stages that arms share."""

import pytest

from elenchus.configs.studies import (
    critics,
    distillation,
    findings,
    guidance,
    methods,
    reinforcement,
    shared,
    tail,
)
from elenchus.train.config import build
from elenchus.train.report import study_table
from elenchus.train.run import study_runner

SHIPPED = (critics, distillation, findings, guidance, reinforcement, tail)


@pytest.mark.parametrize(
    ('arms', 'message'),
    [
        ([('a', {'seed': 0}), ('b', {'sed': 0})], r"config\.arms: 'b': .*sed"),
        ([('a b', {}), ('a_b', {})], r"config\.arms: two folders .* 'a_b'"),
        ([('shared', {})], r"config\.arms: two folders .* 'shared'"),
        (
            [('a', {}), ('b', {'actor': {'num_problems': 7}})],
            r"'b': it changes actor\.num_problems, which the shared stage 'actor' reads: leave",
        ),
        ([('b', {'base': {'checkpoint': '/else'}})], r"'b': it changes base\.checkpoint, which"),
        ([('b', {'data': {'path': '/else'}})], r"'b': it changes data\.path, which the shared"),
        ([('b', {'data': {'num_train': 7}})], r"'b': it changes data\.num_train, which the shared"),
        (
            [('b', {'stages': ('base',)})],
            r"'b': its stages \('base',\) must begin with config\.shared",
        ),
    ],
)
def test_a_bad_arm_is_an_error_before_anything_runs(tmp_path, monkeypatch, arms, message):
    monkeypatch.setattr(study_runner, 'open_run', lambda *_, verifier: None)
    config = critics.get_config('smoke')
    config.arms = tuple({'name': name, 'changes': changes} for name, changes in arms)
    config.comparison.contrasts = ()
    with pytest.raises(ValueError, match=message):
        study_runner.run_study(config, tmp_path / 'study', None)
    assert not (tmp_path / 'study').exists()


@pytest.mark.parametrize('seeds', [(), (1, 1), ('a', 'b'), (0.5,)])
def test_seeds_that_are_no_different_numbers_are_refused(tmp_path, monkeypatch, seeds):
    monkeypatch.setattr(study_runner, 'open_run', lambda *_, verifier: None)
    config = critics.get_config('smoke')
    with config.ignore_type():
        config.seeds = seeds
    with pytest.raises(ValueError, match=r'config\.seeds=\(.*must be different whole numbers'):
        study_runner.run_study(config, tmp_path / 'study', None)


def test_columns_of_one_name_are_refused():
    row = shared.column('x', ('a', 'x'))
    with pytest.raises(ValueError, match="two columns 'x': rename one"):
        build.build(study_table.Comparison, {'table': (row, row), 'panels': (), 'contrasts': ()})


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        (
            ('evalute', 'x'),
            r"column 'x' reads the stage 'evalute', which arm .*; nearest: 'evaluate'",
        ),
        ((('evaluate', 'self_talk'), 'x'), "reads the stage 'self_talk', which arm 'x1'"),
        (
            ('training', 'tokens'),
            r"no figure at \('training', 'tokens'\); nearest: 'tokens_sampled'",
        ),
        ((), "column 'x' has no path"),
    ],
)
@pytest.mark.parametrize('is_panel', [False, True])
def test_a_path_into_a_stage_that_an_arm_lacks_is_an_error_before_anything_runs(
    tmp_path, monkeypatch, path, message, is_panel
):
    monkeypatch.setattr(study_runner, 'open_run', lambda *_, verifier: None)
    config = critics.get_config('smoke')
    config.comparison.contrasts = ()
    if is_panel and path:
        panel = {'title': 'x', 'over': (), 'x': path, 'x_label': '', 'y': path, 'y_label': ''}
        config.comparison.panels = (panel | {'scale': 1.0},)
        message = message.replace("column 'x'", "panel 'x'")
    else:
        config.comparison.table = (shared.column('x', path),)
    with pytest.raises(ValueError, match=message):
        study_runner.run_study(config, tmp_path / 'study', None)


def test_a_path_into_a_shared_stage_is_checked_when_that_has_run():
    rows = [shared.column('x', ('base', 'final_los')), shared.column('y', ('last', 'nothing'))]
    parts = {'table': tuple(rows), 'panels': (), 'contrasts': ()}
    comparison = build.build(study_table.Comparison, parts)
    with pytest.raises(ValueError, match=r"no figure at \('base', 'final_los'\); nearest"):
        study_table.check_figures(comparison, {'base': {'final_loss': 1.0}})
    study_table.check_figures(comparison, {'base': {'final_los': 1.0}})


@pytest.mark.parametrize('path', [('a',), ('a', 'x'), ('a', ('x', 'y')), ('a', ('x', 'y'), 'z')])
def test_a_path_to_several_numbers_is_refused_and_not_their_mean(path):
    """A figure with its interval is a list: the mean of it would be a wrong number."""
    row = build.build(study_table.Column, shared.column('x', path))
    with pytest.raises(
        ValueError, match=r'config\.comparison: no (number|figure) at .*; nearest: '
    ):
        study_table.column_value(row, {'a': {'x': [0.5, 0.1, 0.6], 'y': [0.5, 0.1, 0.6]}})


STUDIES = {
    **{module.__name__.rpartition('.')[2]: module.get_config() for module in SHIPPED},
    **{f'methods.{table}': methods.get_config(table) for table in methods.TABLES},
}


@pytest.mark.parametrize('name', STUDIES)
def test_no_arm_of_a_shipped_study_changes_what_its_shared_stages_read(name):
    config = STUDIES[name]
    for changes in study_runner.arms_of(config).values():
        study_runner.check_shared(config, 0, changes)


@pytest.mark.parametrize('name', STUDIES)
def test_every_arm_of_a_shipped_study_has_the_stages_that_its_tables_read(name):
    config = STUDIES[name]
    comparison = build.build(study_table.Comparison, config.comparison)
    arms = study_runner.arms_of(config)
    stages = {arm: study_runner.arm_config(config, 0, arms[arm]).stages for arm in arms}
    study_table.check_stages(comparison, stages)
