"""Mixtures of published sets: splits that share nothing, limits, one-line errors."""

import json

import pytest

from elenchus.data.problems import loading, mixing
from elenchus.data.records import Problem
from elenchus.scripts.tools import mix_problems

NO_LIMITS = mixing.Limits(10_000, 10_000, False)


@pytest.fixture
def folders(tmp_path):
    rows = {
        'asdiv/test': [
            {
                'body': f'He has {i}.',
                'question': 'And 2?',
                'answer': f'{i + 2} (x)',
                'formula': f'{i}+2={i + 2}',
            }
            for i in range(20)
        ],
        'gsm8k/train': [
            {'question': f'{i}?', 'answer': f'1+{i} = {1 + i}\n#### {1 + i}'} for i in range(9)
        ],
        'gsm8k/test': [{'question': f't{i}?', 'answer': f'{i}\n#### {i}'} for i in range(9)],
    }
    for name, records in rows.items():
        path = tmp_path / 'sets' / f'{name}.jsonl'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(json.dumps(row) + '\n' for row in records), encoding='utf-8')
    return {name: str(tmp_path / 'sets' / name) for name in ('asdiv', 'gsm8k')}


def mix(folders, tmp_path, train, test, *, limits=NO_LIMITS, seed=0):
    options = {'folders': folders, 'data_dir': str(tmp_path / 'prepared'), 'limits': limits}
    return mixing.mix(train, test, seed=seed, **options)


def test_a_set_without_training_problems_is_divided(folders, tmp_path):
    counts = {'asdiv': 12, 'gsm8k': 4}, {'asdiv': 8, 'gsm8k': 3}
    mixture = mix(folders, tmp_path, *counts)
    ids = [{p.id for p in problems} for problems in (mixture.train, mixture.test)]
    assert [len(part) for part in ids] == [16, 11] and not ids[0] & ids[1]
    assert all(i.startswith(('asdiv/test/', 'gsm8k/train/')) for i in ids[0])
    assert all(i.startswith(('asdiv/test/', 'gsm8k/test/')) for i in ids[1])
    assert mixture.available == {'asdiv test': 20, 'gsm8k train': 9, 'gsm8k test': 9}
    # More training problems change no test problem.
    fewer = mix(folders, tmp_path, {'asdiv': 2}, {'asdiv': 8, 'gsm8k': 3})
    assert {p.id for p in fewer.test} == ids[1]
    assert {p.id for p in mix(folders, tmp_path, *counts, seed=1).test} != ids[1]


def test_no_question_is_in_both_files(folders, tmp_path):
    path = tmp_path / 'sets' / 'asdiv' / 'test.jsonl'
    rows = path.read_text(encoding='utf-8').splitlines()
    path.write_text('\n'.join(2 * rows), encoding='utf-8')
    (tmp_path / 'sets' / 'gsm8k' / 'train.jsonl').write_text(
        json.dumps({'question': 'He  has 3. And 2?', 'answer': '#### 5'}), encoding='utf-8'
    )
    mixture = mix(folders, tmp_path, {'asdiv': 10}, {'asdiv': 15, 'gsm8k': 2})
    tested = {' '.join(problem.question.split()) for problem in mixture.test}
    assert not tested & {' '.join(problem.question.split()) for problem in mixture.train}
    with pytest.raises(ValueError, match='--train=gsm8k:1, but only 0 problems are left'):
        mix(folders, tmp_path, {'gsm8k': 1}, {'asdiv': 40})


@pytest.mark.parametrize('name', ['test.jsonl', 'test.json', 'data/test-00000-of-00001.parquet'])
def test_a_set_is_read_from_its_folder_in_any_form(tmp_path, name):
    path = tmp_path / 'svamp' / name
    path.parent.mkdir(parents=True)
    path.touch()
    assert mix_problems.folders_of(str(tmp_path)) == {'svamp': str(tmp_path / 'svamp')}
    assert mix_problems.folders_of('') == {}
    with pytest.raises(ValueError, match='--sets=.*other: folder not found'):
        mix_problems.folders_of(str(tmp_path / 'other'))


def test_its_files_are_read_again(folders, tmp_path):
    mixture = mix(folders, tmp_path, {'asdiv': 12}, {'gsm8k': 3})
    (tmp_path / 'train.jsonl').write_text(mixing.to_jsonl(mixture.train), encoding='utf-8')
    rows = loading.load_placed_problems(tmp_path / 'train.jsonl', 'train')
    names = ('id', 'question', 'answer', 'solution', 'level')
    assert [[getattr(r.problem, n) for n in names] for r in rows] == [
        [getattr(p, n) for n in names] for p in mixture.train
    ]


def test_limits_and_too_few_problems(folders, tmp_path):
    limits = mixing.Limits(10_000, 10_000, True)
    assert mix(folders, tmp_path, {}, {'gsm8k': 0}, limits=limits).available == {
        'gsm8k train': 9,
        'gsm8k test': 0,
    }
    with pytest.raises(ValueError, match='--train=asdiv:15, but only 12 problems are left'):
        mix(folders, tmp_path, {'asdiv': 15}, {'asdiv': 8})


@pytest.mark.parametrize(
    ('solution', 'answer', 'is_computable'),
    [('7+2=9\n#### 9', '9', True), ('25/7=3 r4\n#### 4', '4', False), ('9\n#### 9', '9', False),
     ('7+2=8\n#### 8', '8', False), ('7+2=9; 9+1=10\n#### 9', '9', False)],
)  # fmt: skip
def test_computable_solutions(solution, answer, is_computable):
    problem = Problem('p', 'How many?', answer, solution, 1, 'x')
    assert mixing.is_computable(problem) is is_computable


@pytest.mark.parametrize(
    ('entry', 'error'),
    [('asdif:3', "unknown set 'asdif'; nearest: 'asdiv'"), ('asdiv', 'use NAME:NUMBER'),
     ('asdiv:0', 'use NAME:NUMBER'), ('asdiv:-1', 'use NAME:NUMBER')],
)  # fmt: skip
def test_entries(entry, error):
    with pytest.raises(ValueError, match=f'--train.*{error}'):
        mix_problems.counts([entry], flag='train')
    with pytest.raises(ValueError, match='twice'):
        mix_problems.counts(['asdiv:1', 'asdiv:2'], flag='test')
