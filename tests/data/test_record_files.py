"""Files of critique records: what is written is what is read, and mistakes are named."""

import collections
import dataclasses
import json
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import grammars, record_files
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.grading import answers as answer_lib
from elenchus.data.grading import verify

KNOWN = CritiqueRecord(
    question='How many?',
    response='48/2 = 24\n#### 24',
    steps=('48/2 = 24', '#### 24'),
    construction='RG3',
    location=0,
    kind='number',
    critique='Correctness of the final answer: Wrong',
    refinement_successes=3,
    refinements=10,
    refinement='48/2 = 24 é\nThe answer is 24.',
    problem_id='gsm8k/train/0',
    level=2,
    correct=False,
)
UNKNOWN = CritiqueRecord(
    **dict.fromkeys(record_files.FIELDS)
    | {'question': 'q', 'response': 'a\n b', 'steps': ('a', ' b'), 'critique': ''}
)
texts = st.text(st.characters(codec='utf-8', exclude_characters='\r'), max_size=20)
counts = st.none() | st.integers(0, 2**31 - 1)


@st.composite
def critique_records(draw):
    response = draw(texts)
    steps = tuple(response.split('\n'))
    return CritiqueRecord(
        question=draw(texts),
        response=response,
        steps=steps,
        construction=draw(st.none() | st.sampled_from(('RG1', 'RG2', 'RG3'))),
        location=draw(st.none() | st.integers(0, len(steps) - 1)),
        kind=draw(st.none() | texts),
        critique=draw(texts),
        refinement_successes=draw(counts),
        refinements=draw(counts),
        refinement=draw(st.none() | texts),
        problem_id=draw(st.none() | texts),
        level=draw(counts),
        correct=draw(st.none() | st.booleans()),
    )


record_lists = st.lists(critique_records(), min_size=1, max_size=4)


def write(path, *lines):
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('records')


# JSONL


@hypothesis.given(record_lists)
def test_records_survive_jsonl(folder, written):
    record_files.write_jsonl(folder / 'r.jsonl', written)
    assert record_files.read(folder / 'r.jsonl') == written


def test_absent_fields_are_unknown_and_steps_are_lines(folder):
    path = write(folder / 'few.jsonl', '{"question": "q", "response": "a\\n b", "critique": ""}')
    assert record_files.read(path) == [UNKNOWN]


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'critic': 'x'}, "unknown field 'critic' of a critique record; did you mean 'critique'"),
        ({'level': '2'}, "level='2' must be of type int"),
        ({'level': True}, 'level=True must be of type int'),
        ({'question': None}, 'question=None must be of type str'),
        ({'correct': 1}, 'correct=1 must be of type bool'),
        ({'steps': 'abc'}, "steps='abc' must be a list of str"),
        ({'steps': ['a', 1]}, 'must be a list of str'),
        ({'location': 2}, 'location=2 must be in 0 to 1'),
        ({'location': -1}, 'location=-1 must be in 0 to 1'),
        ({'level': 2**31}, 'level=2147483648 must be in -2147483648 to 2147483647'),
    ],
)
def test_a_wrong_field_is_named_with_its_line(folder, changed, message):
    good = dataclasses.asdict(KNOWN)
    path = write(folder / 'bad.jsonl', json.dumps(good), '', json.dumps(good | changed))
    with pytest.raises(ValueError, match=r'bad\.jsonl:3: ') as raised:
        record_files.read(path)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            '{"question": "q", "respons": "r"}',
            "unknown field 'respons' .*; did you mean 'response'",
        ),
        ('{"question": "q", "response": "r"}', "missing field 'critique' in a critique record"),
        ('{"question": "q"', 'invalid JSON'),
        ('7', 'expected a JSON object, got .7.'),
    ],
)
def test_an_invalid_line_is_named(folder, line, message):
    with pytest.raises(ValueError, match=rf'bad\.jsonl:1: {message}'):
        record_files.read(write(folder / 'bad.jsonl', line))


def test_files_that_are_missing_or_empty_are_refused(folder):
    write(folder / 'gsm8k.json', '[]')
    with pytest.raises(
        ValueError, match=r'file not found: .*gsm8.json; did you mean .*gsm8k\.json'
    ):
        record_files.read(folder / 'gsm8.json')
    with pytest.raises(ValueError, match=r'gsm8k\.json contains no records'):
        record_files.read(folder / 'gsm8k.json')


# The released form


@pytest.mark.parametrize('answer', ['The answer is 24.', r'The answer is $\boxed{24}$.'])
def test_the_released_form_keeps_the_four_texts(folder, answer):
    record = dataclasses.replace(KNOWN, refinement=answer)
    record_files.write_released(folder / 'r.json', [record, record])
    (first, second) = record_files.read(folder / 'r.json')
    names = ('question', 'response', 'steps', 'critique', 'refinement')
    assert all(getattr(first, name) == getattr(record, name) for name in names)
    assert first == second and first.construction is None


def test_the_released_form_needs_a_refinement(folder):
    path = folder / 'none.json'
    with pytest.raises(ValueError, match='record 2: the released form needs a refinement'):
        record_files.write_released(path, [KNOWN, UNKNOWN])
    assert not path.exists()


@pytest.mark.parametrize(
    ('record', 'message'),
    [
        (
            {'instructions': '', 'input': '', 'output': ''},
            "nearest is released, which needs 'instruction' too; did you mean 'instructions'",
        ),
        ({'instruction': 'Only this.', 'input': '', 'output': ''}, 'Assistant'),
        ({'instruction': 7, 'input': '', 'output': ''}, 'instruction=7 must be of type str'),
    ],
)
def test_a_record_of_another_form_is_refused(folder, record, message):
    (folder / 'other.json').write_text(json.dumps([record]))
    with pytest.raises(ValueError, match=rf'other\.json, record 1: .*{message}'):
        record_files.read(folder / 'other.json')


def test_line_breaks_that_were_escaped_twice_are_read(folder):
    record_files.write_released(folder / 'r.json', [KNOWN])
    (record,) = json.loads((folder / 'r.json').read_text())
    for output, read in ((r'a\n\nb\nc', 'a\n\nb\nc'), (r'$x \neq y$', r'$x \neq y$')):
        assert record_files.released_record(record | {'output': output}).refinement == read


@pytest.mark.parametrize('name', ['gsm8k', 'math'])
def test_real_records_are_written_back_word_for_word(shared_data, folder, name):
    path = shared_data / 'mathcritique' / f'{name}.json'
    released = json.loads(path.read_text(encoding='utf-8'))
    record_files.write_released(folder / path.name, record_files.read(path))
    written = json.loads((folder / path.name).read_text(encoding='utf-8'))
    for was, now in zip(released, written, strict=True):
        instructions = (text['instruction'].split() for text in (was, now))
        assert len(set(map(tuple, instructions))) == 1 and now['input'] == was['input']
        assert now['output'] == was['output'].replace(r'\n\n', '\n\n')


@pytest.mark.parametrize('name', ['gsm8k', 'math'])
def test_real_records_split_into_clean_texts(shared_data, name):
    for record in record_files.read(shared_data / 'mathcritique' / f'{name}.json'):
        texts = (record.question, record.response, record.critique, record.refinement)
        whole = '\n'.join(texts)
        assert all(texts) and '<|end_of_text|>' not in whole and 'Please also give' not in whole
        assert record.critique.startswith('Step sentence:')
        assert record.response.startswith("Let's break it down step by step:\n")


def test_real_questions_are_those_of_their_source_and_refinements_are_right(shared_data):
    answers = {}
    for line in (shared_data / 'gsm8k' / 'train.jsonl').read_text(encoding='utf-8').split('\n'):
        if line:
            problem = json.loads(line)
            answers[problem['question'].strip()] = answer_lib.extract_answer(problem['answer'])
    released = record_files.read(shared_data / 'mathcritique' / 'gsm8k.json')
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        refined = verifier.check([(r.refinement, answers[r.question]) for r in released])
        attempts = verifier.check([(r.response, answers[r.question]) for r in released])
    assert collections.Counter(refined) == {'right': 50}
    assert collections.Counter(attempts) == {'wrong': 48, 'no_answer': 2}


# TFDS


@hypothesis.settings(max_examples=5)
@hypothesis.given(record_lists)
def test_records_survive_a_dataset(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp('dataset')
    record_files.write_jsonl(folder / 'r.jsonl', written)
    dataset = record_files.prepare(folder / 'r.jsonl', data_dir=folder / 'prepared')
    restored = record_files.read_dataset(dataset)
    assert list(restored) == written == record_files.read(folder / 'prepared')
    assert restored[-1] == written[-1] and restored[:1] == written[:1]
    assert 'tensorflow' not in sys.modules


def test_a_dataset_is_prepared_once_and_again_if_its_file_changes(tmp_path, capfd):
    path = tmp_path / 'my records.jsonl'
    record_files.write_jsonl(path, [KNOWN])
    first, again = (record_files.prepare(path, data_dir=tmp_path / 'd') for _ in range(2))
    assert first == again and list(first.glob('*.array_record*'))
    record_files.write_jsonl(path, [KNOWN, UNKNOWN])
    changed = record_files.prepare(path, data_dir=tmp_path / 'd')
    assert changed != first and list(record_files.read_dataset(changed)) == [KNOWN, UNKNOWN]
    with pytest.raises(ValueError, match='d contains 2 datasets'):
        record_files.read_dataset(tmp_path / 'd')
    assert capfd.readouterr() == ('', '')


def test_a_file_with_a_mistake_gives_no_dataset(tmp_path):
    path = write(tmp_path / 'bad.jsonl', '{}')
    with pytest.raises(ValueError, match='bad.jsonl:1'):
        record_files.prepare(path, data_dir=tmp_path / 'd')
    assert not (tmp_path / 'd').exists()


def test_critiques_survive_a_file_in_either_grammar(folder):
    critique = grammars.Critique((grammars.StepVerdict('a', False, 'b'),), False, 'c')
    written = [
        dataclasses.replace(KNOWN, critique=grammar.write(critique))
        for grammar in grammars.GRAMMARS.values()
    ]
    record_files.write_jsonl(folder / 'g.jsonl', written)
    for record in record_files.read(folder / 'g.jsonl'):
        assert grammars.grammar_of(record.critique).parse(record.critique) == critique
