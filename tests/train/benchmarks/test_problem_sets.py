"""Sets of problems for an evaluation: by name, by folder, by file, and without writing anything."""

import errno
import json
import os
import sys

import pytest

from elenchus.data.problems import loading
from elenchus.train.benchmarks import problem_sets


def problems_file(path, count=3):
    rows = [{'question': f'{i} + 1?', 'answer': str(i + 1)} for i in range(count)]
    path.write_text('\n'.join(map(json.dumps, rows)))
    return str(path)


def test_sets_by_name_by_folder_and_by_file(tmp_path):
    own = problems_file(tmp_path / 'own.jsonl')
    (tmp_path / 'svamp').mkdir()
    row = {'Body': 'Tom has 3 pens.', 'Question': 'How many?', 'Equation': '3.0', 'Answer': 3.0}
    (tmp_path / 'svamp/test.jsonl').write_text(json.dumps(row))
    options = {'data_dir': str(tmp_path), 'num_problems': 2}
    sets = problem_sets.read_sets([own, 'svamp'], **options)
    assert [(s.name, s.source, len(s.problems)) for s in sets] == [
        ('own', 'jsonl', 2),
        ('svamp', 'svamp', 1),
    ]
    file = tmp_path / 'svamp/test.jsonl'
    (named,) = problem_sets.read_sets([f'asdiv={tmp_path / "svamp"}'.replace('asdiv', 'svamp')],
                                      **options)  # fmt: skip
    (by_file,) = problem_sets.read_sets([f'svamp={file}'], **options)
    assert named.problems[0].question == by_file.problems[0].question == 'Tom has 3 pens. How many?'


ROWS = {
    'svamp': {'Body': 'Tom has 3 pens.', 'Question': 'How many?', 'Equation': '3', 'Answer': 3.0},
    'asdiv': {'body': 'Tom has 3 pens.', 'question': 'How many?', 'answer': '3 (pens)',
              'formula': '3=3'},
    'math': {'problem': '1+1?', 'solution': r'\boxed{2}', 'level': 'Level 1'},
    'math500': {'problem': '1+1?', 'solution': r'\boxed{2}', 'answer': '2', 'level': 1},
    'gsm8k': {'question': '1+1?', 'answer': 'It is <<1+1=2>>2.\n#### 2'},
    'gsm8k_socratic': {'question': '1+1?', 'answer': 'How many? ** <<1+1=2>>2\n#### 2'},
}  # fmt: skip


@pytest.fixture(scope='module')
def refused():
    """A list of folders below which this process may not write: root may, whatever the mode."""
    folders = []

    def audit(event, arguments):
        writes = event in ('os.mkdir', 'os.rename') or (
            event == 'open' and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and any(str(arguments[0]).startswith(f'{folder}/') for folder in folders):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(arguments[0]))

    sys.addaudithook(audit)  # which cannot be removed
    return folders


@pytest.mark.parametrize('name', [*ROWS, 'lab'])
def test_a_set_is_read_from_a_folder_that_may_not_be_written(tmp_path, refused, name):
    source = 'math' if name == 'math500' else name
    if name == 'lab':
        options = {'seed': problem_sets.LAB_SEED, 'num_problems': {'test': 2}, 'form': 'tail'}
    else:
        ending = '_socratic' if name == 'gsm8k_socratic' else ''
        (tmp_path / name).mkdir()
        text = '\n'.join([json.dumps(ROWS[name])] * 3)
        (tmp_path / name / f'test{ending}.jsonl').write_text(text)
        options = loading.load_options(data_dir='', path=str(tmp_path / name))
    options['data_dir'] = str(tmp_path / 'prepared')
    expected = list(loading.load(source, split='test', **options))[:2]
    before = sorted(tmp_path.rglob('*'))
    refused[:] = [tmp_path]
    (chosen,) = problem_sets.read_sets([name], data_dir=str(tmp_path), num_problems=2)
    refused.clear()
    assert chosen.problems == expected and sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        (['gsm9k'], 'neither a file nor a known set .*nearest: gsm8k'),
        (['gsm9k=x'], "unknown set 'gsm9k'; nearest: gsm8k"),
        (['math500'], 'no folder .*math500'),
        ([], '--data is empty'),
    ],
)
def test_a_set_that_is_not_there_is_named(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        problem_sets.read_sets(entries, data_dir=str(tmp_path), num_problems=0)


def test_a_set_that_is_named_twice_is_refused(tmp_path):
    own = problems_file(tmp_path / 'own.jsonl')
    with pytest.raises(ValueError, match="'own' twice"):
        problem_sets.read_sets([own, own], data_dir=str(tmp_path), num_problems=0)
