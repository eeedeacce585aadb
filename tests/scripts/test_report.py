"""The report shows the results of the stages and nothing else."""

import html.parser
import json
import re

import numpy as np
import pytest
from etils import epath

from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.text import tokenizer
from elenchus.train.config import build
from elenchus.train.report import html_episodes, html_page
from tests.support import browser_runs

QUESTION = 'ben 3 ; eve : ben + 4 ; eve ?'
STEPS = ('eve : ben + 4 = 7\n', ' #### 7')
CRITIQUE = 'eve : ben + 4 ; 3 + 4 = 7 ; correct\n answer : eve 7 ; correct'
WORDS = sorted(set(f'{QUESTION} {"".join(STEPS)} {CRITIQUE} wrong'.split()))


@pytest.fixture(scope='module')
def words():
    return tokenizer.word_tokenizer(WORDS)


def make_episode(words, *, level=1, correct=True, refined=True, scores=(0.97, 0.2)):
    bodies = [words.encode(step) for step in STEPS]
    ends = tuple(int(end) for end in np.cumsum([len(body) for body in bodies]))
    attempt = (*sum(bodies, []), words.eos_id)
    turns = (
        records.Turn('question', (4,), tuple(words.encode(QUESTION))),
        records.Turn(
            'attempt',
            (6,),
            attempt,
            steps=tuple(map(records.Step, ends, scores)),
            facts=records.TurnFacts(correct=correct),
        ),
        records.Turn(
            'critique',
            (7,),
            (*words.encode(CRITIQUE), words.eos_id),
            facts=records.TurnFacts(verdict=True),
        ),
        records.Turn(
            'refinement',
            (8,),
            attempt,
            steps=tuple(map(records.Step, ends)),
            facts=records.TurnFacts(correct=refined),
        ),
    )
    return records.Episode(f'lab/test/{level}<&>', level, turns)


def make_summary(shift):
    levels = {str(n): [0.9 - 0.1 * n + shift, 0.85 - 0.1 * n, 0.99 - 0.1 * n] for n in range(1, 6)}
    levels['all'] = [0.6 + shift, 0.55 + shift, 0.65 + shift]
    arms = ('attempt', 'refined', 'majority@4')
    return {
        'seconds': 12.5,
        'tokens_sampled': 123456,
        'tokens_trained': 0,
        'accuracy': dict.fromkeys(arms, levels),
        'difference': {'refined-attempt': {name: [0.05, 0.01, 0.09] for name in levels}},
        'critic': {
            'discriminability': [0.8, 0.75, 0.85],
            'first_error_micro_f1': 0.7,
            'parse_rate': 0.99,
            'by_steps': {'discriminability': 0.987, 'found': 0.976, 'passed': None},
        },
        'transitions': {'c2c': 0.5, 'c2i': 0.02, 'i2c': 0.18, 'i2i': 0.3},
        'tokens_per_answer': dict(zip(arms, (30, 120.5, 125), strict=True)),
    }


def make_comparison():
    """Further fields of the summary of a stage with several strategies."""
    levels = {name: [0.5, 0.4, 0.6] for name in ('all', '1', '2')}
    tokens = dict.fromkeys(levels, 100.0)
    point = {'size': 1, 'questions': 9, 'accuracy': levels, 'tokens': tokens, 'calls': {}}
    point['processed'] = dict.fromkeys(levels, 120.0)
    curve = [{'low': 0.0, 'high': 1.0, 'count': 9, 'score': 0.7, 'right': 0.6}]
    reliability = {'count': 9, 'score': 0.7, 'right': 0.6, 'ece': 0.123, 'brier': 0.2}
    critic = {'discriminability': 0.81, 'passed': None, 'found': 0.77, 'first_error_micro_f1': 0.4}
    corrected = {'before': 0.6, 'after': 0.65, 'CL': 0.9, 'CS': None, 'RSS': 0.604}
    bins = {'low': 0.0, 'high': 0.5, 'questions': 9, 'accuracy': 0.66, **critic}
    calibration = {
        name: reliability | {'curve': curve} for name in ('final', 'steps', 'judged')
    } | {'positions': {'1': reliability, '2': reliability}}
    kinds = {'operand<&>': {'attempts': 4, 'found': 0.25, 'located': 0.125}}
    by_level = lambda value: dict.fromkeys(levels, value)  # noqa: E731
    return {
        'curves': {
            'majority': [point, point | {'size': 2}],
            'best of n (min)': [point],
            'oracle majority (upper bound)': [point],
        },
        **make_frontier(),
        'equal_tokens': {
            'best of n (min)@1': {
                'against': 'majority@2',
                'tokens': [101.5, 98.5],
                'questions': 9,
                'difference': by_level([0.031, -0.01, 0.07]),
            }
        },
        'measures': {
            'critic': by_level(critic),
            'confidence_and_critique': by_level(corrected),
            'detection': by_level(kinds),
            'uncertainty': by_level([bins]),
            'calibration': by_level(calibration),
        },
    }


def make_frontier():
    """The fields `frontier` and `budget` of a summary: two levels, of which one does not fit."""
    fit = {
        'choice': 'majority@1',
        'halves': ['majority@1', 'majority@2'],
        'accuracy': [0.61, 0.5, 0.7],
        'processed': 101.5,
        'tokens': 40.0,
    }
    by_level = fit | {
        'choice': {'1': 'majority@1', '2': 'best of n (min)@1'},
        'accuracy': [0.62, 0.51, 0.71],
        'difference': [0.01, -0.01, 0.03],
    }
    row = {'budget': 100.2, 'all': fit, 'by_level': by_level, 'levels': {'1': fit, '2': None}}
    plain = {'size': 3, 'processed': 95.0, 'accuracy': fit['accuracy']}
    compared = {'majority': plain | {'difference': [0.02, -0.04, 0.08]}}
    budget = row | {'budget': 150, 'all': fit | compared, 'by_level': by_level | compared}
    budget['levels'] = {'1': fit | compared, '2': None}
    return {'frontier': {'questions': 9, 'candidates': 3, 'rows': [row, row]}, 'budget': budget}


def make_run(workdir, words):
    """Writes a run of three stages, with curves, episodes and a tokenizer."""
    stages = {
        '00-base': {'seconds': 90.0, 'tokens_sampled': 0, 'tokens_trained': 1000000},
        '05-evaluate': make_summary(0.0) | make_comparison(),
        '09-evaluate-critique': make_summary(0.04),
    }
    for name, summary in stages.items():
        folder = workdir / 'stages' / name
        folder.mkdir(parents=True)
        (folder / 'summary.json').write_text(json.dumps(summary))
    (workdir / 'summary.json').write_text(json.dumps({'stages': stages}))
    rows = [{'step': n, 'loss/actor': 3 / (n + 1), 'reward/mean': n / 900} for n in range(900)]
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    (workdir / 'stages/00-base/metrics.jsonl').write_text(lines)
    episodes = [
        make_episode(words, level=1 + n % 5, correct=n % 2 == 0, refined=n % 3 == 0)
        for n in range(40)
    ]
    folder = workdir / 'stages/05-evaluate/episodes'
    episode_files.write_episodes(folder / 'part.array_record', episodes)
    words.save(workdir / 'tokenizer.model')
    (workdir / 'config.json').write_text(build.to_json({'seed': 0}))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, words):
    """Folder of a run with its report; the tests only read it."""
    folder = tmp_path_factory.mktemp('run')
    make_run(folder, words)
    html_page.write_report(folder)
    return folder


@pytest.fixture(scope='module')
def page(workdir):
    return (workdir / 'report.html').read_text()


class Reader(html.parser.HTMLParser):
    """Collects the addresses that a browser would fetch and the tags left open."""

    VOID = {'meta', 'br', 'link', 'img'}

    def __init__(self, page):
        super().__init__()
        self.addresses, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ('src', 'href', 'xlink:href')]
        self.open += [tag] if tag not in self.VOID else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(page):
    reader = Reader(page)
    assert reader.open == []
    assert all(address.startswith('#') for address in reader.addresses)


def test_every_figure_of_the_summaries_is_on_the_page(workdir, page):
    for text in ('60.0 <small>[55.0, 65.0]', '+5.0 <small>[+1.0, +9.0]', '123,456', 'majority@4'):
        assert text in page
    assert page.count('<svg') == 6
    assert (workdir / 'accuracy.png').read_bytes().startswith(b'\x89PNG')


def test_strategies_are_compared_at_equal_tokens_and_the_critic_is_measured(page):
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, flags=re.DOTALL))
    tokens, critic = sections['accuracy-against-tokens'], sections['the-critic']
    row = '<td>best of n (min)@1</td><td>majority@2</td><td>101.5</td><td>98.5</td><td>9</td>'
    assert f'{row}<td>+3.1 <small>[-1.0, +7.0]' in tokens
    assert 'oracle majority (upper bound)' in tokens
    assert '<td>60.0</td><td>65.0</td><td>90.0</td><td>–</td><td>60.4</td>' in critic
    assert '<td>operand&lt;&amp;&gt;</td><td>4</td><td>25.0</td><td>12.5</td>' in critic
    assert '<td>0.00 to 0.50</td><td>9</td><td>66.0</td><td>81.0</td><td>–</td>' in critic
    assert 'by all steps</td><td>98.7</td><td>98.7</td>' in critic
    assert 'final 12.3 %, steps 12.3 %, judged 12.3 %' in critic


def test_the_best_choices_are_listed_by_budget_and_level(page):
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, flags=re.DOTALL))
    section = sections['compute-optimal-test-time']
    assert section.count('<svg') == 1
    right = '61.0 <small>[50.0, 70.0]</small>'
    row = (
        f'<td>100</td><td>majority@1</td><td>{right}</td><td>62.0 <small>[51.0, 71.0]</small></td>'
    )
    assert f'{row}<td>+1.0 <small>[-1.0, +3.0]</small></td><td>majority@1</td><td>–</td>' in section
    assert '<td>majority@1</td><td>101.5</td><td>61.0 <small>' in section
    assert '<td>1: majority@1; 2: best of n (min)@1</td>' in section
    against = f'<td>majority@3</td><td>95</td><td>{right}</td><td>+2.0 <small>[-4.0, +8.0]</small>'
    assert against in section
    assert 'At 150 processed tokens' in section


def test_a_run_without_frontier_has_no_section_of_it(tmp_path):
    (tmp_path / 'summary.json').write_text(
        json.dumps({'stages': {'05-evaluate': make_summary(0.0)}})
    )
    page = html_page.write_report(tmp_path).read_text()
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, flags=re.DOTALL))
    assert 'not run' in sections['compute-optimal-test-time']


def test_steps_have_their_verdict_in_words_as_well_as_in_colour(page):
    assert page.count('<details') == 10
    assert '<div class="right"><span>eve : ben + 4 = 7</span><span>✓ right 0.97' in page
    assert '<div class="wrong"><span>#### 7</span><span>✗ wrong 0.20' in page


def test_text_of_problems_is_escaped(page):
    assert 'lab/test/1&lt;&amp;&gt;' in page and '<&>' not in page


def test_the_same_files_give_the_same_page(workdir, page):
    assert html_page.write_report(workdir).read_text() == page


def test_the_missing_stages_of_an_unfinished_run_are_reported_as_not_run(tmp_path):
    (tmp_path / 'stages/00-base').mkdir(parents=True)
    page = html_page.write_report(tmp_path).read_text()
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, flags=re.DOTALL))
    assert len(sections) == 9
    assert all('not run' in body for body in sections.values())
    assert not (tmp_path / 'accuracy.png').exists()


def test_an_arm_that_was_not_run_is_reported_as_not_run(tmp_path):
    stages = {'05-evaluate': make_summary(0.0), '09-evaluate': make_summary(0.0)}
    del stages['09-evaluate']['accuracy']['majority@4']
    (tmp_path / 'summary.json').write_text(json.dumps({'stages': stages}))
    page = html_page.write_report(tmp_path).read_text()
    rows = re.findall(r'<tr><td>09-evaluate</td>(.*?)</tr>', page)
    assert 'not run' in rows[0]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match='absent: folder not found'):
        html_page.write_report(tmp_path / 'absent')
    assert not (tmp_path / 'absent').exists()


def test_the_chosen_episodes_are_of_every_transition_and_level(words):
    episodes = [
        make_episode(words, level=level, correct=correct, refined=refined)
        for level in range(1, 6)
        for correct in (True, False)
        for refined in (True, False)
        for _ in range(5)
    ]
    chosen = html_episodes.choose_episodes(episodes, 10)
    assert len(chosen) == 10
    kinds = {(e.attempt.facts.correct, e.response.facts.correct) for e in chosen}
    assert len(kinds) == 4
    assert {e.level for e in chosen} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize('part', ['', '/greedy'])
def test_episodes_of_a_benchmark_are_shown(tmp_path, part):
    """Its stages have the names of problem sets."""
    episodes = [browser_runs.make_episode('lab/0/test/0'), browser_runs.make_episode('own/1')]
    run = epath.Path(browser_runs.write_run(tmp_path, places={f'00-own{part}': episodes}))
    page = html_page._chosen_episodes(run, {'00-own': {'accuracy': {'greedy': {'all': 1.0}}}})
    assert '2 of the episodes of 00-own' in page and 'own/1' in page


def test_few_episodes_are_all_chosen(words):
    episodes = [make_episode(words, level=n) for n in range(3)]
    assert len(html_episodes.choose_episodes(episodes, 10)) == 3


def test_a_mean_of_too_few_questions_is_shown_without_an_interval(tmp_path, words):
    workdir = tmp_path / 'few'
    make_run(workdir, words)
    summary = make_summary(0.0) | make_comparison()
    unknown = json.loads(
        json.dumps(summary), object_hook=lambda d: {k: without_bounds(v) for k, v in d.items()}
    )
    stages = {'05-evaluate': unknown}
    (workdir / 'stages/05-evaluate/summary.json').write_text(json.dumps(unknown))
    (workdir / 'summary.json').write_text(json.dumps({'stages': stages}))
    page = html_page.write_report(workdir).read_text()
    assert '>60.0<' in page and '>+5.0<' in page and 'None' not in page and 'nan' not in page
    assert '60.0 <small>' not in page


def without_bounds(value):
    """A [mean, low, high] without its interval; other values as they are."""
    is_interval = isinstance(value, list) and len(value) == 3 and isinstance(value[0], float)
    return [value[0], None, None] if is_interval else value
