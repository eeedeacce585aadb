"""Studies: the figures that their tables and plots read, and the stages that they run."""

import collections
import contextlib
import json
import types

import numpy as np
import pytest
from etils import epath

from elenchus.configs.studies import critics, findings, reinforcement, shared, tail
from elenchus.train.config import build
from elenchus.train.report import study_contrasts, study_table
from elenchus.train.run import runner, study_runner
from elenchus.train.run.directory import RunDirectory, write_json

LEVELS = {name: [0.5, 0.4, 0.6] for name in ('all', *'12345678')}
SHARES = dict.fromkeys(LEVELS, 0.2)


def improved(right):
    """The part of an improvement stage's summary that the study of findings reads."""
    summary = {
        'accuracy': {
            'attempt': LEVELS | {'6': [right, 0, 1], '7': [right / 2, 0, 1], '8': [0.3, 0, 1]}
        },
        'coverage': LEVELS,
        'spurious': None,
        'exploration': {'coverage': SHARES, 'distinct': SHARES, 'tokens': 1000},
        'kept': 7,
        'kept_share': SHARES,
        'kept_spurious': 0.1,
        'tokens_sampled': 2000,
    }
    return summary | {'rounds': [summary, summary | {'kept': 9}]}


def evaluated():
    """The part of the summary of `evaluate` that the studies read."""
    curve = [{'accuracy': {'all': [0.9, 0.8, 1.0]}}]
    return {
        'critic': {'found': 0.5, 'passed': 1, 'first_error_micro_f1': 1, 'discriminability': None},
        'accuracy': {'attempt': LEVELS, 'refined': LEVELS},
        'difference': {'refined-attempt': LEVELS},
        'uptake': {'difference': {'words': LEVELS, 'rival': LEVELS}},
        'tokens_sampled': 500,
        'curves': {'oracle majority (upper bound)': curve},
    }


def questions_json(digest, shift=0.0):
    """questions.json of 150 questions of levels 1 to 8 in turn, of a stage that evaluates."""
    right = [0.25 * (i % 4) + shift for i in range(150)]
    return {
        'digest': digest,
        'levels': [str(1 + i % 8) for i in range(150)],
        'accuracy': {'attempt': right, 'refined': [value / 2 + 0.5 for value in right]},
    }


def test_a_path_leads_through_summaries_and_means():
    summaries = {'a': {'x': 1}, 'b': {'y': {'4': [0.2, 9], '5': [0.4, 9]}, 'none': None}}
    assert study_table.figure_at(summaries, ('a', 'x')) == 1
    assert study_table.figure_at(summaries, ('last', 'y', ('4', '5'), 0)) == pytest.approx(0.3)
    assert study_table.figure_at(summaries, ('b', 'none', 0)) != study_table.figure_at(
        summaries, ('b', 'none', 0)
    )
    with pytest.raises(ValueError, match=r"no figure at \('b', 'z'\); nearest: 'y'"):
        study_table.figure_at(summaries, ('b', 'z', '4'))


def test_the_cost_of_an_arm_is_what_it_sampled_to_learn_from(tmp_path):
    stages = {'02-critique': 30, '03-critic': 0, '04-reinforce': 500, '05-evaluate': 7000}
    summaries = {name: {'tokens_sampled': tokens} for name, tokens in stages.items()}
    write_json(tmp_path / 'summary.json', {'stages': summaries})
    run = study_runner.read_summaries(tmp_path)
    assert study_table.figure_at(run, ('training', 'tokens_sampled')) == 530
    assert list(run) == ['training', 'critique', 'critic', 'reinforce', 'evaluate']


def test_rows_and_points_are_scaled():
    runs = {'base': {}, 'vanilla': improved(0.4)}
    comparison = build.build(study_table.Comparison, findings.get_config('smoke').comparison)
    table = {column.name: study_table.column_value(column, runs) for column in comparison.table}
    assert table['hard right, %'] == pytest.approx(30) and table['kept'] == 7
    assert table['hard kept, %'] == pytest.approx(60) and table['thousand tokens'] == 2
    by_round, *_, by_tokens = (study_table.panel_points(panel, runs) for panel in comparison.panels)
    assert by_round == [(1, pytest.approx(30)), (2, pytest.approx(30))]
    assert by_tokens == [(1000, pytest.approx(20))] * 2
    gain = build.build(
        study_table.Column, shared.column('gain', ('evaluate', 'x'), minus=('evaluate', 'y'))
    )
    assert study_table.column_value(gain, {'evaluate': {'x': 0.5, 'y': 0.2}}) == pytest.approx(30)


def test_a_panel_over_rows_is_of_the_arms_that_have_them():
    comparison = build.build(study_table.Comparison, reinforcement.get_config('smoke').comparison)
    _, by_tokens, by_iteration = comparison.panels
    rows = [
        {'reward/correct': 0.5, 'sampled/tokens': 30},
        {'reward/correct': 1, 'sampled/tokens': 70},
    ]
    runs = {'reinforce': {'rows': rows}}
    assert study_table.panel_points(by_tokens, runs) == [(30, 50), (70, 100)]
    assert study_table.panel_points(by_iteration, runs) == [(1, 50), (2, 100)]
    assert study_table.panel_points(by_tokens, {'actor': {}}) == []
    with pytest.raises(
        ValueError, match="is over the unknown stage 'reinforce'; nearest: 'reinforce_critic'"
    ):
        study_table.check_panels(comparison, [('actor', 'reinforce_critic')])


@pytest.mark.parametrize(
    ('study_config', 'summary'),
    [
        (critics, evaluated()),
        pytest.param(findings, improved(0.4), marks=pytest.mark.slow),
        pytest.param(reinforcement, evaluated(), marks=pytest.mark.slow),
    ],
)
def test_a_study_runs_every_arm_on_the_shared_stages(tmp_path, monkeypatch, study_config, summary):
    ran, opened_folders = collections.defaultdict(list), []

    def open_run(config, workdir, *, verifier):
        opened_folders.append(workdir.name)
        part_size = config.sampling.part_size
        directory = RunDirectory(epath.Path(workdir), '{}', config.stages, part_size)
        run = types.SimpleNamespace(directory=directory, data_seed=config.data.seed)
        run.settings = types.SimpleNamespace(stages=config.stages)
        run.started = lambda: contextlib.nullcontext(run)
        return run

    def run_stage(run, name):
        folder, workdir = run.directory.stage(name).path, run.directory.path
        if not folder.exists():
            ran[workdir.name].append(name)
            folder.mkdir(parents=True)
            row = json.dumps({'sampled/tokens': 9, 'reward/correct': 0.5}) + '\n'
            (folder / 'metrics.jsonl').write_text(row)
            write_json(folder / 'questions.json', questions_json(f'seed {run.data_seed}'))
        summaries = {run.directory.stage(s).path.name: summary for s in run.settings.stages}
        write_json(workdir / 'summary.json', {'stages': summaries})

    monkeypatch.setattr(study_runner, 'open_run', open_run)
    monkeypatch.setattr(runner, 'run_stage', run_stage)
    monkeypatch.setattr(runner, 'report', lambda run: None)
    config = study_config.get_config('smoke')
    config.arms, config.seeds = config.arms[:3], (0, 1)
    name = 'study' if study_config is critics else 'named'
    config.update({} if study_config is critics else {'results': name})
    names = [arm['name'] for arm in config.arms]
    column = 'gain' if study_config is critics else config.comparison.contrasts[0]['column']
    config.comparison.contrasts = (shared.contrast(names[1], names[0], column),)
    study_runner.run_study(config, tmp_path, None)
    (first, stages), *arms = ran.items()
    assert (first, tuple(stages)) == ('shared', config.shared * len(config.seeds))
    assert [name for name, _ in arms] == [name.replace(' ', '_') for name in names]
    # All arms are opened before any of them runs.
    assert opened_folders[:4] == [*(name for name, _ in arms), 'shared']
    assert all(new and not set(new) & set(config.shared) for _, new in arms)
    results = json.loads((tmp_path / f'{name}.json').read_text())
    assert list(results['arms']) == names
    absolute, paired, contrasts = (tmp_path / f'{name}.md').read_text().split('\n\n')
    first, *others = names
    arms_of = lambda text: [line.split(' | ')[0] for line in text.splitlines()[2:]]  # noqa: E731
    assert arms_of(absolute) == [f'| {name}' for name in names]
    assert paired.startswith(f'| less {first}, by seed |')
    assert arms_of(paired) == [f'| {name}' for name in others]
    # Two seeds have an interval, and their own problems: their questions are nested.
    (row,) = contrasts.splitlines()[2:]
    cells = '+0.0 | [+0.0, +0.0] | [+0.0, +0.0] (nested) | - | -'
    assert row == f'| {names[1]} - {names[0]}: {column} | {cells} |'
    assert 'by_question' not in (tmp_path / f'{name}.json').read_text()
    assert (tmp_path / f'{name}.png').read_bytes().startswith(b'\x89PNG')


def test_differences_to_the_first_arm_are_paired_by_seed(tmp_path):
    row = shared.column('x', ('a', 'x'), scale=1.0)
    comparison = build.build(
        study_table.Comparison, {'table': (row,), 'panels': (), 'contrasts': ()}
    )
    runs = {'one': (1, 5), 'two': (2, 8)}
    figures = {
        arm: {str(seed): {'a': {'x': value}} for seed, value in enumerate(values)}
        for arm, values in runs.items()
    }
    study_table.write_comparison(figures, comparison, tmp_path)
    assert (tmp_path / 'study.md').exists() and not (tmp_path / 'study.png').exists()
    lines = study_table.table_lines(study_table.table_of(figures, comparison))
    assert lines[2:4] == ['| one | 3.0 [1.0, 5.0] |', '| two | 5.0 [2.0, 8.0] |']
    assert lines[-1] == '| two | +2.0 [+1.0, +3.0] |'
    figures['two'].pop('1'), figures['one'].pop('1')
    assert len(study_table.table_lines(study_table.table_of(figures, comparison))) == 4


# Contrasts

COLUMNS = (
    shared.column('right, %', ('evaluate', 'accuracy', 'attempt', 'all', 0)),
    shared.column('hard right, %', ('last', 'accuracy', 'attempt', ('4', '5'), 0)),
    shared.column('gain', ('evaluate', 'difference', 'refined-attempt', 'all', 0)),
    shared.column('kept', ('evaluate', 'kept'), scale=1.0),
)


def contrasts_of(*contrasts):
    section = {'table': COLUMNS, 'panels': (), 'contrasts': contrasts}
    return build.build(study_table.Comparison, section)


def run_of(digest, shift):
    """Summaries of a run whose figures are means of its questions."""
    questions = questions_json(digest, shift)
    right, refined = (np.array(questions['accuracy'][arm]) for arm in ('attempt', 'refined'))
    levels = {n: [i for i in range(150) if str(1 + i % 8) == n] for n in '12345678'}
    levels['all'] = list(range(150))
    mean = lambda values: {n: [values[at].mean(), None, None] for n, at in levels.items()}  # noqa: E731
    figures = {
        'accuracy': {'attempt': mean(right), 'refined': mean(refined)},
        'difference': {'refined-attempt': mean(refined - right)},
        'kept': 100 * shift,
    }
    return {'evaluate': figures | {'by_question': questions}}


SHIFTS = (0.01, 0.05, 0.03)


def study_runs(digests):
    return {
        arm: {str(i): run_of(digest, of(shift)) for i, (digest, shift) in
              enumerate(zip(digests, SHIFTS, strict=True))}
        for arm, of in (('new', lambda shift: 0.1 + shift), ('old', lambda shift: 0.1))
    }  # fmt: skip


@pytest.mark.parametrize('column', [column['name'] for column in COLUMNS[:3]])
def test_values_at_questions_have_the_mean_of_their_column(column):
    comparison = contrasts_of(shared.contrast('new', 'old', column))
    (chosen,) = (c for c in comparison.table if c.name == column)
    summaries = run_of('a', 0.125)
    values = study_table.question_values(chosen, summaries)
    assert values.mean() == pytest.approx(study_table.column_value(chosen, summaries))
    assert study_table.question_values(comparison.table[3], summaries) is None


@pytest.mark.parametrize(
    ('digests', 'design'),
    [('aaa', 'crossed'), ('abc', 'nested')],
)
def test_contrasts_are_over_seeds_and_adjusted_together(digests, design):
    """Differences of 1, 5 and 3 points: 3 +- 4.303 * 2 / sqrt(3)."""
    comparison = contrasts_of(
        shared.contrast('new', 'old', 'right, %'), shared.contrast('new', 'old', 'kept')
    )
    right, kept = study_table.contrast_results(study_runs(digests), comparison).values()
    assert right.differences == pytest.approx([1, 5, 3])
    assert right.over_seeds == pytest.approx((3.0, -1.9683, 7.9683), abs=1e-3)
    # The questions of an arm differ by the same shift: seeds alone spread the resamples.
    assert right.design == design
    assert 1 <= right.over_questions.low < 3 < right.over_questions.high <= 5
    assert right.p == pytest.approx(0.1216, abs=1e-3)
    assert right.adjusted == pytest.approx(2 * right.p)
    assert kept.over_questions is None and kept.design is None and kept.p > right.p / 2


def test_arms_with_other_questions_have_no_interval_over_questions():
    runs = study_runs('aaa')
    runs['old']['1']['evaluate']['by_question']['digest'] = 'other'
    comparison = contrasts_of(shared.contrast('new', 'old', 'right, %'))
    (result,) = study_table.contrast_results(runs, comparison).values()
    assert result.over_questions is None and result.p is not None


def test_an_undefined_figure_leaves_a_contrast_unknown_and_in_the_family():
    runs = study_runs('abc')
    runs['old']['1']['evaluate']['kept'] = None
    comparison = contrasts_of(
        shared.contrast('new', 'old', 'right, %'), shared.contrast('new', 'old', 'kept')
    )
    right, kept = study_table.contrast_results(runs, comparison).values()
    assert right.adjusted == pytest.approx(2 * right.p)
    assert kept.p is None and kept.adjusted is None and kept.over_seeds.low is None
    *_, row = study_contrasts.table_lines(comparison.contrasts, [right, kept])
    assert row == '| new - old: kept | - | - | - | - | - |'


def test_a_contrast_waits_for_a_common_seed():
    runs, comparison = study_runs('abc'), contrasts_of(shared.contrast('new', 'old', 'right, %'))
    runs['old'] = {'2': runs['old']['2']}
    (result,) = study_table.contrast_results(runs, comparison).values()
    assert result.differences == pytest.approx([3]) and result.over_seeds.low is None
    runs |= {'old': {}, 'early': {'0': runs['new']['0']}}
    both = contrasts_of(*(shared.contrast('new', arm, 'right, %') for arm in ('old', 'early')))
    assert [c.baseline for c in study_table.contrast_results(runs, both)] == ['early']


@pytest.mark.parametrize(
    ('contrasts', 'message'),
    [
        ([('x16', 'x1', 'gain')] * 6, '6 contrasts must be at most 5'),
        ([('x61', 'x1', 'gain')], "unknown arm='x61'; nearest: 'x1"),
        ([('x16', 'x', 'gain')], "unknown baseline='x'; nearest: 'x"),
        ([('x16', 'x1', 'gian')], "unknown column='gian'; nearest: 'gain'"),
    ],
)
def test_a_bad_contrast_is_an_error_before_anything_runs(tmp_path, contrasts, message):
    config = critics.get_config('smoke')
    config.comparison.contrasts = tuple(shared.contrast(*names) for names in contrasts)
    with pytest.raises(ValueError, match=message) as error:
        study_runner.run_study(config, tmp_path / 'study', None)
    assert '\n' not in str(error.value) and not (tmp_path / 'study').exists()


@pytest.mark.parametrize('study_config', [critics, findings, reinforcement, tail])
def test_shipped_contrasts_name_arms_and_columns_that_exist(study_config):
    config = study_config.get_config('default')
    comparison = build.build(study_table.Comparison, config.comparison)
    study_contrasts.check_contrasts(
        comparison.contrasts,
        arms=list(study_runner.arms_of(config)),
        columns=[column.name for column in comparison.table],
    )
    assert comparison.contrasts


def test_a_seed_is_of_training_and_of_problems():
    config = critics.get_config('smoke')
    for seed in (0, 7):
        arm = study_runner.arm_config(config, seed, {})
        assert (arm.seed, arm.data.seed) == (seed, seed)
