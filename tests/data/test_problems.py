import functools
import http.server
import json
import os
import pathlib
import shutil
import socket
import sys
import threading

import pytest

from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.data.problems import loading, published
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
    write(tmp_path / 'given' / 'train.jsonl', RECORDS)
    write(tmp_path / 'given' / 'test.jsonl', RECORDS[:1])
    write(tmp_path / 'given' / 'test_socratic.jsonl', RECORDS[1:])
    return tmp_path / 'given'


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError('the network was touched')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


def load_gsm8k(folder, tmp_path, *, source='gsm8k', split='train', annotations=False):
    return loading.load(
        source, split=split, data_dir=tmp_path / 'prepared', path=folder, annotations=annotations
    )


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
        ('{"question": "q", "answer": null}', 'answer=None'),
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


def test_gsm8k_annotations_are_kept_on_request_and_apart(folder, tmp_path, no_network):
    plain = load_gsm8k(folder, tmp_path)
    annotated = load_gsm8k(folder, tmp_path, annotations=True)
    assert '<<48/2=24>>' in annotated[0].solution and '<<' not in plain[0].solution
    assert annotated[0].answer == plain[0].answer


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
        with pytest.raises(ValueError, match='gsm8k/train/3: missing answer'):
            load_gsm8k(folder, tmp_path)
        assert not list((tmp_path / 'prepared').rglob('*array_record*'))


def test_another_process_that_prepared_first_is_no_failure(folder, tmp_path, monkeypatch):
    prepare = published.Gsm8k.download_and_prepare

    def lose_the_race(self, **settings):
        prepare(self, **settings)
        raise OSError('directory not empty')

    monkeypatch.setattr(published.Gsm8k, 'download_and_prepare', lose_the_race)
    assert len(load_gsm8k(folder, tmp_path)) == 3


def test_a_disk_error_is_reported(folder, tmp_path, monkeypatch):
    def fail(self, **_):
        raise OSError('disk full')

    monkeypatch.setattr(published.Gsm8k, 'download_and_prepare', fail)
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
        monkeypatch.setattr(published.Gsm8k, 'URL', f'http://127.0.0.1:{server.server_port}/')
        loaded = {
            (source, split): len(
                loading.load(source, split=split, data_dir=tmp_path / 'prepared', annotations=False)
            )
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


@pytest.mark.parametrize('split, size', [('train', 7473), ('test', 1319)])
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
            task.generate_problem(seed=5, split=split, index=index) for index in range(count)
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
            {'source': 'gsm8k', 'annotations': False, 'path': 'nowhere'},
            "path='nowhere' does not contain train.jsonl; put",
        ),
        ({'source': 'gsm8k'}, 'needs annotations'),
        ({'source': 'gsm8k', 'annotations': False, 'seed': 1}, 'does not use seed'),
        ({'source': 'gsm8k', 'annotations': False, 'split': 'trian'}, "did you mean 'train'"),
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


MATH = {
    'problem': ' What is $x$? ',
    'level': 'Level 4',
    'type': 'Algebra',
    'solution': r'First $\boxed{3}$? No: \boxed{\frac{1}{2}}. The answer is unique.',
}
SVAMP = {
    'Body': 'Ann has 3 pens and buys 2 boxes of 4',
    'Question': 'How many pens has she?',
    'Equation': '( 3.0 + ( 2.0 * 4.0 ) )',
    'Answer': 11.0,
}
ASDIV = {
    'body': 'Ann has 3 nickels.',
    'question': 'How many cents has she?',
    'answer': '15  (cents)',
    'formula': '3 (nickel)*5 (cent/nickel)=15',
}
LINES = {'math': MATH, 'svamp': SVAMP, 'asdiv': ASDIV}


def load_lines(source, tmp_path, records, split='test'):
    write(tmp_path / 'given' / f'{split}.jsonl', records)
    folder, prepared = tmp_path / 'given', tmp_path / 'prepared'
    return list(loading.load(source, split=split, data_dir=prepared, path=folder))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_math_answers_are_boxed_and_levels_numbers(tmp_path, no_network, split):
    (problem,) = load_lines('math', tmp_path, [MATH], split)
    solution = MATH['solution']
    assert problem == Problem(
        f'math/{split}/0', 'What is $x$?', r'\frac{1}{2}', solution, 4, 'math'
    )


def test_math_has_bare_boxes_and_unknown_levels(tmp_path, no_network):
    record = MATH | {'solution': r'So $\boxed 9$.', 'level': 'Level ?'}
    (problem,) = load_lines('math', tmp_path, [record])
    assert (problem.answer, problem.level) == ('9', 0)


def test_svamp_and_asdiv_have_questions_of_two_parts_and_answers_without_units(
    tmp_path, no_network
):
    (svamp,) = load_lines('svamp', tmp_path / 'svamp', [SVAMP])
    assert svamp.question == 'Ann has 3 pens and buys 2 boxes of 4. How many pens has she?'
    assert svamp.solution == '( 3 + ( 2 * 4 ) ) = 11\n#### 11'
    assert (svamp.answer, svamp.level, svamp.id) == ('11', 2, 'svamp/test/0')
    (asdiv,) = load_lines('asdiv', tmp_path / 'asdiv', [ASDIV])
    assert asdiv.question == 'Ann has 3 nickels. How many cents has she?'
    assert asdiv.solution == '3 (nickel)*5 (cent/nickel)=15\n#### 15'
    assert (asdiv.answer, asdiv.level) == ('15', 1)


@pytest.mark.parametrize(
    'source, change, message',
    [
        ('math', {'solution': 'none'}, r"test/0: missing \\boxed"),
        ('math', {'level': 'Level 6'}, "level='Level 6'"),
        ('svamp', {'Answer': '11'}, "Answer='11' is not a number"),
        ('asdiv', {'answer': 3}, 'answer=3 is not text'),
        ('asdiv', {'answer': ' (cents)'}, 'empty without its unit'),
    ],
)  # fmt: skip
def test_a_malformed_line_is_refused_by_its_place(source, change, message, tmp_path, no_network):
    with pytest.raises(ValueError, match=message):
        load_lines(source, tmp_path, [LINES[source] | change])


def test_a_missing_field_names_the_nearest(tmp_path, no_network):
    record = {('equation' if name == 'Equation' else name): v for name, v in SVAMP.items()}
    with pytest.raises(
        ValueError, match="svamp/test/0: missing field 'Equation'; did you mean 'equation'"
    ):
        load_lines('svamp', tmp_path, [record])


@pytest.mark.parametrize('source', ['math', 'svamp', 'asdiv'])
def test_a_split_that_is_not_published_needs_a_path(source, tmp_path):
    with pytest.raises(
        ValueError, match='folder with train.jsonl, or use one that can be downloaded: test'
    ):
        loading.load(source, split='train', data_dir=tmp_path)
    assert published.SETS[source].URL.endswith(f'/{source}/')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('source, size', [('math', 5000), ('svamp', 1000), ('asdiv', 2215)])
def test_real_sets_are_whole_and_their_solutions_end_with_their_answers(
    source, size, tmp_path, no_network
):
    folder = REAL / source
    if not folder.exists():
        pytest.skip(f'{folder} is absent: set ELENCHUS_DATA')
    loaded = list(loading.load(source, split='test', data_dir=tmp_path, path=folder))
    assert len(loaded) == size == len({problem.id for problem in loaded})
    read = answers.boxed if source == 'math' else answers.extract_answer
    assert all(read(problem.solution) == problem.answer for problem in loaded)
    assert all(problem.question.strip() == problem.question for problem in loaded)
    levels = {'math': set(range(1, 6)), 'svamp': {1, 2}, 'asdiv': set(range(1, 9))}
    assert {problem.level for problem in loaded} == levels[source]
    if source == 'svamp':
        assert all(answers.parse_number(problem.answer) is not None for problem in loaded)
