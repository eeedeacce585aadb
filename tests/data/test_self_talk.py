"""Self-talk as text: joining, splitting, and the attempt that it ends with."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.critiques import grammars, mistakes, oracle, self_talk
from elenchus.data.critiques.self_talk import RemarkedLine
from elenchus.data.grading import answers
from elenchus.data.lab import forms, task
from elenchus.data.records import Problem
from elenchus.data.text import tokenizer

LAB, RELEASED, WORKED = grammars.LAB, grammars.RELEASED, grammars.WORKED
TEXT = Problem(
    'text',
    'Ann has 3 bags of 4 apples and eats 2. How many are left?',
    '10',
    '3 * 4 = 12 apples.\n12 - 2 = 10 are left.\n#### 10',
    1,
    'gsm8k',
)
indices = st.integers(0, 400)


def lab_problem(index):
    return forms.generate_problem(seed=0, split='train', index=index)


def remarked(problem, attempt, grammar):
    critique = grammar.parse(oracle.annotate(problem, attempt))
    return self_talk.lines_with_remarks(attempt, critique, grammar)


def corrected_talk(problem, flawed, grammar):
    """Returns a talk that continues with the reference after its first wrong line."""
    wrong = remarked(problem, flawed, grammar)
    return [*wrong, *remarked(problem, problem.solution, grammar)[len(wrong) - 1 :]]


@given(indices)
def test_a_talk_ends_at_the_first_error_and_comes_to_the_solution(index):
    problem = lab_problem(index)
    flawed = mistakes.corrupt(problem, rng=random.Random(index))
    wrong = remarked(problem, flawed, LAB)
    first_error = task.judge(problem.question, flawed).first_error
    assert [self_talk.verdict_of(part, LAB) for part in wrong] == [True] * first_error + [False]
    parts = corrected_talk(problem, flawed, LAB)
    text = self_talk.join(parts, LAB)
    assert self_talk.split(text, LAB) == parts
    assert self_talk.corrected_attempt(text, LAB) == problem.solution
    assert self_talk.count_corrections(text, LAB) == 1
    lines = [line.strip() for line in text.split('\n')]
    wrong_lines = [
        line for line, bad in zip(lines, self_talk.rejected_lines(text, LAB), strict=True) if bad
    ]
    assert wrong_lines == [flawed.split('\n')[first_error].strip()]
    coder = tokenizer.lab_tokenizer()
    assert coder.decode(coder.encode(text)) == text


@pytest.mark.parametrize(
    'flawed',
    [
        '3 * 4 = 13 apples.\n13 - 2 = 11 are left.\n#### 11',
        '3 * 4 = 12 apples.\n\n12 - 2 = 10 are left.\n#### 12',
    ],
)
@pytest.mark.parametrize('grammar', [RELEASED, WORKED])
def test_free_text_has_labelled_remarks_which_hold_no_answer(flawed, grammar):
    parts = corrected_talk(TEXT, flawed, grammar)
    text = self_talk.join(parts, grammar)
    assert self_talk.split(text, grammar) == parts and '\n\n' not in text
    assert self_talk.corrected_attempt(text, grammar) == TEXT.solution
    assert self_talk.count_corrections(text, grammar) == 1
    assert parts[-1].line == '#### 10' and 'The answer is 10' in parts[-1].remark


def test_the_answer_is_that_of_the_last_answer_line():
    answer = lambda *lines: answers.extract_answer(  # noqa: E731
        self_talk.corrected_attempt('\n '.join(lines), LAB)
    )
    assert answer('#### 3', 'answer : ben 3 - 4 = 9 ; wrong', '#### 4') == '4'
    assert answer('#### 3', 'answer : ben 3 - 4 = 9 ; wrong') == '3'
    assert (
        answer('#### 3', 'answer : ben 3 - 3 = 0 ; correct', 'ben : eve 7 - 4 = 3 ; ben 3') == '3'
    )
    assert answer('#### 3', '#### 4', 'answer : ben 3 - 4 = 9 ; wrong') == '4'
    assert answer('answer : ben 3 - 3 = 0 ; correct') is None


@pytest.mark.parametrize(
    'critique',
    [
        'ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3 - 3 = 0 ; perhaps\n answer : correct',
        'ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3 - 3 = 0 ; correct',
        'answer : correct',
    ],
)
def test_a_line_without_a_clear_verdict_makes_no_talk(critique):
    attempt = 'ben : eve 7 - 4 = 3 ; ben 3\n #### 3'
    assert self_talk.lines_with_remarks(attempt, LAB.parse(critique), LAB) is None


def test_a_line_that_reads_like_a_remark_makes_no_talk():
    attempt = 'ben ; correct\n #### 3'
    critique = LAB.parse('ben ; eve 7 ; wrong\n answer : wrong')
    assert self_talk.lines_with_remarks(attempt, critique, LAB) is None


def test_words_before_the_first_line_are_kept():
    parts = self_talk.split('answer : 3 ; correct\n ben 3', LAB)
    assert parts == [RemarkedLine('', 'answer : 3 ; correct'), RemarkedLine('ben 3', '')]
