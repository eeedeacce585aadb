"""Annotators: the oracle's critiques and critiques from files."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.critiques import grammars, mistakes, oracle, record_files
from elenchus.data.lab import forms, task
from elenchus.data.text import tokenizer
from tests.support import problem_lines

SOLUTION = 'She sold 48/2 = 24 clips in May.\nThat is 48+24 = 72 clips altogether.\n#### 72'
PROBLEM = records.Problem('p', 'How many clips?', '72', SOLUTION, 2, 'gsm8k')
LAB_PROBLEM = forms.generate_problem(seed=0, split='train', index=4)
RNGS = st.randoms(use_true_random=False)


def parsed(attempt, problem=PROBLEM):
    return grammars.RELEASED.parse(oracle.annotate(problem, attempt))


def test_the_reference_solution_passes_step_by_step():
    critique = parsed(SOLUTION)
    assert [step.correct for step in critique.steps] == [True, True]
    assert critique.final_correct is True


def test_the_critique_stops_at_the_first_step_that_leaves_the_reference():
    critique = parsed('She sold 48/2 = 25 clips.\nSo 48+25 = 73.\n#### 73')
    assert [step.correct for step in critique.steps] == [False]
    assert critique.final_correct is False


@pytest.mark.parametrize('last', ['#### 71', '72', '', '####'])
def test_a_wrong_or_missing_answer_is_wrong(last):
    critique = parsed(f'She sold 48/2 = 24 clips in May.\n{last}')
    assert grammars.first_error(critique) is None
    assert critique.final_correct is False


@pytest.mark.parametrize('ending', ['\n', '\n\n ', '\nI hope that this helps!'])
def test_an_answer_counts_whatever_follows_it(ending):
    critique = parsed(SOLUTION + ending)
    assert critique.final_correct and all(step.correct for step in critique.steps)
    assert critique.final_explanation == 'The answer is 72.'


def test_commas_do_not_hide_a_number():
    problem = records.Problem('r', '?', '1200', 'It is 600*2 = 1200.\n#### 1200', 1, 'gsm8k')
    assert parsed('It is 600*2 = 1,200.\n#### 1,200', problem).final_correct is True


def test_a_step_without_a_number_contradicts_nothing():
    critique = parsed(f'Let x be what she sold.\n{SOLUTION}')
    assert [step.correct for step in critique.steps] == [True] * 3 and critique.final_correct


@hypothesis.given(st.text())
def test_any_attempt_gets_a_critique_with_a_final_verdict(attempt):
    assert parsed(attempt).final_correct in (True, False)


@hypothesis.given(RNGS)
def test_on_the_lab_the_annotator_is_the_judge(rng):
    attempt = mistakes.corrupt(LAB_PROBLEM, rng=rng)
    judgement = task.judge(LAB_PROBLEM.question, attempt)
    assert oracle.annotate(LAB_PROBLEM, attempt) == judgement.critique


def constructed(attempt, construction, location=None, kind=None, problem=PROBLEM):
    return oracle.ConstructedAttempt(problem, attempt, construction, location, kind)


@hypothesis.given(RNGS, st.integers(0, 1), st.sampled_from(mistakes.TEXT_KINDS))
def test_the_line_of_a_known_mistake_is_the_first_wrong_step(rng, at, kind):
    prefix = mistakes.insert(PROBLEM, SOLUTION.split('\n'), at, kind=kind, rng=rng)
    if prefix is not None:
        attempt = '\n'.join([*prefix, '#### 72'])
        (text,) = oracle.oracle([constructed(attempt, 'RG3', at, kind)])
        critique = grammars.RELEASED.parse(text)
        assert grammars.first_error(critique) == at == len(critique.steps) - 1
        assert critique.final_correct is False


def test_lines_before_a_resampled_line_are_right_and_later_ones_are_compared():
    attempt = 'She sold 31 clips.\nThat is 33 clips.\n#### 33'
    texts = {
        location: oracle.oracle([constructed(attempt, 'RG2', location)])[0]
        for location in (None, 0, 1, 2)
    }
    read = {location: grammars.RELEASED.parse(text) for location, text in texts.items()}
    assert {k: grammars.first_error(c) for k, c in read.items()} == {None: 0, 0: 0, 1: 1, 2: None}
    assert not any(critique.final_correct for critique in read.values())


def test_a_resampled_step_may_still_be_right():
    critique = grammars.RELEASED.parse(oracle.oracle([constructed(SOLUTION, 'RG2', 0)])[0])
    assert critique.final_correct and all(step.correct for step in critique.steps)


def test_without_a_reference_solution_the_oracle_writes_no_critique():
    problem = records.Problem('q', 'How many?', '72', '', 0, 'jsonl')
    known, unknown = constructed(SOLUTION, 'RG1'), constructed(SOLUTION, 'RG1', problem=problem)
    assert oracle.oracle([unknown, known, unknown])[::2] == [None, None]
    with pytest.raises(ValueError, match='q: the oracle needs a reference solution'):
        oracle.annotate(problem, SOLUTION)


def write(path, *records_of_file):
    path.write_text(''.join(json.dumps(fields) + '\n' for fields in records_of_file))
    return path


def test_critiques_of_a_file_match_by_id_or_question_and_attempt(tmp_path):
    file = write(
        tmp_path / 'critiques.jsonl',
        {'problem_id': 'p', 'question': 'Other?', 'response': SOLUTION, 'critique': 'by id'},
        {'question': ' How many\nclips?', 'response': ' x ', 'critique': 'by question'},
    )
    critiques = oracle.from_file(file)(
        [constructed(attempt, 'RG1') for attempt in (SOLUTION, 'x', 'y')]
        + [constructed('x', 'RG1', problem=LAB_PROBLEM)]
    )
    assert critiques == ['by id', 'by question', None, None]


def test_released_critiques_match_their_own_records(shared_data):
    file = shared_data / 'mathcritique' / 'gsm8k.json'
    written = record_files.read(file)
    attempts = [
        constructed(
            record.response,
            'RG1',
            problem=records.Problem(f'gsm8k/train/{i}', record.question, '', '', 0, 'gsm8k'),
        )
        for i, record in enumerate(written)
    ]
    assert oracle.from_file(file)(attempts) == [record.critique for record in written]


def test_two_critiques_of_one_attempt_are_refused(tmp_path):
    fields = {'question': 'Q?', 'response': 'x', 'critique': 'one'}
    oracle.from_file(write(tmp_path / 'same.jsonl', fields, fields))
    with pytest.raises(ValueError, match="two critiques of one attempt at 'Q\\?'"):
        oracle.from_file(write(tmp_path / 'two.jsonl', fields, fields | {'critique': 'two'}))


def test_real_solutions_pass_and_their_verdicts_have_positions(shared_data):
    path = shared_data / 'gsm8k' / 'train.jsonl'
    with path.open(encoding='utf-8') as lines:
        read = [
            problem_lines.parse('gsm8k', line, id=str(i))
            for i, line in zip(range(50), lines, strict=False)
        ]
    critiques = [oracle.annotate(p, p.solution) for p in read]
    model = tokenizer.train_tokenizer(critiques, vocab_size=600, model_type='bpe')
    tok = tokenizer.SentencePieceTokenizer.from_bytes(model)
    passed = 0
    for text in critiques:
        critique = grammars.RELEASED.parse(text)
        offsets = grammars.RELEASED.read(text).offsets
        *steps, final = grammars.token_positions(tok.encode(text), offsets, tokenizer=tok)
        assert len(steps) == len(critique.steps) and None not in (*steps, final)
        passed += critique.final_correct
    assert passed == len(critiques)
