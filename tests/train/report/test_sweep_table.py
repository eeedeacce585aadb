"""The ranking of a sweep: figures by their paths, intervals over seeds, texts of strangers."""

import json

import pytest
from etils import epath

from elenchus.train.report import sweep_table
from tests.scripts.test_terminal import ACTS, PAYLOADS


def summaries(value):
    levels = {'all': [value, value - 0.1, value + 0.1], '1': [value, None, None]}
    return {'training': {}, 'evaluate': {'accuracy': {'refined': levels}, 'final_loss': 2 - value}}


@pytest.mark.parametrize(
    ('path', 'figure'),
    [
        ('evaluate.accuracy.refined.all', 0.5),
        ('evaluate.accuracy.refined.all.1', 0.4),
        ('last.final_loss', 1.5),
        ('evaluate.accuracy.refined.1', 0.5),
    ],
)
def test_a_figure_has_a_path(path, figure):
    assert sweep_table.figure_of(summaries(0.5), sweep_table.path_of(path)) == pytest.approx(figure)


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('', 'must be the path of a figure'),
        ('evaluate', 'must be the path of a figure'),
        ('evaluate.accurracy.refined', "no figure at .*; nearest: 'accuracy'"),
        ('evaluate.accuracy', 'is no number; nearest: evaluate.accuracy.refined'),
        ('evaluate.accuracy.refined.all.9', 'no figure at'),
        ('evaluat.accuracy', "nearest: 'evaluate'"),
    ],
)
def test_a_path_without_a_number_names_the_nearest(path, message):
    with pytest.raises(ValueError, match=message):
        sweep_table.figure_of(summaries(0.5), sweep_table.path_of(path))


def test_points_are_ranked_with_intervals_and_differences_by_seed(tmp_path):
    points = [('a', {'x': 1}), ('b', {'x': 2}), ('c', {'x': 3}), ('d', {'x': 4})]
    values = {
        'a': {'0': 0.1, '1': 0.2, '2': 0.3},
        'b': {'0': 0.4, '1': 0.5, '2': 0.6},
        'c': {'0': 0.45},
    }
    failures = {'d': {'0': 'no luck'}}
    ranked = sweep_table.rank(points, values, failures)
    assert [row.name for row in ranked] == ['b', 'c', 'a', 'd']
    best, single, worst, failed = ranked
    assert best.interval.mean == pytest.approx(0.5)
    assert best.interval.low == pytest.approx(0.5 - 4.302653 * 0.1 / 3**0.5)  # Student, 2 degrees
    assert single.interval.low is None and single.less_best.mean == pytest.approx(0.05)
    assert worst.less_best.low == pytest.approx(-0.3) == worst.less_best.high
    assert failed.interval is None and failed.failures == {'0': 'no luck'}
    least = sweep_table.rank(points, values, failures, is_ascending=True)
    assert [row.name for row in least] == ['a', 'c', 'b', 'd']
    lines = sweep_table.write_table(ranked, epath.Path(tmp_path), path=('e', 'x'), seeds=(0, 1, 2))
    assert lines[2].startswith('| 1 | 2 | 0.5 [0.2516, 0.7484] | - | 3 |')
    assert lines[-1] == '| - | 4 | - | - | 0, 1 failed |'
    stored = json.loads((tmp_path / 'sweep.json').read_text())
    assert [row['rank'] for row in stored['points']] == [1, 2, 3, None]
    head, first, *_, last = (tmp_path / 'sweep.csv').read_text().splitlines()
    assert head.startswith('rank,x,mean,low,high') and first.startswith('1,2,0.5,0.25')
    assert 'seed 0: no luck' in last


def test_a_figure_that_is_not_defined_comes_last():
    values = {'a': {'0': float('nan')}, 'b': {'0': 0.1}}
    ranked = sweep_table.rank([('a', {}), ('b', {})], values, {})
    assert [row.name for row in ranked] == ['b', 'a'] and ranked[1].interval is None


@pytest.mark.parametrize('payload', PAYLOADS)
def test_names_of_strangers_act_neither_in_the_table_nor_in_a_spreadsheet(tmp_path, payload):
    text = payload.encode('utf-8', 'ignore').decode()
    points = [('a', {'x': text}), ('b', {'x': '=1+1', text: 3})]
    ranked = sweep_table.rank(points, {'a': {'0': 0.1}}, {'b': {'0': text}})
    lines = sweep_table.write_table(ranked, epath.Path(tmp_path), path=('e', text), seeds=(0,))
    for content in ['\n'.join(lines), *(p.read_text() for p in tmp_path.iterdir())]:
        assert not ACTS.search(content)
    assert "'=1+1" in (tmp_path / 'sweep.csv').read_text()
