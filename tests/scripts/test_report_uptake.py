"""The report's section about uptake, and the rows of its tables: steps and processed tokens."""

import json
import re

import pytest

from elenchus.sampling.test_time import uptake
from elenchus.train.report import html_page, html_uptake

LEVELS = {'1': [0.5, 0.4, 0.6], 'all': [0.5, 0.4, 0.6]}


def write_page(folder, **fields):
    """The report of a run with one evaluation, whose summary has these fields."""
    arms = ('attempt', 'refined', 'majority@4')
    summary = {
        'accuracy': dict.fromkeys(arms, LEVELS),
        'tokens_per_answer': dict(zip(arms, (30, 120.5, 125), strict=True)),
    }
    stages = {'05-evaluate': summary | fields}
    (folder / 'summary.json').write_text(json.dumps({'stages': stages}))
    return html_page.write_report(folder).read_text()


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp('run'), uptake=make_uptake())


def make_uptake(*, without=()):
    """The summary of the uptake conditions and their differences, without some of both."""
    levels = {name: [0.512, 0.4, 0.6] for name in ('all', '1', '2')}
    names = [name for name in ('attempt', *uptake.CONDITIONS) if name not in without]
    contrasts = [name for name in html_uptake.CONTRASTS if name not in without]
    return {
        'questions': 20,
        'due': 44,
        'num_samples': 3,
        'counterfactuals': 40,
        'accuracy': dict.fromkeys(names, levels),
        'steps_correct': None,
        'difference': dict.fromkeys(contrasts, dict.fromkeys(levels, [0.013, -0.01, 0.02])),
        'uptake': {'all': [0.025, 0.0, 0.05], '1': [0.05, 0.0, 0.1], '2': None},
        'right_after': dict.fromkeys(names, {'wrong': [0.321, 0.2, 0.4], 'right': None}),
        'tokens_per_answer': dict.fromkeys(names, 144.5),
        'processed_per_answer': dict.fromkeys(names, 331.0),
        'warning': 'own <&> shuffled is not above zero',
    }


def test_the_report_says_whether_the_critique_is_read(page):
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, flags=re.DOTALL))
    section = sections['is-the-critique-read']
    assert 'Warning: own &lt;&amp;&gt; shuffled is not above zero.' in section
    row = '<td>shuffled</td><td>another question&#x27;s critique, of the same level</td>'
    right = '<td>51.2 <small>[40.0, 60.0]</small></td>'
    assert f'{row}{right}<td>–</td><td>32.1 <small>[20.0, 40.0]</small></td><td>–</td>' in section
    assert '<td>–</td><td>144.5</td><td>331</td>' in section
    assert '+1.3 <small>[-1.0, +2.0]' in section
    rate = '<td>5.0 <small>[0.0, 10.0]</small></td><td>–</td><td>2.5 <small>[0.0, 5.0]</small>'
    assert f'uptake of 40 false values</td>{rate}' in section


def test_a_summary_of_fewer_conditions_has_a_report(tmp_path):
    page = write_page(tmp_path, uptake=make_uptake(without=('blanked', 'explanation', 'rival')))
    assert '<td>shuffled</td>' in page and 'own − always' in page
    assert '<td>blanked</td>' not in page and 'own − blanked' not in page


def test_a_warning_needs_no_figures(tmp_path):
    short = {'questions': 2, 'due': 0, 'warning': 'no comparison'}
    page = write_page(tmp_path, uptake=short)
    assert 'Warning: no comparison.' in page and 'false values' not in page


def test_steps_and_processed_tokens_have_their_tables(tmp_path):
    rows = {
        'steps_correct': {'attempt': {'1': [0.123, 0.1, 0.2], 'all': [0.456, 0.4, 0.5]}},
        'processed_per_answer': {'attempt': 76.25, 'refined': 331.0},
    }
    page = write_page(tmp_path, **rows)
    assert '<tr><td>all</td><td>45.6 <small>[40.0, 50.0]</small></td></tr>' in page
    assert '<td>processed</td><td>76.2</td><td>331</td><td>not run</td>' in page
