"""Inserted mistakes have the requested kind and line and are never right by chance."""

import collections
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.critiques import mistakes
from elenchus.data.grading import answers
from elenchus.data.lab import forms, task

SOLUTION = (
    'She sold 48/2 = 24 clips in May.\n'
    'That is 48+24 = 72 clips altogether.\n'
    'After 72 - 2 = 70 were taken back, 70 remain.\n'
    '#### 70'
)
QUESTION = 'Natalia sold 48 clips in April, then half as many. 2 came back. How many were kept?'
PROBLEM = records.Problem('p', QUESTION, '70', SOLUTION, 3, 'gsm8k')
LINES = SOLUTION.split('\n')
RNGS = st.randoms(use_true_random=False)


@st.composite
def lab_problems(draw):
    split, index = draw(st.sampled_from(task.SPLITS)), draw(st.integers(0, 10**6))
    return forms.generate_problem(seed=draw(st.integers(0, 99)), split=split, index=index)


def judge_prefix(problem, lines):
    """Judges an unfinished attempt; an empty line replaces its missing answer."""
    attempt = lines if lines[-1].startswith((' ####', '####')) else [*lines, '']
    return task.judge(problem.question, '\n'.join(attempt))


def places(problem, *, rng):
    """Yields (line, kind, result of insert) for every line and kind of the reference."""
    lines = problem.solution.split('\n')
    for at in range(len(lines)):
        for kind in mistakes.kinds(problem):
            yield at, kind, mistakes.insert(problem, lines, at, kind=kind, rng=rng)


@hypothesis.given(lab_problems(), RNGS)
def test_a_lab_mistake_is_of_its_kind_and_at_its_line(problem, rng):
    lines = problem.solution.split('\n')
    for at, kind, prefix in places(problem, rng=rng):
        if prefix is not None:
            assert prefix[:-1] == lines[:at] and prefix[at] != lines[at]
            judgement = judge_prefix(problem, prefix)
            assert (judgement.first_error, judgement.kind) == (at, kind)


@hypothesis.given(lab_problems(), RNGS)
def test_each_lab_step_can_be_mistaken_and_only_the_answer_line_can_miss_the_target(problem, rng):
    possible = {(at, kind) for at, kind, prefix in places(problem, rng=rng) if prefix is not None}
    last = problem.solution.count('\n')
    steps = set(range(last))
    for kind in ('operation', 'operand', 'arithmetic'):
        assert {at for at, possible_kind in possible if possible_kind == kind} == steps
    assert {at for at, kind in possible if kind == 'target'} <= {last}
    assert {at for at, kind in possible if kind == 'skipped'} <= steps


@hypothesis.given(lab_problems(), RNGS)
def test_what_is_skipped_is_what_the_next_line_needs(problem, rng):
    lines = problem.solution.split('\n')
    target = task.parse_question(problem.question)[1]
    for at in range(len(lines) - 1):
        missing, after = task.parse_step(lines[at]).name, task.parse_step(lines[at + 1])
        needed = after.base == missing if after else target == missing and at > 0
        prefix = mistakes.insert(problem, lines, at, kind='skipped', rng=rng)
        assert (prefix is not None) == needed
        if prefix and after:
            assert task.parse_step(prefix[at]).name == after.name
            assert prefix[at].startswith(' ') == (at > 0)


@hypothesis.given(lab_problems(), RNGS)
def test_a_corrupted_lab_solution_is_wrong_where_it_first_differs(problem, rng):
    attempt = mistakes.corrupt(problem, rng=rng)
    judgement = task.judge(problem.question, attempt)
    assert not judgement.correct and judgement.kind in task.MISTAKE_KINDS
    pairs = zip(problem.solution.split('\n'), attempt.split('\n'), strict=False)
    changed = [i for i, (old, new) in enumerate(pairs) if old != new]
    assert judgement.first_error == changed[0]


@hypothesis.given(lab_problems(), RNGS)
def test_the_rest_of_a_lab_attempt_follows_from_the_mistake(problem, rng):
    attempt = mistakes.corrupt(problem, rng=rng).split('\n')
    at = task.judge(problem.question, '\n'.join(attempt)).first_error
    statements, target = task.parse_question(problem.question)
    values = {s.name: s.digit for s in statements.values() if s.base is None}
    for i, line in enumerate(attempt[:-1]):
        step = task.parse_step(line)
        if i > at:
            assert step.value == statements[step.name].value(values[step.base])
        values[step.name] = step.value
    if at < len(attempt) - 1:
        assert attempt[-1] == f' #### {values[target]}'


def test_every_kind_of_lab_mistake_occurs():
    rng = random.Random(0)
    kinds = collections.Counter()
    for index in range(200):
        problem = forms.generate_problem(seed=0, split='train', index=index)
        kinds[task.judge(problem.question, mistakes.corrupt(problem, rng=rng)).kind] += 1
    assert set(kinds) == set(task.MISTAKE_KINDS)
    assert min(kinds.values()) >= 20


@hypothesis.given(RNGS)
def test_a_flawed_text_differs_from_the_reference_in_one_line(rng):
    flawed = mistakes.corrupt(PROBLEM, rng=rng)
    pairs = zip(LINES, flawed.split('\n'), strict=True)
    assert sum(old != new for old, new in pairs) == 1


@pytest.mark.parametrize(
    'problem',
    [PROBLEM, forms.generate_problem(seed=0, split='train', index=4)],
    ids=lambda p: p.source,
)
def test_the_same_random_state_makes_the_same_mistakes(problem):
    assert len({mistakes.corrupt(problem, rng=random.Random(7)) for _ in range(3)}) == 1
    first, second = (list(places(problem, rng=random.Random(7))) for _ in range(2))
    assert first == second


def test_a_solution_without_numbers_cannot_be_corrupted():
    problem = records.Problem('q', 'Who?', 'Ann', 'It was Ann.', 1, 'jsonl')
    with pytest.raises(ValueError, match='q: the solution has no number'):
        mistakes.corrupt(problem, rng=random.Random(0))


@hypothesis.given(RNGS, st.integers(0, len(LINES) - 1))
def test_exactly_one_number_of_the_line_changes(rng, at):
    prefix = mistakes.insert(PROBLEM, LINES, at, kind='number', rng=rng)
    old, new = answers.numbers(LINES[at]), answers.numbers(prefix[at])
    assert prefix[:-1] == LINES[:at]
    assert sum(a != b for a, b in zip(old, new, strict=True)) == 1


@pytest.mark.parametrize('line', ['The point is (5,99).', 'Either 7,995 or 8,999', 'At 3.9,95'])
def test_a_changed_number_does_not_join_its_neighbour(line):
    for seed in range(60):
        lines = mistakes.insert(PROBLEM, [line], 0, kind='number', rng=random.Random(seed))
        changed = zip(answers.numbers(line), answers.numbers(lines[0]), strict=True)
        assert sum(a != b for a, b in changed) == 1


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('It costs $1,200 now.', {'It costs $1,201 now.', 'It costs $1,202 now.'}),
        ('Step 3: there are 9.50 left.', {'Step 3: there are 10.50 left.'}),
        ('2. So 0 * 5 = 0', {'2. So 1 * 5 = 0', '2. So 0 * 5 = 1'}),
        ('Nothing is counted.', {None}),
    ],
)
def test_numbers_keep_their_form_and_numbering_and_true_equations_stay(line, expected):
    texts = {
        prefix and prefix[0]
        for seed in range(60)
        for prefix in [
            mistakes.insert(PROBLEM, [line, '#### 1'], 0, kind='number', rng=random.Random(seed))
        ]
    }
    assert expected <= texts
    assert all(text is None or not text.startswith(('Step 4', '3.')) for text in texts)
    assert not {'2. So 0 * 6 = 0', '2. So 0 * 7 = 0', '2. So 0 * 15 = 0'} & texts


@pytest.mark.parametrize(
    ('line', 'exchanged'),
    [
        ('She sold 48/2 = 24 clips; 24 is half.', 'She sold 2/48 = 0.04 clips; 0.04 is half.'),
        ('He has $10 - $3 = $7 left.', 'He has $3 - $10 = $-7 left.'),
        ('48 + 24 = 72', None),
        ('3 * 4 = 12', None),
        ('5 - 5 = 0', None),
        ('5 / 5 = 1', None),
        ('0 / 5 = 0', None),
        ('10 - 3 - 2 = 5', None),
        ('10 - 3 = 8', None),
        ('It takes 2-3 days.', None),
    ],
)
def test_only_operands_that_do_not_commute_are_exchanged(line, exchanged):
    prefix = mistakes.insert(PROBLEM, [line, '#### 1'], 0, kind='operands', rng=random.Random(0))
    assert prefix == (exchanged and [exchanged])


def test_a_line_is_dropped_where_the_next_one_uses_what_it_alone_reached():
    prefix = [
        mistakes.insert(PROBLEM, LINES, i, kind='dropped', rng=random.Random(0)) for i in range(4)
    ]
    assert prefix == [[LINES[1]], [LINES[0], LINES[2]], None, None]
    problem = records.Problem('p', f'{QUESTION} 24?', '70', SOLUTION, 3, 'gsm8k')
    assert mistakes.insert(problem, LINES, 0, kind='dropped', rng=random.Random(0)) is None


@hypothesis.given(st.lists(st.text(), min_size=1), RNGS, st.data())
def test_any_text_at_all_is_changed_or_refused(lines, rng, data):
    at = data.draw(st.integers(0, len(lines) - 1))
    for kind in mistakes.TEXT_KINDS:
        prefix = mistakes.insert(PROBLEM, lines, at, kind=kind, rng=rng)
        assert prefix is None or prefix[:-1] == lines[:at]


def test_an_unknown_kind_or_line_is_refused():
    with pytest.raises(
        ValueError, match="unknown kind='operand'; valid: .*; did you mean 'operands'"
    ):
        mistakes.insert(PROBLEM, LINES, 0, kind='operand', rng=random.Random(0))
    with pytest.raises(ValueError, match='at=4 must be an index of the lines, 0 to 3'):
        mistakes.insert(PROBLEM, LINES, 4, kind='number', rng=random.Random(0))
