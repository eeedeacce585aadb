"""The filter of the episode browser: one definition, in Python and in the page."""

import json
import pathlib
import shutil
import subprocess
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.sampling.metrics import statistics
from elenchus.train.report.browser import filters, folder
from tests.support import browser_runs

NODE = shutil.which('node')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Index and texts of a run with episodes of every kind."""
    run = browser_runs.write_run(tmp_path_factory.mktemp('run'))
    out = tmp_path_factory.mktemp('out') / 'browser'
    folder.write_browser(run, out)
    paths = (out / 'data').glob('*.js')
    return dict(browser_runs.parse_script(path.read_text()) for path in paths)


def says(data, index):
    """All that an episode says."""
    problem = data['a-index']['problems'][data['a-index']['columns']['problem'][index]]
    turns = data['a-text-0000'][index]['turns']
    texts = ['\n'.join(s['text'] for s in t['steps']) if 'steps' in t else t['text'] for t in turns]
    return ' '.join([problem['id'], problem['question'], *texts])


@pytest.fixture(scope='module')
def rows(data):
    """(values by field, all that it says) of every episode."""
    fields, index = data['a-index']['fields'], data['a-index']
    numbers = range(data['a-run']['episodes'])
    return [(filters.describe(fields, index, i), says(data, i)) for i in numbers]


def kept(fields, rows, query):
    """Numbers of the episodes that a filter, or its address, keeps."""
    query = filters.parse(fields, query) if isinstance(query, str) else query
    return [i for i, (row, text) in enumerate(rows) if filters.keeps(fields, query, row, text=text)]


# (address, what is true of the episodes that it keeps and of no others)
CASES = [
    ('', lambda row: True),
    ('#stage=04-evaluate', lambda row: row['stage'] == '04-evaluate'),
    (
        'stage=04-evaluate&part=main',
        lambda row: (row['stage'], row['part']) == ('04-evaluate', 'main'),
    ),
    ('round=2', lambda row: row['round'] == '2'),
    ('round=1,2,10', lambda row: row['round'] is not None),
    ('level=10', lambda row: row['level'] == '10'),
    ('level=1,2', lambda row: row['level'] in ('1', '2')),
    ('transition=i2c', lambda row: row['transition'] == 'i2c'),
    (
        'transition=c2i,i2i&level=1',
        lambda row: row['transition'] in ('c2i', 'i2i') and row['level'] == '1',
    ),
    ('verdict=false', lambda row: row['verdict'] == 'false'),
    ('says=unreadable', lambda row: row['says'] == 'unreadable'),
    (
        'attempt=wrong&says=correct',
        lambda row: (row['attempt'], row['says']) == ('wrong', 'correct'),
    ),
    ('reward=0.5..', lambda row: row['reward'] is not None and row['reward'] >= 0.5),
    ('reward=..0', lambda row: row['reward'] is not None and row['reward'] <= 0),
    ('reward=0.25..0.5', lambda row: row['reward'] in (0.25, 0.5)),
    ('reward=2..1', lambda row: False),
    ('reward=-1e3..1E3', lambda row: True),  # 'E' is no number here: the filter is not limited
    ('bin=3', lambda row: row['bin'] == '3'),
    ('step_bin=9r', lambda row: '9r' in row['step_bin']),
    ('flag=truncated,spurious', lambda row: bool({'truncated', 'spurious'} & row['flag'])),
    ('question=lab%2F0%2Ftest%2F1', lambda row: row['question'] == 'lab/0/test/1'),
    ('level=none', lambda row: False),
    ('nothing=1&level=', lambda row: True),
    ('reward=..', lambda row: True),
    ('reward=a..b', lambda row: True),
    ('text=%20%20', lambda row: True),
]


@pytest.mark.parametrize(('address', 'is_kept'), CASES)
def test_what_a_filter_keeps(data, rows, address, is_kept):
    expected = [i for i, (row, _) in enumerate(rows) if is_kept(row)]
    assert kept(data['a-index']['fields'], rows, address) == expected
    assert len(expected) < len(rows) or is_kept({'reward': -1}), 'keeps all'


@pytest.mark.parametrize(
    'words', ['3 - 3 = 0', 'CORRECT answer', '  #### \n 4', 'test/1', 'ben ?', 'eve%20missing']
)
def test_words_match_in_any_turn_whatever_case_and_spaces(data, rows, words):
    wanted = ' '.join(words.lower().split())
    expected = [i for i, (_, text) in enumerate(rows) if wanted in ' '.join(text.lower().split())]
    address = f'text={urllib.parse.quote(words, safe="")}'
    assert kept(data['a-index']['fields'], rows, address) == expected


def test_a_limit_never_keeps_what_is_unknown(data, rows):
    """All values of a choice together keep the known ones alone."""
    fields = data['a-index']['fields']
    for field in fields:
        name = field['name']
        if field['kind'] == 'choice' and field['values']:
            known = [i for i, (row, _) in enumerate(rows) if row[name] is not None]
            assert kept(fields, rows, {name: tuple(field['values'])}) == known, name


SCRIPT = pathlib.Path(browser_runs.__file__).with_name('page_filter.js')


def in_node(tmp_path, **values):
    """What the page's own functions return, run by Node."""
    (tmp_path / 'input.json').write_text(json.dumps(values))
    result = subprocess.run(
        [NODE, str(SCRIPT), str(folder.PAGE), str(tmp_path / 'input.json')],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


ODD = (
    'level=%31,2',
    'text=%E2%9C%93',
    'text=%ff%zz%41',
    'text=Ben%0A%09%20EVE',
    'reward=1e-1..',
    'reward=.5..+1',
    'reward=0x1..',
    'level=1,,2&level=2',
    '#level=1&transition=i2c,c2c&flag=no_variance&text=ben',
    'stage=%2c,04-evaluate',
    '=&&a=b&level',
)


@pytest.mark.skipif(NODE is None, reason='no Node')
def test_the_page_keeps_what_python_keeps(data, rows, tmp_path):
    fields = data['a-index']['fields']
    addresses = [address for address, _ in CASES] + list(ODD)
    output = in_node(
        tmp_path, index=data['a-index'], texts=data['a-text-0000'], addresses=addresses, pairs=[]
    )
    for address, result in zip(addresses, output['results'], strict=True):
        expected = filters.parse(fields, address)
        assert result['query'] == json.loads(json.dumps(expected)), address
        assert result['again'] == result['query'], address  # through the address and back
        assert result['kept'] == kept(fields, rows, expected), address
        for name, counts in result['facets'].items():
            for value, count in counts.items():
                wanted = expected | {name: (value,)}
                assert len(kept(fields, rows, wanted)) == count, (address, name, value)


WORDS = st.lists(st.sampled_from(['a', 'b', 'ab', ' ', '\n', '7', '+', 'é', '∎']), max_size=12)


@pytest.mark.skipif(NODE is None, reason='no Node')
def test_word_differences_and_cells_of_tables(tmp_path):
    pairs = []

    @given(WORDS, WORDS)
    def collect(first, second):
        pairs.append([''.join(first), ''.join(second)])

    collect()
    pairs += [['x = 5 ; y', 'x = 7 ; y'], ['=cmd|x', '+1'], ['a,"b"\n', '@x'], ['-2', '\t=1']]
    output = in_node(tmp_path, index={'fields': []}, texts=[], addresses=[], pairs=pairs)
    for (first, second), (old, new) in zip(pairs, output['diffs'], strict=True):
        assert ''.join(text for text, _ in old) == first
        assert ''.join(text for text, _ in new) == second
        shared = [''.join(t for t, only in side if not only).split() for side in (old, new)]
        assert shared[0] == shared[1]
        assert first != second or not any(only for _, only in old + new)
    differing = [[t.strip() for t, only in side if only] for side in output['diffs'][-4]]
    assert differing == [['5'], ['7']]
    assert output['cells'][-6:] == ["'=cmd|x", "'+1", '"a,""b""\n"', "'@x", "'-2", "'\t=1"]


@pytest.mark.skipif(NODE is None, reason='no Node')
def test_the_interval_of_a_comparison_needs_as_many_questions_as_elsewhere(tmp_path):
    enough = [0.0, 1.0] * (statistics.MIN_QUESTIONS // 2)
    output = in_node(
        tmp_path,
        index={'fields': []},
        texts=[],
        addresses=[],
        pairs=[],
        samples=[enough[1:], enough],
    )
    few, known = output['intervals']
    assert few == {'mean': pytest.approx(25 / 49), 'low': None, 'high': None}
    same = statistics.bootstrap(enough, num_resamples=1000, seed=0, level=0.95)
    assert list(known.values()) == pytest.approx(list(same), abs=0.03)


def test_the_fields_have_one_definition():
    """No name of a field is written out in the page's filter."""
    text = pathlib.Path(folder.PAGE / 'filter.js').read_text()
    names = [field['name'] for field in filters.make_fields(['1'], [])]
    assert len(names) == len(set(names)) == 14
    assert not [name for name in names if f"'{name}'" in text and name != 'text']  # also a kind
