"""Charts as files: those of the page, each with its numbers, alike in style and bytes."""

import csv
import json
import re
import struct
import xml.etree.ElementTree as ElementTree

import pytest
from etils import epath

from elenchus.data.text import tokenizer
from elenchus.train.report import (
    charts,
    csv_tables,
    drawing,
    episode_charts,
    html_page,
    plot_files,
    plots,
)
from tests.scripts import test_report
from tests.scripts.test_report_security import PAYLOADS, evil_stages
from tests.scripts.test_terminal import ACTS


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run with one of every chart, and one that is there twice."""
    folder = epath.Path(tmp_path_factory.mktemp('run'))
    test_report.make_run(folder, tokenizer.word_tokenizer(test_report.WORDS))
    path = folder / 'stages' / '05-evaluate' / 'summary.json'
    levels = {'all': [0.5, 0.4, 0.6]}
    uptake = {
        'warning': '', 'accuracy': {'own': levels, 'blank': levels}, 'questions': 9, 'due': 4,
        'num_samples': 3, 'difference': {}, 'counterfactuals': 0, 'uptake': {'all': None},
        'steps_correct': None, 'right_after': {'own': {'wrong': None, 'right': None}},
        'tokens_per_answer': {'own': 1}, 'processed_per_answer': {'own': 1},
    }  # fmt: skip
    summary = json.loads(path.read_text()) | {'uptake': uptake}
    path.write_text(json.dumps(summary))
    (folder / 'summary.json').unlink()
    for name in ('stages/00-base/round-1', 'stages/00-base/Round-1'):
        (folder / name).mkdir()
        (folder / name / 'metrics.jsonl').write_text(
            '{"step": 1, "loss/total": 0.5, "grads/norm": 200.0}\n'
        )
    return folder


@pytest.fixture(scope='module')
def out(workdir, tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp('plots'))
    plot_files.write_plots(workdir, folder)
    return folder


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_every_chart_of_the_page_is_a_file_in_three_forms(workdir, out):
    names = sorted({path.stem for path in out.iterdir()})
    assert {path.name for path in out.iterdir()} == {
        f'{name}{ending}' for name in names for ending in plot_files.ENDINGS
    }
    assert names == [
        'accuracy-against-tokens', 'accuracy-by-level', 'calibration-05-evaluate',
        'cost-05-evaluate', 'episodes-change', 'episodes-verdicts', 'frontier-05-evaluate',
        'health-00-base-Round-1', 'health-00-base-round-1-2', 'training-00-base',
        'training-00-base-Round-1', 'training-00-base-round-1-2', 'uptake-05-evaluate',
    ]  # fmt: skip


@pytest.mark.slow
def test_the_page_draws_the_same_charts(workdir):
    stages = html_page.load_stages(workdir)
    known = list(charts.charts_of(workdir))
    for name in ('01-none', '05-evaluate'):
        stages[name] = stages.get(name, {})
    stages['05-evaluate'].pop('uptake')  # whose table has more figures than this run
    curves = html_page._training_curves(workdir, stages)
    evaluations = {name: s for name, s in stages.items() if s.get('accuracy')}
    page = ''.join([
        curves, html_page._accuracy_by_level(evaluations), html_page._critic_section(evaluations),
        html_page._accuracy_by_tokens(evaluations),
        html_page.html_frontier.frontier_section(evaluations),
    ])  # fmt: skip
    drawn = [chart for chart in known if not chart.name.startswith('uptake')]
    assert page.count('<figure>') == len(drawn)
    for chart in drawn:
        assert html_page.html.escape(chart.caption) in page


@pytest.mark.slow
def test_the_numbers_beside_a_chart_are_those_in_it(out):
    rows = rows_of(out / 'accuracy-by-level.csv')
    assert rows[0] == {
        'evaluation': '05-evaluate', 'arm': 'attempt', 'level': '1', 'right': '0.8', 'low': '0.75',
        'high': '0.89',
    }  # fmt: skip
    assert len(rows) == 2 * 3 * 6
    rows = rows_of(out / 'training-00-base.csv')
    assert [r['metric'] for r in rows] == ['loss/actor'] * 900 + ['reward/mean'] * 900
    assert float(rows[899]['value']) == 3 / 900  # every row, not only what is drawn
    best = [r for r in rows_of(out / 'frontier-05-evaluate.csv') if r['arm'].startswith('best: ')]
    assert {r['arm'] for r in best} == {'best: one choice', 'best: by level', 'best: level 1'}
    assert rows_of(out / 'uptake-05-evaluate.csv')[0] == {
        'condition': 'own', 'right': '0.5', 'low': '0.4', 'high': '0.6'
    }  # fmt: skip
    steps = [r for r in rows_of(out / 'calibration-05-evaluate.csv') if r['kind'] == 'by step']
    assert [(r['step'], r['ece'], r['score']) for r in steps] == [
        ('1', '0.123', ''),
        ('2', '0.123', ''),
    ]


@pytest.mark.slow
def test_the_charts_of_all_episodes_count_them(out):
    rows = rows_of(out / 'episodes-change.csv')
    assert {r['kind']: r['episodes'] for r in rows} == {
        'c2c': '7', 'c2i': '13', 'i2c': '7', 'i2i': '13'
    }  # fmt: skip
    rows = rows_of(out / 'episodes-verdicts.csv')
    counts = {r['kind']: r['episodes'] for r in rows if r['episodes'] != '0'}
    assert counts == {'right, called correct': '20', 'wrong, called correct': '20'}
    (row,) = rows_of(out / 'health-00-base-Round-1.csv')
    assert row == {
        'metric': 'grads/norm', 'step': '1', 'value': '200.0', 'low': '0.0', 'high': '100.0'
    }  # fmt: skip


@pytest.mark.parametrize('values', [[0.0, 1.0, 1.0], [0.5, 0.5], [-3.0]])
def test_rewards_have_one_scale(values):
    chart = episode_charts.rewards({'07-reinforce actor 1': values, 'later': [1.0]})
    first, second = chart.draw().axes
    assert first.get_xlim() == second.get_xlim() and len(chart.rows) == len(values) + 1
    assert sum(bar.get_height() for bar in first.patches) == len(values)


@pytest.mark.slow
def test_all_are_black_on_white_at_300_dots_an_inch(out):
    for path in out.glob('*.svg'):
        text = path.read_text()
        assert ElementTree.fromstring(text).tag.endswith('svg')
        assert drawing.INK not in text
        assert '<text' not in text  # outlines: alike on every machine
    for path in out.glob('*.png'):
        content = path.read_bytes()
        assert content.startswith(b'\x89PNG')
        place = content.index(b'pHYs') + 4
        across, down, unit = struct.unpack('>IIB', content[place : place + 9])
        assert (across, down, unit) == (11811, 11811, 1)  # a metre


def test_the_same_data_give_the_same_bytes(tmp_path):
    plot = lambda: plots.condition_bars({'own': {'all': [0.5, 0.4, 0.6]}})  # noqa: E731
    for name in ('a', 'b'):
        drawing.save_for_paper(plot, tmp_path / name)
    for ending in ('.svg', '.png'):
        assert (tmp_path / f'a{ending}').read_bytes() == (tmp_path / f'b{ending}').read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_texts_of_strangers_are_data_in_every_file(tmp_path, count):
    stages = evil_stages(PAYLOADS[:count])
    folder = epath.Path(tmp_path) / 'run'
    for name, summary in stages.items():
        path = folder / 'stages' / re.sub(r'[/\0]', '|', name)[:99] / 'summary.json'
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(summary))
    plot_files.write_plots(folder, epath.Path(tmp_path) / 'out')
    for path in (tmp_path / 'out').iterdir():
        assert (
            path.name.isascii() and len(path.name) < 100 and not set(path.name) & set('<>|:"*?\\')
        )
        if path.suffix == '.svg':
            elements = ElementTree.fromstring(path.read_text()).iter()
            assert not [e for e in elements if e.tag.rpartition('}')[2] in ('script', 'image', 'a')]
        if path.suffix == '.csv':
            assert not ACTS.search(path.read_text())


@pytest.mark.parametrize(
    ('value', 'cell'),
    [
        ('=1+1', "'=1+1"), ('+a', "'+a"), ('@a', "'@a"), ('-a', "'-a"), ('a=b', 'a=b'),
        (-1.5, -1.5), (None, ''), (float('nan'), ''), (True, True),
        ('a\x1b[2J', 'a\\x1b[2J'), ('汉字', '汉字'),
    ],
)  # fmt: skip
def test_a_cell_is_no_formula(value, cell):
    assert csv_tables.cell(value) == cell


@pytest.mark.parametrize(
    ('name', 'plain'),
    [
        ('accuracy by level', 'accuracy-by-level'), ('../../etc', 'etc'), ('汉字', 'chart'),
        ('\x1b[2J', '2J'), ('a' * 300, 'a' * 80), ('...', 'chart'),
        ('05-a/round-1', '05-a-round-1'),
    ],
)  # fmt: skip
def test_names_of_files_are_plain(name, plain):
    assert plot_files.plain_name(name) == plain


def test_charts_of_an_earlier_call_go_and_other_files_stay(tmp_path, monkeypatch):
    out = epath.Path(tmp_path)
    for name in ('old.svg', 'old.png', 'old.csv', 'mine.csv', 'notes.txt'):
        (out / name).write_text('x')
    plot_files._delete_others(out, ['new'])
    assert sorted(path.name for path in out.iterdir()) == ['mine.csv', 'notes.txt']


def test_charts_of_others_stay_in_a_folder_that_the_user_names(tmp_path, monkeypatch):
    study, paper = epath.Path(tmp_path / 'study'), epath.Path(tmp_path / 'paper')
    write_study(study)
    monkeypatch.setattr(drawing, 'save_for_paper', lambda draw, path: None)
    for out in (paper, study / 'plots'):
        out.mkdir()
        for ending in plot_files.ENDINGS:
            (out / f'mine{ending}').write_text('x')
        plot_files.write_plots(study, out)
    assert len(list(paper.glob('mine.*'))) == 3
    assert not list((study / 'plots').glob('mine.*'))  # the folder of this command alone


def write_study(folder):
    """A folder with the results of a study, and JSON files that are none."""
    panels = {'right by tokens': {'a<b>': [[[1, 2.0], [2, 3.0]], [[1, 4.0]]], 'c': [[[3, 5.0]]]}}
    study = {'panels': panels, 'labels': {'right by tokens': ['tokens', 'right, %']}}
    folder.mkdir(exist_ok=True)
    (folder / 'study.json').write_text(json.dumps(study))
    (folder / 'config.json').write_text('{}')
    (folder / 'answers.json').write_text('[1, 2]')
    (folder / 'notes.json').write_text('not JSON')


def test_a_study_has_its_panels(tmp_path):
    write_study(tmp_path)
    assert plot_files.write_plots(epath.Path(tmp_path), epath.Path(tmp_path / 'plots')) == [
        'study-study'
    ]
    rows = rows_of(tmp_path / 'plots' / 'study-study.csv')
    assert [(r['arm'], r['run'], r['x'], r['y']) for r in rows] == [
        ('a<b>', '0', '1', '2.0'), ('a<b>', '0', '2', '3.0'), ('a<b>', '1', '1', '4.0'),
        ('c', '0', '3', '5.0'),
    ]  # fmt: skip


def test_the_legend_of_a_study_has_the_arms_of_all_panels():
    point = [(1, 2.0)]
    panels = {'rounds': {'a': [[]], 'b': [point]}, 'right': {'a': [point], 'b': [[]]}}
    figure = plots.study_panels(panels, {'rounds': ('x', 'y'), 'right': ('x', 'y')})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['a', 'b']


def test_a_folder_without_charts_is_an_error_of_one_line(tmp_path):
    with pytest.raises(ValueError, match='has no chart yet.*nearest: a folder of scripts.run'):
        plot_files.write_plots(epath.Path(tmp_path), epath.Path(tmp_path / 'out'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='is a file; use a folder'):
        plot_files.write_plots(epath.Path(tmp_path), epath.Path(tmp_path / 'file'))
    with pytest.raises(ValueError, match='folder not found'):
        plot_files.write_plots(epath.Path(tmp_path / 'none'), epath.Path(tmp_path / 'out'))
