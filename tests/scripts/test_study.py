"""Studies: what their tables and plots read, and what a study runs."""

import json

import pytest

from elenchus.configs.studies import critics, findings, reinforcement, shared
from elenchus.scripts import run as whole
from elenchus.scripts import study
from elenchus.train.config import build
from elenchus.train.run import workspace

LEVELS = {name: [0.5, 0.4, 0.6] for name in ('all', '1', '2', '3', '4', '5')}
SHARES = dict.fromkeys(LEVELS, 0.2)


def improved(right):
    """What an improvement stage tells, as far as the study of findings reads it."""
    told = {
        'accuracy': {'attempt': LEVELS | {'4': [right, 0, 1], '5': [right / 2, 0, 1]}},
        'coverage': LEVELS,
        'spurious': None,
        'exploration': {'coverage': SHARES, 'distinct': SHARES, 'tokens': 1000},
        'kept': 7,
        'kept_share': SHARES,
        'kept_spurious': 0.1,
        'tokens_sampled': 2000,
    }
    return told | {'rounds': [told, told | {'kept': 9}]}


def evaluated():
    """What the stage `evaluate` tells, as far as the studies read it."""
    point = {'accuracy': {'all': [0.9, 0.8, 1.0]}}
    return {
        'critic': {'discriminability': None, 'found': 0.5, 'passed': 0.6, 'first_error_f1': 0.7},
        'accuracy': {'attempt': LEVELS, 'refined': LEVELS},
        'difference': {'refined-attempt': LEVELS},
        'curves': {'oracle majority (upper bound)': [point]},
    }


def test_a_path_leads_through_summaries_and_means():
    told = {'a': {'x': 1}, 'b': {'y': {'4': [0.2, 9], '5': [0.4, 9]}, 'none': None}}
    assert study.figure(told, ('a', 'x')) == 1
    assert study.figure(told, ('last', 'y', ('4', '5'), 0)) == pytest.approx(0.3)
    assert study.figure(told, ('b', 'none', 0)) != study.figure(told, ('b', 'none', 0))
    with pytest.raises(ValueError, match=r"nothing at \('b', 'z'\); nearest: 'y'"):
        study.figure(told, ('b', 'z', '4'))


def test_rows_and_points_are_scaled():
    runs = {'base': {}, 'vanilla': improved(0.4)}
    shown = build.build(study.Comparison, findings.get_config('smoke').comparison)
    table = {row.name: study.cell(row, runs) for row in shown.table}
    assert table['hard right, %'] == pytest.approx(30) and table['kept'] == 7
    assert table['hard kept, %'] == pytest.approx(40) and table['thousand tokens'] == 2
    by_round, *_, by_tokens = (study.points(panel, runs) for panel in shown.panels)
    assert by_round == [(1, pytest.approx(30)), (2, pytest.approx(30))]
    assert by_tokens == [(1000, pytest.approx(20))] * 2
    row = build.build(study.Row, shared.row('gain', ('evaluate', 'x'), minus=('evaluate', 'y')))
    assert study.cell(row, {'evaluate': {'x': 0.5, 'y': 0.2}}) == pytest.approx(30)


def test_a_panel_over_rows_is_of_the_arms_that_have_them():
    shown = build.build(study.Comparison, reinforcement.get_config('smoke').comparison)
    _, by_tokens, by_iteration = shown.panels
    rows = [
        {'reward/correct': 0.5, 'sampled/tokens': 30},
        {'reward/correct': 1, 'sampled/tokens': 70},
    ]
    runs = {'reinforce': {'rows': rows}}
    assert study.points(by_tokens, runs) == [(30, 50), (70, 100)]
    assert study.points(by_iteration, runs) == [(1, 50), (2, 100)]
    assert study.points(by_tokens, {'actor': {}}) == []
    with pytest.raises(ValueError, match="is over 'reinforce'; nearest: 'reinforce_critic'"):
        study.check_panels(shown, [('actor', 'reinforce_critic')])


@pytest.mark.parametrize(
    ('described', 'told'),
    [(critics, evaluated()), (findings, improved(0.4)), (reinforcement, evaluated())],
)
def test_a_study_runs_every_arm_on_the_shared_stages(tmp_path, monkeypatch, described, told):
    ran, made = [], []

    class Opened:
        def __init__(self, config, workdir, *, verifier):
            self.config, self.workdir = config, workdir
            made.append(workdir.name)

        def stage_folder(self, stage):
            return self.workdir / 'stages' / f'{self.config.stages.index(stage):02d}-{stage}'

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

    def run(opened):
        stages = opened.config.stages
        new = [stage for stage in stages if not opened.stage_folder(stage).exists()]
        ran.append((opened.workdir.name, tuple(new)))
        for stage in new:
            opened.stage_folder(stage).mkdir(parents=True)
            row = json.dumps({'sampled/tokens': 9, 'reward/correct': 0.5}) + '\n'
            (opened.stage_folder(stage) / 'metrics.jsonl').write_text(row)
        summary = {opened.stage_folder(stage).name: told for stage in stages}
        workspace.write_json(opened.workdir / 'summary.json', {'stages': summary})

    monkeypatch.setattr(study, 'Workspace', Opened)
    monkeypatch.setattr(whole, 'run', run)
    config = described.get_config('smoke')
    config.arms, config.seeds = config.arms[:3], (0, 1)
    names = [arm['name'] for arm in config.arms]
    study.study(config, tmp_path, None)
    (first, shared), *arms = ran[:4]
    assert (first, shared) == ('shared', config.shared)
    assert [name for name, _ in arms] == [name.replace(' ', '_') for name in names]
    assert made[:4] == [*(name for name, _ in arms), 'shared']  # all opened before any is run
    assert all(new and not set(new) & set(config.shared) for _, new in arms)
    told = json.loads((tmp_path / 'study.json').read_text())
    assert list(told['arms']) == names
    absolute, paired = (tmp_path / 'study.md').read_text().split('\n\n')
    first, *others = names
    arms_of = lambda text: [line.split(' | ')[0] for line in text.splitlines()[2:]]  # noqa: E731
    assert arms_of(absolute) == [f'| {name}' for name in names]
    assert paired.startswith(f'| less {first}, by seed |')
    assert arms_of(paired) == [f'| {name}' for name in others]
    assert (tmp_path / 'study.png').read_bytes().startswith(b'\x89PNG')


def test_differences_to_the_first_arm_are_paired_by_seed(tmp_path):
    row = shared.row('x', ('a', 'x'), scale=1.0)
    shown = build.build(study.Comparison, {'table': (row,), 'panels': ()})
    runs = {'one': (1, 5), 'two': (2, 8)}
    figures = {
        arm: {str(seed): {'a': {'x': value}} for seed, value in enumerate(values)}
        for arm, values in runs.items()
    }
    lines = study.table_lines(study.table_of(figures, shown))
    assert lines[2:4] == ['| one | 3.0 [1.0, 5.0] |', '| two | 5.0 [2.0, 8.0] |']
    assert lines[-1] == '| two | +2.0 [+1.0, +3.0] |'
    figures['two'].pop('1'), figures['one'].pop('1')
    assert len(study.table_lines(study.table_of(figures, shown))) == 4


@pytest.mark.parametrize(
    ('arms', 'message'),
    [
        ([('a', {'seed': 0}), ('b', {'sed': 0})], r"config\.arms: 'b': .*sed"),
        ([('a b', {}), ('a_b', {})], r"config\.arms: two folders .* 'a_b'"),
        ([('shared', {})], r"config\.arms: two folders .* 'shared'"),
    ],
)
def test_a_bad_arm_is_an_error_before_anything_runs(tmp_path, monkeypatch, arms, message):
    monkeypatch.setattr(study, 'Workspace', lambda *_, verifier: None)
    config = critics.get_config('smoke')
    config.arms = tuple({'name': name, 'changes': changes} for name, changes in arms)
    with pytest.raises(ValueError, match=message):
        study.study(config, tmp_path / 'study', None)
    assert not (tmp_path / 'study').exists()
