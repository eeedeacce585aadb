"""Data of the episode browser: rows, texts, tokens, and the files that bring them to the page."""

import collections
import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.sampling.metrics import critic_metrics
from elenchus.train.report.browser import chunks, folder, health, rows, sources
from elenchus.train.rl import diagnostics
from tests.scripts.test_report_security import PAYLOADS, evil_episode
from tests.support import browser_runs
from tests.support.browser_runs import WORDS, all_kinds, make_episode


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Work directory of a run with episodes in every place."""
    return browser_runs.write_run(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def data(run, tmp_path_factory):
    """Name -> value of every file of data of that run's browser."""
    out = tmp_path_factory.mktemp('out') / 'browser'
    folder.write_browser(run, out)
    return read_data(out)


def read_data(out):
    """Name -> value of every file of data in a browser's folder."""
    parsed = (browser_runs.parse_script(path.read_text()) for path in (out / 'data').glob('*.js'))
    return dict(parsed)


def row_of(episode, values=None):
    return rows.make_row(episode, values=values, end_id=WORDS.eos_id)


def flags_of(row):
    return {name for name in rows.FLAGS if row['flags'] & rows.bit(name)}


# Rows


def test_transitions_and_verdicts_are_those_of_the_metrics():
    episodes = [e for e in all_kinds() if e.attempt.facts.correct is not None]
    table = [row_of(e) for e in episodes]
    counts = collections.Counter(rows.TRANSITIONS[row['transition']] for row in table)
    shares = critic_metrics.transitions(episodes)
    assert {n: counts[n] / len(table) for n in rows.TRANSITIONS} == {
        n: shares[n] for n in rows.TRANSITIONS
    }
    judged = [e for e in episodes if any(t.role == 'critique' for t in e.turns)]
    measures = critic_metrics.critic(judged)
    agrees = [row_of(e)['agrees'] for e in judged if row_of(e)['agrees'] is not None]
    assert measures['discriminability'] == sum(a == 0 for a in agrees) / len(agrees)
    unreadable = sum('unreadable' in flags_of(row_of(e)) for e in judged)
    assert measures['parse_rate'] == pytest.approx(1 - unreadable / len(judged))


def test_calibration_from_the_rows_is_that_of_the_metrics():
    episodes = [e for e in all_kinds() if e.attempt.facts.score is not None]
    table = [row_of(e) for e in episodes]
    expected = critic_metrics.calibration(episodes, num_bins=rows.NUM_BINS)
    counts = collections.Counter(row['bin'] for row in table)
    assert sorted(counts.values()) == sorted(b['count'] for b in expected['final']['curve'])
    steps = [
        pair for row in table for pair in zip(row['steps'][::2], row['steps'][1::2], strict=True)
    ]
    assert len(steps) == expected['steps']['count']
    right = sum(code & 1 for code, _ in steps) / len(steps)
    assert right == pytest.approx(expected['steps']['right'])
    for row in table:
        codes = set(row['steps'][::2])
        assert row['step_bins'] == sum(1 << code for code in codes)


def test_what_is_unknown_is_none_and_not_zero():
    row = row_of(make_episode('p', before=None))
    unknown = ('before', 'after', 'transition', 'verdict', 'agrees', 'judged', 'score', 'reward')
    assert {name: row[name] for name in unknown} == dict.fromkeys(unknown)
    assert row['advantage'] is None and row['steps'] == []


@pytest.mark.parametrize(
    ('episode', 'expected'),
    [
        (make_episode('p', cut=True), {'truncated'}),
        (make_episode('p', after=True), {'unreadable'}),
        (make_episode('p', error=0), {'spurious'}),
        (make_episode('p', verdict=True, after=True), set()),
        (make_episode('p').with_turn_facts('attempt', outcome='timeout'), {'verifier'}),
        (make_episode('p').with_turn_facts('attempt', outcome='error'), {'verifier'}),
        (make_episode('p').with_turn_facts('attempt', outcome='unsure'), {'unsure'}),
        (make_episode('p').with_turn_facts('attempt', answer=None), {'no_answer'}),
    ],
)
def test_flags(episode, expected):
    assert flags_of(row_of(episode)) == expected


def test_what_was_not_sampled_is_not_called_truncated_or_unreadable():
    """Constructed attempts have no end token, and a condition's text in the critique's place."""
    turns = make_episode('p', after=True, cut=True).turns
    bare = [dataclasses.replace(turn, logprobs=()) for turn in turns]
    bare[2] = bare[2].with_facts(verdict_offsets=None)
    assert not flags_of(row_of(records.Episode('p', 1, tuple(bare))))


def test_an_unknown_end_token_makes_truncation_unknown():
    row = rows.make_row(make_episode('p', cut=True), values=None, end_id=None)
    assert not flags_of(row)


def test_stored_values_are_shown_and_nothing_else(data):
    index = data['a-index']
    columns, places = index['columns'], index['sources']
    stored = [n for n, source in enumerate(places) if source['stored']]
    assert [places[n]['part'] for n in stored] == ['rollouts/actor']
    assert [places[n]['round'] for n in stored] == [10]
    at = [i for i, source in enumerate(columns['source']) if source in stored]
    assert [columns['reward'][i] for i in at] == [0.0, 0.25, 0.5, 0.0, 0.25, 0.5]
    assert [columns['advantage'][i] for i in at][:3] == [0.25, 0.125, 0.0]
    others = [i for i in range(len(columns['source'])) if i not in at]
    assert {columns['advantage'][i] for i in others} == {None}
    mismatch = [bool(columns['flags'][i] & rows.bit('mismatch')) for i in at]
    assert mismatch == [False, True, False, False, False, False]
    tokens = data['a-tokens-0000']
    assert set(tokens[at[1]][0]['channels']) == {'logprob', 'mismatch', 'weight'}
    assert set(tokens[at[1]][0]['channels']['mismatch']) == {62}
    assert set(tokens[others[0]][0]['channels']) == {'logprob'}


def test_values_that_are_not_as_many_as_the_episodes_are_named(run, tmp_path):
    source = next(s for s in sources.find_sources(_epath(run)) if 'rollouts' in s.part)
    short = source._replace(folder=_epath(tmp_path) / 'episodes')
    episode_files.write_episodes(tmp_path / 'episodes/part.array_record', all_kinds()[:2])
    (tmp_path / sources.VALUES).write_text('{"reward": 1.0}\n')
    with pytest.raises(ValueError, match='1 lines for 2 episodes'):
        sources.read_values(short)


def _epath(path):
    from etils import epath

    return epath.Path(path)


def test_groups_without_variance_are_marked(tmp_path):
    alike = [make_episode('p', before=True), make_episode('p', before=True)]
    mixed = [make_episode('q', before=True), make_episode('q', before=False)]
    alone, unknown = [make_episode('r')], [make_episode('s', before=None)] * 2
    places = {'04-evaluate': [*alike, *mixed, *alone, *unknown]}
    browser_runs.write_run(tmp_path / 'run', places=places)
    folder.write_browser(tmp_path / 'run', tmp_path / 'out')
    flags = read_data(tmp_path / 'out')['a-index']['columns']['flags']
    assert [bool(f & rows.bit('no_variance')) for f in flags] == [True] * 2 + [False] * 5


# Files


def test_every_file_has_its_schema(data):
    """The page reads these names; a chunk has the episodes of its place in the index."""
    run, index = data['a-run'], data['a-index']
    assert set(data) == {'all-setup', 'a-run', 'a-index', 'a-pieces'} | {
        f'a-{kind}-0000' for kind in ('text', 'tokens')
    }
    assert data['all-setup'] == {'runs': ['a'], 'differences': []}
    total = sum(map(len, browser_runs.PLACES.values()))
    assert run['episodes'] == total and run['chunk'] == chunks.SIZE and run['seed'] == 0
    assert {len(column) for column in index['columns'].values()} == {total}
    assert len(data['a-text-0000']) == len(data['a-tokens-0000']) == total
    for field in index['fields']:
        assert set(field) == {'name', 'title', 'kind', 'column', 'values'}
        assert field['column'] in {*index['columns'], ''}
    for n, text in enumerate(data['a-text-0000']):
        assert {'turns', 'facts'} == set(text)
        tokens = data['a-tokens-0000'][n]
        assert len(tokens) == len(text['turns'])
        for turn, numbers in zip(text['turns'], tokens, strict=True):
            assert ('steps' in turn) or ('text' in turn)
            lengths = {len(numbers['ids']), *map(len, numbers['channels'].values())}
            assert lengths == {turn['sampled']}
            assert set(map(str, numbers['ids'])) <= set(data['a-pieces'])
    assert [s['name'] for s in run['series']] == ['loss/kl']
    assert run['series'][0]['outside'] == 10 and run['series'][0]['first_outside'] == 11
    assert run['starts'][0]['command'] == 'scripts/run.py --seed=0'
    assert run['verifier'] == [{'stage': '02-critique', 'pairs': 3, 'timeout': 0.5}]


def test_texts_and_pieces_say_what_the_turns_say(data):
    text, tokens = data['a-text-0000'][4], data['a-tokens-0000'][4]
    attempt = text['turns'][0]
    assert [step['text'] for step in attempt['steps']] == ['ben : eve 7 - 4 = 3 ; ben 3', '#### 3']
    joined = ''.join(data['a-pieces'][str(token)] for token in tokens[0]['ids'])
    assert joined.split() == ''.join(browser_runs.ATTEMPT).split()
    critique = text['turns'][1]['critique']
    assert [step['correct'] for step in critique['steps']] == [1] and critique['final'] == 1


@given(st.dictionaries(st.text(), st.lists(st.text() | st.integers() | st.none())))
def test_a_file_of_data_is_read_back_and_means_nothing_to_html(value):
    script = chunks.to_script('a-index', value)
    body = script.removeprefix(chunks.FUNCTION)
    assert not re.search('[<>&\u2028\u2029]', body) and body.count('\n') == 1
    assert browser_runs.parse_script(script) == ('a-index', value)


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError, match='JSON compliant'):
        chunks.to_script('a', float('nan'))


def test_hostile_texts_stay_texts_in_every_file(tmp_path):
    """Ids, levels, answers, turns, names of stages and of settings are payloads."""
    name = f'04-evaluate {PAYLOADS[0].replace("/", "|")}'
    words = browser_runs.WORDS
    episodes = [evil_episode(words, payload) for payload in PAYLOADS]
    run = browser_runs.write_run(tmp_path / 'run', places={name: episodes})
    (run / 'config.json').write_text(
        json.dumps({PAYLOADS[1].replace('.', ''): PAYLOADS[2], 'seed': 0})
    )
    out = tmp_path / 'out'
    folder.write_browser(run, out)
    scripts = [path.read_text() for path in (out / 'data').glob('*.js')]
    assert len(scripts) == 6
    for script in scripts:
        assert not re.search('[<>\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]', script)
    assert len(read_data(out)['a-index']['problems']) == len(PAYLOADS)


def test_the_page_never_reads_text_as_html_or_code():
    forbidden = re.compile(
        r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|'
        r'DOMParser|srcdoc|javascript:|\bfetch\(|XMLHttpRequest|import\(|https?://(?!www\.w3\.org)'
    )
    texts = {path.name: path.read_text() for path in folder.PAGE.iterdir()}
    assert not {name: forbidden.findall(t) for name, t in texts.items() if forbidden.search(t)}
    assert max(text.count('\n') for text in texts.values()) < 350
    page = texts['index.html']
    listed = set(re.findall(r'<script src="([^"]+)"', page)) | set(
        re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)
    )
    assert listed == set(texts) - {'index.html'}
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy and 'unsafe' not in policy and '*' not in policy


# The folder


def test_a_folder_is_written_again_and_old_chunks_go(run, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, 'SIZE', 10)
    folder.write_browser(run, tmp_path / 'out', other=run)
    assert (tmp_path / 'out/data/b-text-0003.js').exists()
    monkeypatch.setattr(chunks, 'SIZE', 1000)
    assert folder.write_browser(run, tmp_path / 'out').name == 'index.html'
    names = {path.name for path in (tmp_path / 'out/data').iterdir()}
    assert names == {'all-setup.js', *(f'a-{n}.js' for n in ('run', 'index', 'pieces'))} | {
        'a-text-0000.js',
        'a-tokens-0000.js',
    }
    assert '<html' in (tmp_path / 'out/summary.html').read_text()


def test_files_of_others_stay(run, tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='has other files; use a new folder'):
        folder.write_browser(run, tmp_path)
    with pytest.raises(ValueError, match='is a file'):
        folder.write_browser(run, tmp_path / 'notes.txt')
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_a_page_and_data_of_others_stay(run, tmp_path):
    (tmp_path / 'data').mkdir()
    for name in ('index.html', 'data/mine.js'):
        (tmp_path / name).write_text('mine')
        with pytest.raises(ValueError, match='has other files; use a new folder'):
            folder.write_browser(run, tmp_path)
        assert (tmp_path / name).read_text() == 'mine'


def test_the_run_is_only_read(run, tmp_path):
    before = sorted(path for path in run.rglob('*'))
    folder.write_browser(run, tmp_path / 'out')
    assert sorted(path for path in run.rglob('*')) == before


def test_a_run_without_episodes_or_config_has_a_browser(tmp_path):
    (tmp_path / 'run/stages/00-base').mkdir(parents=True)
    folder.write_browser(tmp_path / 'run', tmp_path / 'out')
    data = read_data(tmp_path / 'out')
    assert data['a-run']['episodes'] == 0 and data['a-run']['config_hash'] is None


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(ValueError, match='absent: folder not found'):
        folder.write_browser(tmp_path / 'absent', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_settings_that_differ_are_listed():
    configs = {
        'a': {'seed': 0, 'train': {'rate': 1}},
        'b': {'seed': 1, 'train': {'rate': 1}, 'x': 2},
    }
    assert folder.differences(configs) == [['seed', 0, 1], ['x', None, 2]]
    assert folder.differences({'a': configs['a']}) == []


# Health


def test_every_check_is_of_a_flag_and_every_flag_has_one():
    assert [check.flag for check in health.CHECKS] == list(rows.FLAGS)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=1000))
def test_a_thinned_series_keeps_its_extremes(values):
    points = list(enumerate(values))
    kept = health._thinned(points)
    assert len(kept) <= health.MAX_POINTS
    shown = [value for _, value in kept]
    assert max(shown) == round(max(values), 6) and min(shown) == round(min(values), 6)
    assert [step for step, _ in kept] == sorted(step for step, _ in kept)


@pytest.mark.parametrize(
    ('name', 'is_known'),
    [('loss/kl', True), ('loss/critic/kl', True), ('step', False), ('loss/none', False)],
)
def test_the_range_of_a_metric(name, is_known):
    assert (diagnostics.healthy_range(name) is not None) == is_known
