import functools
import http.server
import json
import os
import pathlib
import shutil
import sys
import threading

import pytest

from elenchus.data.grading import answers
from elenchus.data.lab import forms
from elenchus.data.problems import loading, public_datasets
from elenchus.data.records import Problem

REAL = pathlib.Path(
    os.environ.get('ELENCHUS_DATA', pathlib.Path(__file__).parents[3] / 'shared' / 'data')
)

RECORDS = [
    {
        'question': ' How many? ',
        'answer': '48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72',
    },
    {'question': 'How much?', 'answer': 'It is $<<1000*2=2000>>2,000.\n#### 2,000'},
    {'question': 'Many steps?', 'answer': '\n'.join(['step'] * 11) + '\n#### -3'},
]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records), encoding='utf-8')
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / 'source' / 'train.jsonl', RECORDS)
    write(tmp_path / 'source' / 'test.jsonl', RECORDS[:1])
    write(tmp_path / 'source' / 'test_socratic.jsonl', RECORDS[1:])
    return tmp_path / 'source'


def load_gsm8k(folder, tmp_path, *, source='gsm8k', split='train'):
    return loading.load(source, split=split, data_dir=tmp_path / 'prepared', path=folder)


def test_jsonl_problems_are_read_with_their_optional_fields(tmp_path):
    path = write(
        tmp_path / 'set.jsonl',
        [
            {'question': 'q', 'answer': 'a', 'solution': 's', 'level': 3, 'id': 'x', 'other': 1},
            {'question': 'é', 'answer': 7},
        ],
    )
    assert loading.read_problems(path) == [
        Problem(id='x', question='q', answer='a', solution='s', level=3, source='jsonl'),
        Problem(id='set/2', question='é', answer='7', solution='', level=0, source='jsonl'),
    ]
    assert loading.load('jsonl', split='train', path=path) == loading.read_problems(path)
    assert loading.load('jsonl', split='set', path=tmp_path) == loading.read_problems(path)


@pytest.mark.parametrize(
    'line, message',
    [
        ('{"question": "q"', 'delimiter'),
        ('[1]', 'object'),
        ('{"question": "q", "anwser": "a"}', "missing field 'answer'; did you mean 'anwser'"),
        ('{"question": "q", "answer": null}', 'answer=None is neither text nor a number'),
        ('{"question": "q", "answer": true}', 'answer=True'),
        ('{"question": "q", "answer": "a", "level": "hard"}', "level='hard'"),
        ('{"question": "q", "answer": "a", "level": -1}', 'level=-1'),
        ('{"question": "q", "answer": "a", "id": "x"}', "id 'x' is already used in line 1"),
    ],
)
def test_malformed_jsonl_is_refused_by_its_line(tmp_path, line, message):
    path = tmp_path / 'set.jsonl'
    path.write_text('{"question": "q", "answer": "a", "id": "x"}\n\n' + line + '\n')
    with pytest.raises(ValueError, match=r'set\.jsonl:3: .*' + message):
        loading.read_problems(path)


def test_an_empty_jsonl_file_is_refused(tmp_path):
    (tmp_path / 'set.jsonl').write_text('\n')
    with pytest.raises(ValueError, match='no problems'):
        loading.read_problems(tmp_path / 'set.jsonl')


def test_gsm8k_fields_are_cleaned(folder, tmp_path, no_network):
    assert list(load_gsm8k(folder, tmp_path)) == [
        Problem(
            id='gsm8k/train/0',
            question='How many?',
            answer='72',
            level=2,
            source='gsm8k',
            solution='48/2 = 24 clips.\nIn all 48+24 = 72.\n#### 72',
        ),
        Problem(
            id='gsm8k/train/1',
            question='How much?',
            answer='2000',
            level=1,
            source='gsm8k',
            solution='It is $2,000.\n#### 2000',
        ),
        Problem(
            id='gsm8k/train/2',
            question='Many steps?',
            answer='-3',
            level=8,
            source='gsm8k',
            solution='\n'.join(['step'] * 11) + '\n#### -3',
        ),
    ]


def test_the_socratic_variant_has_its_own_files(folder, tmp_path, no_network):
    loaded = load_gsm8k(folder, tmp_path, source='gsm8k_socratic', split='test')
    assert [problem.id for problem in loaded] == ['gsm8k/test_socratic/0', 'gsm8k/test_socratic/1']


def test_preparing_twice_writes_once(folder, tmp_path, no_network):
    def files():
        return {
            path: path.stat().st_mtime_ns
            for path in (tmp_path / 'prepared').rglob('*.*')
            if path.is_file()
        }

    first, written = list(load_gsm8k(folder, tmp_path)), files()
    assert list(load_gsm8k(folder, tmp_path)) == first
    assert files() == written and written


def test_changed_files_are_not_answered_from_old_ones(folder, tmp_path, no_network):
    assert len(load_gsm8k(folder, tmp_path)) == 3
    write(folder / 'train.jsonl', RECORDS[:2])
    assert len(load_gsm8k(folder, tmp_path)) == 2


def test_a_failed_preparation_leaves_no_dataset(folder, tmp_path, no_network):
    write(folder / 'train.jsonl', [*RECORDS, {'question': 'q', 'answer': 'no marker'}])
    for _ in range(2):
        with pytest.raises(ValueError, match=r'source/train\.jsonl:4: missing answer'):
            load_gsm8k(folder, tmp_path)
        assert not list((tmp_path / 'prepared').rglob('*array_record*'))


def test_another_process_that_prepared_first_is_no_failure(folder, tmp_path, monkeypatch):
    prepare = public_datasets.Gsm8k.download_and_prepare

    def lose_the_race(self, **settings):
        prepare(self, **settings)
        raise OSError('directory not empty')

    monkeypatch.setattr(public_datasets.Gsm8k, 'download_and_prepare', lose_the_race)
    assert len(load_gsm8k(folder, tmp_path)) == 3


def test_a_disk_error_is_reported(folder, tmp_path, monkeypatch):
    def fail(self, **_):
        raise OSError('disk full')

    monkeypatch.setattr(public_datasets.Gsm8k, 'download_and_prepare', fail)
    with pytest.raises(OSError, match='disk full'):
        load_gsm8k(folder, tmp_path)


def test_preparing_prints_nothing(folder, tmp_path, capfd, no_network):
    load_gsm8k(folder, tmp_path)
    assert capfd.readouterr() == ('', '')


def test_problems_are_a_sequence(folder, tmp_path, no_network):
    loaded = load_gsm8k(folder, tmp_path)
    assert loaded[-1] == loaded[2]
    assert loaded[1:] == [loaded[1], loaded[2]]
    with pytest.raises(IndexError):
        loaded[3]


def test_tensorflow_is_never_imported(folder, tmp_path):
    load_gsm8k(folder, tmp_path)[0]
    assert 'tensorflow' not in sys.modules


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_without_a_path_the_public_files_are_downloaded(folder, tmp_path, monkeypatch):
    shutil.copy(folder / 'test_socratic.jsonl', folder / 'train_socratic.jsonl')
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(public_datasets.Gsm8k, 'URL', f'http://127.0.0.1:{server.server_port}/')
        loaded = {
            (source, split): len(loading.load(source, split=split, data_dir=tmp_path / 'prepared'))
            for source in ('gsm8k', 'gsm8k_socratic')
            for split in ('train', 'test')
        }
        server.shutdown()
    assert loaded == {
        ('gsm8k', 'train'): 3,
        ('gsm8k', 'test'): 1,
        ('gsm8k_socratic', 'train'): 2,
        ('gsm8k_socratic', 'test'): 2,
    }


@pytest.mark.parametrize(
    'split, size', [pytest.param('train', 7473, marks=pytest.mark.slow), ('test', 1319)]
)
def test_real_gsm8k_is_whole_and_verifies_against_itself(split, size, tmp_path, no_network):
    folder = REAL / 'gsm8k'
    if not folder.exists():
        pytest.skip(f'{folder} is absent: set ELENCHUS_DATA')
    loaded = list(load_gsm8k(folder, tmp_path, split=split))
    assert len(loaded) == size == len({problem.id for problem in loaded})
    assert not any('<<' in problem.solution for problem in loaded)
    assert all(answers.extract_answer(problem.solution) == problem.answer for problem in loaded)
    assert all(answers.parse_number(problem.answer) is not None for problem in loaded)
    assert {problem.level for problem in loaded} == set(range(2, 9))


def test_lab_problems_are_those_of_the_generator(tmp_path, no_network):
    sizes = {'train': 7, 'validation': 1, 'test': 3, 'ood': 2}
    for split, count in sizes.items():
        loaded = loading.load('lab', split=split, data_dir=tmp_path, seed=5, num_problems=sizes)
        assert list(loaded) == [
            forms.generate_problem(seed=5, split=split, index=index) for index in range(count)
        ]


def test_lab_seeds_and_sizes_do_not_share_files(tmp_path, no_network):
    load = functools.partial(loading.load, 'lab', split='train', data_dir=tmp_path)
    first = list(load(seed=0, num_problems={'train': 4}))
    assert list(load(seed=1, num_problems={'train': 4})) != first
    assert len(load(seed=0, num_problems={'train': 6})) == 6
    assert list(load(seed=0, num_problems={'train': 4})) == first


@pytest.mark.parametrize(
    'options, message',
    [
        ({'source': 'gsm8q'}, "unknown source='gsm8q'; .*did you mean 'gsm8k'"),
        ({'source': 'jsonl'}, "'jsonl' needs path"),
        ({'source': 'jsonl', 'path': 'nowhere.jsonl'}, "file not found: path='nowhere.jsonl'"),
        (
            {'source': 'gsm8k', 'path': 'nowhere'},
            r"path='nowhere' does not contain train.jsonl \(nor .*\); put one there",
        ),
        ({'source': 'gsm8k', 'data_dir': None}, 'needs data_dir'),
        ({'source': 'gsm8k', 'seed': 1}, 'does not use seed'),
        ({'source': 'gsm8k', 'split': 'trian'}, "did you mean 'train'"),
        ({'source': 'lab'}, 'needs num_problems, seed'),
        ({'source': 'lab', 'seed': 0, 'num_problems': {'tset': 3}}, "did you mean 'test'"),
        (
            {'source': 'lab', 'seed': 0, 'num_problems': {'test': 3}},
            "unknown split='train'; valid: test",
        ),
        ({'source': 'lab', 'seed': 0, 'num_problems': {'train': 0}}, 'at least 1'),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(options, message, tmp_path):
    options = {'split': 'train', 'data_dir': tmp_path / 'prepared'} | options
    with pytest.raises(ValueError, match=message) as raised:
        loading.load(options.pop('source'), **options)
    assert '\n' not in str(raised.value)
    assert not (tmp_path / 'prepared').exists()
