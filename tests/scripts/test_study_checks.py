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


STUDIES = {
    **{module.__name__.rpartition('.')[2]: module.get_config() for module in SHIPPED},
    **{f'methods.{table}': methods.get_config(table) for table in methods.TABLES},
}


@pytest.mark.parametrize('name', STUDIES)
def test_no_arm_of_a_shipped_study_changes_what_its_shared_stages_read(name):
    config = STUDIES[name]
    for changes in study_runner.arms_of(config).values():
        study_runner.check_shared(config, 0, changes)
