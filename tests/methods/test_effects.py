"""Studies of the methods: arms that are the files' own, and the table of what they measured."""

import dataclasses
import functools
import importlib
import json

import numpy as np
import pytest

from elenchus.configs import method
from elenchus.configs.studies import controls, method_tables
from elenchus.configs.studies import methods as studies
from elenchus.sampling.metrics import critic_metrics
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.report import method_effects, study_table
from elenchus.train.rl import advantages
from elenchus.train.run import study_runner
from elenchus.train.run.directory import write_json
from elenchus.train.stages import evaluate_figures
from tests.support import method_cases
from tests.support.shipped_configs import ROOT, Naming

TABLES = sorted(method_tables.TABLES)
EFFECTS = [(table, effect) for table in TABLES for effect in method_tables.TABLES[table]]


def flat(settings, prefix=''):
    values = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            values |= flat(value, f'{prefix}{field.name}.')
        else:
            values[prefix + field.name] = value
    return values


@functools.cache
def settings_of(table, variant=''):
    """Settings of every arm of a study."""
    config = studies.get_config(table + variant)
    settings = {}
    for name, changes in study_runner.arms_of(config).items():
        with Naming(f'{table}{variant}, {name}'):
            run_config = study_runner.arm_config(config, 0, changes)
            settings[name] = build.build(RunSettings, run_config)
    return settings


def arms_of(table):
    return {name: flat(settings) for name, settings in settings_of(table).items()}


# The arms


@pytest.mark.slow
@pytest.mark.parametrize('table', TABLES)
def test_every_arm_is_a_run_that_begins_with_the_shared_stages(table):
    for variant in ('', ':smoke'):
        config = studies.get_config(table + variant)
        build.build(study_table.Comparison, config.comparison)
        assert config.results == table and len(config.comparison.contrasts) <= 5
        for name, settings in settings_of(table, variant).items():
            with Naming(f'{table}{variant}, {name}'):
                checks.check_settings(settings)
                assert settings.stages[: len(config.shared)] == config.shared != settings.stages


@pytest.mark.parametrize('table', TABLES)
def test_an_arm_has_every_field_that_its_file_changes_and_names_those_it_leaves_out(table):
    arms = arms_of(table)
    plain = flat(build.build(RunSettings, studies.get_config(table).run))
    for effect in method_tables.TABLES[table]:
        file = importlib.import_module(f'elenchus.configs.methods.{effect.method}')
        sizes = method_tables.SIZES.get(effect.method, {})
        missing = studies.omitted_fields(effect, table=table)
        whole = flat(build.build(RunSettings, file.get_config('default')))
        for field in {**file.CHANGES, **getattr(file, 'LAB', {})}:
            if field.endswith('.preset'):  # it stands for other fields
                continue
            expected = sizes.get(field, whole[field])
            if field in missing:
                expected = plain[field]
                assert field.split('.')[0] in studies.get_config(table).shared
            assert arms[effect.method][field] == expected, (effect.method, field)


@pytest.mark.parametrize(('table', 'effect'), EFFECTS)
def test_a_control_that_is_like_a_method_differs_from_it_as_it_says(table, effect):
    arms = arms_of(table)
    arm, control = arms[effect.method], arms[effect.control]
    like, changes = method_tables.CONTROLS[effect.control]
    different = {field for field in arm if arm[field] != control[field]}
    assert different
    if like == effect.method:
        assert different == set(changes)
    # The trained player's part alone differs: never seeds, data, sizes of the evaluation.
    allowed = ('reinforce.', 'improve.', 'prefer.', 'self_talk.', 'actor.refinements_per_problem')
    allowed += ('actor.fit.', 'actor.replay.', 'critique.labels', 'evaluate.start')
    allowed += ('evaluate.refine', 'evaluate.feedback', 'sampling.tree.values')
    allowed += ('sampling.logits', 'sampling.pause', 'sampling.after_pause')
    if not arm['evaluate.tree_problems']:  # then nothing reads how trees are searched
        allowed += ('sampling.tree.',)
    assert all(field.startswith(allowed) for field in different - {'stages'})


def test_tables_of_one_work_directory_share_stages_and_arms_of_one_name():
    """Their folders are the same: all but those of tables with another model."""
    seen, runs = {}, []
    for table in sorted(set(TABLES) - set(method_tables.RUNS)):
        config = studies.get_config(table)
        assert config.shared == method.CRITIC[: len(config.shared)], table
        runs.append(config.run.to_dict() | {'stages': ()})
        for name, settings in settings_of(table).items():
            assert seen.setdefault(name, settings) == settings, name
    assert all(run == runs[0] for run in runs)


def test_the_names_are_of_files():
    files = {path.stem for path in (ROOT / 'configs/methods').glob('[!_]*.py')}
    measured = {effect.method for _, effect in EFFECTS}
    assert measured | set(method_tables.NOT_MEASURED) <= files
    assert not measured & set(method_tables.NOT_MEASURED)


def test_random_rewards_read_no_label_and_are_half_ones():
    texts = [f'ada {i} + 1 = {i % 10}' for i in range(400)]
    right = method_cases.turns(*[{'correct': True}] * 400, texts=texts)
    wrong = method_cases.turns(*[{'correct': False}] * 400, texts=texts)
    rewards = controls.random_reward(right)
    assert rewards == controls.random_reward(wrong) and set(rewards) == {0.0, 1.0}
    assert abs(np.mean(rewards) - 0.5) < 0.08
    assert controls.random_half(right) == [reward == 1.0 for reward in rewards]
    equal = controls.random_reward(method_cases.turns(*[{}] * 400, texts=['same'] * 400))
    assert abs(np.mean(equal) - 0.5) < 0.08


@pytest.mark.parametrize('rule', [controls.random_of_prompt, controls.random_refinements])
def test_random_pairs_are_of_one_prompt_and_read_no_label(rule):
    written, critique = method_cases.written, method_cases.written('critique', (2,))

    def rows(right):
        attempts = [written('attempt', (n,), correct=right) for n in (10, 11, 12)]
        refinements = [
            method_cases.talk(attempt, critique, written('refinement', (n, k), correct=right))
            for n, attempt in enumerate(attempts[:2], 20)
            for k in range(4)
        ]
        return method_cases.group(*map(method_cases.talk, attempts), *refinements)

    pairs = rule([rows(True)])
    assert method_cases.last_tokens(pairs) == method_cases.last_tokens(rule([rows(False)]))
    assert all(a.turns[:-1] == b.turns[:-1] and a != b for a, b, _ in pairs)
    assert len(pairs) == 4 + (rule is controls.random_of_prompt)
    assert {turns[0] for turns, _ in method_cases.last_tokens(pairs)} >= {20, 21}


def test_what_leaves_the_lab_as_it_is_is_not_measured():
    from elenchus.configs.methods import crossthink, masa

    facts, text = [{'correct': True}, {'correct': False}], 'ada 6 + 7 = 13\n #### 3'
    assert masa.meta(method_cases.turns(*facts, texts=[text] * 2)) == [0.0, 0.0]
    assert crossthink.template(method_cases.PROBLEM) is method_cases.PROBLEM
    assert {'masa', 'crossthink'} <= set(method_tables.NOT_MEASURED)


def test_refine_is_not_measured_because_it_is_grpo_on_the_lab():
    from elenchus.configs.methods import refine_traces

    right = [True, False, False, True, True, False, False, False]
    texts = ['hal : lea 6 + 7 = 3 ; hal 3\n #### 3', '#### 4'] * 4
    rewards = refine_traces.traces(
        method_cases.turns(*[{'correct': value} for value in right], texts=texts)
    )
    of = lambda values: advantages.group_normalised(values, epsilon=1e-4)  # noqa: E731
    np.testing.assert_allclose(of(rewards), of(np.float64(right)), atol=2e-3)
    assert 'refine_traces' in method_tables.NOT_MEASURED


def test_figures_of_the_critic_are_there_whichever_stage_measures_the_loop():
    """`evaluate` gives some shares an interval, and stages that train a critic do not."""
    attempts = [(True, True, None), (True, False, None), (False, False, 2), (False, True, 1)]
    (group,) = method_cases.groups(
        [
            (
                {'correct': right, 'steps_correct': right, 'first_error': error},
                {'verdict': verdict, 'located': None if verdict else 2},
            )
            for right, verdict, error in attempts
        ]
    )
    figures = critic_metrics.critic(group)
    settings = studies.get_config('critic').run.evaluate
    both = (figures, figures | evaluate_figures.agreement(settings, [group]))
    columns = build.build(study_table.Comparison, studies.get_config('critic').comparison).table
    for column in columns:
        if column.path[1] == 'critic':
            values = {
                study_table.column_value(column, {'x': {'critic': summary}}) for summary in both
            }
            assert len(values) == 1 and not np.isnan(values.pop()), column.name


# Their results


def talk(right, corrections=1.0):
    return {
        'training': {'tokens_sampled': 5},
        'self_talk': {
            'accuracy': {'self-talk': {'all': [right, None, None]}},
            'corrections': corrections,
            'tokens_per_answer': {'self-talk': 70.0},
        },
    }


def results_of(folder, right, control, *, commit='abc'):
    """Writes the results of the study `talk`, with these accuracies by seed."""
    comparison = build.build(study_table.Comparison, studies.get_config('talk').comparison)
    runs = {'mistakes learnt': control, 's3c_math': right}
    runs = {
        arm: {str(seed): talk(value) for seed, value in enumerate(values)}
        for arm, values in runs.items()
    }
    study_table.write_comparison(runs, comparison, folder, name='talk')
    for arm, seeds in runs.items():
        for day, seed in enumerate(seeds, 1):
            stage = folder / f'seed{seed}' / arm.replace(' ', '_') / 'stages' / '04-self_talk'
            stage.mkdir(parents=True, exist_ok=True)
            start = {'commit': commit, 'code': 'hash', 'time': f'2026-01-0{day} 10:00:00'}
            write_json(stage / 'provenance.json', {'starts': [start | {'commit': 'old'}, start]})


def test_results_become_rows_with_seeds_interval_command_and_commit(tmp_path):
    results_of(tmp_path, [0.5, 0.6, 0.55], [0.4, 0.4, 0.45])
    path = tmp_path / 'effects.json'
    assert method_effects.write_effects([tmp_path], path) == ['talk']
    (row,) = method_effects.read_effects(path)
    assert row['seeds'] == [0, 1, 2] and row['commits'] == ['abc'] and row['date'] == '2026-01-03'
    assert row['mean'] == pytest.approx(13.333, abs=1e-3)
    # sd 5.7735, t(2) 4.3027: half a width of 14.342
    assert row['interval'] == pytest.approx([-1.009, 27.676], abs=1e-2)
    assert row['omitted'] == ['critique.num_relocated']
    assert row['command'].endswith('configs/studies/methods.py:talk --workdir runs/methods')
    assert str(tmp_path) not in path.read_text()  # it is committed
    text = method_effects.describe([row], 's3c_math')
    assert text == 'talk, %: +13.3 [-1.0, +27.7] against mistakes learnt (3 seeds)'


def test_fewer_seeds_have_no_interval_in_the_table(tmp_path):
    for count, seeds in ((1, 'one seed'), (2, '2 seeds')):
        folder, path = tmp_path / str(count), tmp_path / f'{count}.json'
        results_of(folder, [0.5, 0.6][:count], [0.5, 0.7])
        method_effects.write_effects([folder], path)
        (row,) = method_effects.read_effects(path)
        assert row['seeds'] == list(range(count))
        mean = '+0.0' if count == 1 else '-5.0'
        text = method_effects.describe([row], 's3c_math')
        assert text == f'talk, %: {mean} against mistakes learnt ({seeds})'


def test_an_undefined_figure_is_undefined_and_not_zero(tmp_path):
    results_of(tmp_path, [0.5, float('nan'), 0.6], [0.4, 0.4, 0.4])
    method_effects.write_effects([tmp_path], tmp_path / 'effects.json')
    (row,) = method_effects.read_effects(tmp_path / 'effects.json')
    assert row['mean'] is None and row['interval'] is None and row['differences'][1] is None
    text = method_effects.describe([row], 's3c_math')
    assert text == 'talk, %: undefined against mistakes learnt (3 seeds)'


def test_tables_without_new_results_stay_and_others_are_replaced(tmp_path):
    path, other = tmp_path / 'effects.json', {'table': 'actor', 'method': 'empo'}
    results_of(tmp_path, [0.5], [0.4])
    for _ in range(2):
        kept = [row for row in method_effects.read_effects(path) if row['table'] == 'talk']
        write_json(path, {'confidence': 0.95, 'effects': [*kept, other]})
        assert method_effects.write_effects([tmp_path], path) == ['actor', 'talk']
        rows = method_effects.read_effects(path)
        assert [row['table'] for row in rows] == ['actor', 'talk'] and rows[0] == other


def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path):
    path = tmp_path / 'effects.json'
    with pytest.raises(ValueError, match='--studies=.*no results of') as error:
        method_effects.write_effects([tmp_path], path)
    assert '\n' not in str(error.value)
    results_of(tmp_path, [0.5], [0.4])
    results = json.loads((tmp_path / 'talk.json').read_text())
    results['contrasts'][0]['baseline'] = 's3c_math'
    write_json(tmp_path / 'talk.json', results)
    with pytest.raises(ValueError, match='is .* in the config: run the study again'):
        method_effects.write_effects([tmp_path], path)
    results_of(tmp_path, [0.5], [0.4])
    next(tmp_path.glob('seed0/s3c_math/stages/*/provenance.json')).unlink()
    with pytest.raises(ValueError, match='no provenance.json there'):
        method_effects.write_effects([tmp_path], path)
    assert not path.exists()


def test_a_method_without_results_is_not_measured():
    assert method_effects.describe([], 'empo') == 'not measured'
    assert method_effects.describe([], 'refine_traces').startswith('not measured: ')


def test_the_committed_effects_are_contrasts_of_the_config():
    rows = method_effects.read_effects(method_effects.EFFECTS)
    expected = {(table, *effect) for table, effect in EFFECTS}
    for row in rows:
        assert (row['table'], row['method'], row['control'], row['column']) in expected
        assert len(row['differences']) == len(row['seeds']) and row['commits'] and row['date']
