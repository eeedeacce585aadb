"""The figures `frontier` and `budget` of the stage `evaluate`, sampled by scripted players."""

import pytest

from elenchus.data import records
from elenchus.train.config import build, run_settings
from elenchus.train.stages import evaluate_figures
from tests.train.stages.test_evaluate import NUM_PROBLEMS, Evaluation, config_of, make_episode


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """(the stage's folder, summary) of a whole evaluation; only read by the tests."""
    folder = tmp_path_factory.mktemp('run') / 'stage'
    folder.mkdir()
    return folder, Evaluation(folder.parent).evaluate(folder, drawn=True)


@pytest.mark.slow
def test_the_frontier_is_always_in_the_summary_and_a_choice_only_for_a_budget(evaluated):
    folder, summary = evaluated
    assert 'budget' not in summary
    frontier = summary['frontier']
    curves = {arm: points for arm, points in summary['curves'].items() if 'oracle' not in arm}
    assert frontier['candidates'] == sum(map(len, curves.values()))
    assert frontier['questions'] == NUM_PROBLEMS
    budgets = [row['budget'] for row in frontier['rows']]
    assert budgets[0] == pytest.approx(curves['majority'][0]['processed']['all'])
    assert budgets == [pytest.approx(budgets[0] * 2**i) for i in range(len(budgets))]
    names = {f'{arm}@{point["size"]}' for arm, points in curves.items() for point in points}
    for row in frontier['rows']:
        assert {row['all']['choice'], *row['all']['halves']} <= names
        assert set(row['by_level']['choice']) == set(row['levels']) == {'1', '2', '3', '4', '5'}
        assert row['by_level']['processed'] <= row['budget'] * 1.2  # halves differ in cost
        for fit in filter(None, row['levels'].values()):
            assert fit['tokens'] < fit['processed']
    assert frontier['rows'][0]['all']['choice'] == 'majority@1'
    assert frontier['rows'][0]['levels']['5'] is None  # longer questions than the average
    assert (folder / 'frontier.png').read_bytes().startswith(b'\x89PNG')


def test_processed_tokens_are_more_than_generated_ones(evaluated):
    for points in evaluated[1]['curves'].values():
        for point in points:
            assert all(point['processed'][n] > point['tokens'][n] for n in point['tokens'])


@pytest.mark.slow
def test_a_budget_is_compared_with_the_largest_majority_that_it_pays_for(evaluated, tmp_path):
    _, summary = evaluated
    majority = summary['curves']['majority']
    budget = int(2.5 * majority[0]['processed']['all'])
    chosen = Evaluation(tmp_path, evaluate__budget=budget).evaluate(tmp_path)
    assert chosen['frontier'] == summary['frontier']
    figures = chosen['budget']
    assert figures['budget'] == budget
    plain = figures['all']['majority']
    assert plain['size'] == 2
    assert plain['accuracy'] == majority[1]['accuracy']['all']
    assert plain['processed'] == pytest.approx(majority[1]['processed']['all'])
    for fit in (figures['all'], figures['by_level']):
        difference = fit['accuracy'][0] - fit['majority']['accuracy'][0]
        assert fit['majority']['difference'][0] == pytest.approx(difference)
    for level, fit in figures['levels'].items():
        costs = [point['processed'][level] for point in majority]
        sizes = [k for k, cost in enumerate(costs, 1) if cost <= budget]
        assert (fit and fit['majority']['size']) == (sizes[-1] if sizes else None)


def test_a_budget_below_every_cost_is_a_warning_with_the_cheapest(evaluated, tmp_path, capsys):
    summary = Evaluation(tmp_path, evaluate__budget=3).evaluate(tmp_path)
    assert summary['budget'] is None
    assert summary['frontier'] == evaluated[1]['frontier']
    least = evaluated[1]['frontier']['rows'][0]['budget']
    expected = (
        f'warning: evaluate.budget=3 pays for no way to answer; the cheapest processes {least:.1f}'
    )
    assert expected in capsys.readouterr().out


def test_episodes_without_processed_tokens_have_neither_frontier_nor_choice():
    episodes = [make_episode('1'), make_episode('2')]
    problems = [records.Problem(str(i), '?', '1', '#### 1', 1, 'jsonl') for i in range(2)]
    groups = [records.RolloutGroup(p, (e, e)) for p, e in zip(problems, episodes, strict=True)]
    config = config_of(
        evaluate__num_attempts=2, evaluate__num_rounds=1, evaluate__oracle=False, evaluate__budget=9
    )
    settings = build.build(run_settings.RunSettings, config).evaluate
    right = evaluate_figures.right_answers(groups, rounds={}, oracle={})
    episodes = evaluate_figures.EvaluationEpisodes(groups, {}, {}, [], [], right)
    summary = evaluate_figures.summarise(settings, episodes)
    assert 'frontier' not in summary and summary['budget'] is None
    assert summary['curves']['majority'][0]['processed'] == {'all': None, '1': None}
