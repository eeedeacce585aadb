"""The lab: properties of its problems, solutions, mistakes, judgements and teacher."""

import collections
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import grammars, mistakes
from elenchus.data.grading import answers
from elenchus.data.lab import arithmetic, conversations, forms, pretraining, task, teacher
from elenchus.data.text import tokenizer

SEEDS = st.integers(0, 2**31)
INDICES = st.integers(0, 10**6)
SPLITS = st.sampled_from(task.SPLITS)
FORM_NAMES = st.sampled_from(list(forms.FORMS))
QUESTION = 'eve 7 ; ida 2 ; ben : eve - 4 ; kim : ida + 6 ; hal : ben + 7 ; hal ?'


def attempt_of(*lines):
    """Returns an attempt from `name base base_value sign digit value` lines and an answer line."""
    *steps, answer = lines
    fields = [step.split() for step in steps]
    texts = [
        task.Step(name, base, sign, int(digit), int(base_value), int(value)).text()
        for name, base, base_value, sign, digit, value in fields
    ]
    return '\n '.join([*texts, answer])


SOLUTION = attempt_of('ben eve 7 - 4 3', 'kim ida 2 + 6 8', 'hal ben 3 + 7 0', '#### 0')


@st.composite
def problems(draw, splits=SPLITS, names=FORM_NAMES):
    form = forms.FORMS[draw(names)]
    return forms.generate_problem(
        seed=draw(SEEDS), split=draw(splits), index=draw(INDICES), form=form
    )


def form_of(problem):
    return next(f for f in forms.FORMS.values() if f.modulus == task.modulus(problem.question))


@hypothesis.given(SEEDS, SPLITS, INDICES)
def test_a_problem_is_a_function_of_seed_split_and_index(seed, split, index):
    first, second = (forms.generate_problem(seed=seed, split=split, index=index) for _ in range(2))
    assert first == second
    assert first != forms.generate_problem(seed=seed + 1, split=split, index=index)


@hypothesis.given(problems(st.sampled_from(task.SPLITS[:3])))
def test_a_question_belongs_to_one_split_whatever_the_seed(problem):
    assert task.split_of(problem.question) == problem.id.split('/')[2]


def test_splits_share_no_question():
    questions_of = {
        split: {
            forms.generate_problem(seed=seed, split=split, index=index).question
            for seed in range(3)
            for index in range(300)
        }
        for split in task.SPLITS
    }
    counts = collections.Counter(q for questions in questions_of.values() for q in questions)
    assert max(counts.values()) == 1


@hypothesis.given(problems())
def test_the_level_is_the_number_of_steps_needed_and_goes_round(problem):
    statements, name = task.parse_question(problem.question)
    needed, form = 0, form_of(problem)
    while name in statements and statements[name].base is not None:
        needed, name = needed + 1, statements[name].base
    assert problem.level == needed
    *_, split, index = problem.id.split('/')
    harder = form.ood_steps[int(index) % 2]
    assert problem.level == (harder if split == 'ood' else 1 + int(index) % form.levels)


def test_the_harder_split_is_longer_than_every_other():
    for form in forms.FORMS.values():
        assert min(form.ood_steps) > form.levels


@hypothesis.given(problems())
def test_the_reference_solution_works_through_every_statement_in_order(problem):
    statements = task.parse_question(problem.question)[0].values()
    names = [line.split()[0] for line in problem.solution.split('\n')[:-1]]
    assert names == [s.name for s in statements if s.base is not None]


@hypothesis.given(problems())
def test_the_reference_solution_is_judged_correct(problem):
    judgement = task.judge(problem.question, problem.solution)
    assert judgement.correct and judgement.kind is None
    assert answers.extract_answer(problem.solution) == problem.answer
    target = task.parse_question(problem.question)[1]
    assert task.known_values(problem.question)[target] == arithmetic.read(problem.answer)


@pytest.mark.parametrize(
    ('lines', 'first_error', 'kind'),
    [
        (['ben eve 7 - 4 3', 'hal ben 3 + 7 0', '#### 0'], None, None),
        (['ben eve 7 + 4 1', 'hal ben 1 + 7 8', '#### 8'], 0, 'operation'),
        (['ben eve 7 - 5 2', 'hal ben 2 + 7 9', '#### 9'], 0, 'operand'),
        (['ben eve 7 - 4 3', 'hal kim 8 + 7 5', '#### 5'], 1, 'operand'),
        (['ben eve 7 - 4 3', 'hal ben 3 + 7 1', '#### 1'], 1, 'arithmetic'),
        (['ben eve 7 - 4 3', 'hal ben 2 + 7 9', '#### 9'], 1, 'operand'),
        (['hal ben 3 + 7 0', '#### 0'], 0, 'skipped'),
        (['ben eve 7 - 4 3', '#### 0'], 1, 'skipped'),
        (['ben eve 7 - 4 3', 'hal ben 3 + 7 0', '#### 3'], 2, 'target'),
        (['ben eve 7 - 4 3', 'hal ben 3 + 7 0', '0'], 2, 'target'),
        (['kim ida 2 + 6 8', 'ben eve 7 - 4 3', 'hal ben 3 + 7 0', '#### 0'], None, None),
        (['ben eve 7 - 4 3', 'kim ida 2 + 6 7', 'hal ben 3 + 7 0', '#### 0'], 1, 'arithmetic'),
        (['#### 0'], 0, 'skipped'),
        ([''], 0, 'skipped'),
    ],
)
def test_the_first_wrong_line_and_its_kind_are_known(lines, first_error, kind):
    judgement = task.judge(QUESTION, attempt_of(*lines))
    assert (judgement.first_error, judgement.kind) == (first_error, kind)


@hypothesis.given(
    st.one_of(st.text(), st.lists(st.sampled_from([*task.WORDS, '\n'])).map(' '.join))
)
@hypothesis.example(SOLUTION)
def test_any_text_at_all_is_judged(attempt):
    judgement = task.judge(QUESTION, attempt)
    assert judgement.correct == (judgement.kind is None) == (judgement.first_error is None)
    if judgement.correct:
        assert answers.extract_answer(attempt) == '0'


@hypothesis.given(problems(), st.randoms(use_true_random=False))
def test_the_critique_agrees_with_the_judgement(problem, rng):
    for attempt in (problem.solution, mistakes.corrupt(problem, rng=rng)):
        judgement = task.judge(problem.question, attempt)
        critique = grammars.LAB.parse(judgement.critique)
        assert critique.final_correct is judgement.correct
        wrong_step = grammars.first_error(critique)
        last = len(attempt.split('\n')) - 1
        at_answer = judgement.first_error in (None, last)
        assert wrong_step == (None if at_answer else judgement.first_error)


@hypothesis.given(problems(), st.randoms(use_true_random=False))
def test_the_closed_vocabulary_holds_every_text(problem, rng):
    words = tokenizer.lab_tokenizer()
    flawed = mistakes.corrupt(problem, rng=rng)
    for text in (
        problem.question,
        problem.solution,
        flawed,
        pretraining.worked_solution(problem.question),
        task.judge(problem.question, problem.solution).critique,
        task.judge(problem.question, flawed).critique,
    ):
        ids = words.encode(text)
        assert words.special('<unk>') not in ids
        assert words.decode(ids) == text


@hypothesis.given(problems())
def test_a_worked_solution_works_out_every_quantity(problem):
    worked = pretraining.worked_solution(problem.question)
    values = task.known_values(problem.question)
    *steps, answer = worked.split('\n ')
    results = {line.split(' ')[0]: arithmetic.read(line.split()[-1]) for line in steps}
    assert results.items() <= values.items()
    stated = [s for s in task.parse_question(problem.question)[0].values() if s.base is not None]
    assert len(steps) == len(stated)
    assert answer.endswith(f' {problem.answer}')


@hypothesis.given(INDICES)
def test_a_drill_looks_up_every_digit_and_its_sums_hold(index):
    question, text = pretraining.drill(index)
    *digits, _ = question.split(' ; ')
    lines = [line.split(' ; ') for line in text.split('\n ')]
    assert sorted(looked_up for looked_up, _ in lines) == sorted(digits)
    for looked_up, equation in lines:
        terms, right = equation.split(' = ')
        value, sign, digit = terms.split()
        total = int(value) + (int(digit) if sign == '+' else -int(digit))
        assert value == looked_up.split()[1] and total % 10 == int(right)


@hypothesis.given(problems(), st.randoms(use_true_random=False))
def test_a_verdict_follows_from_the_difference_that_stands_before_it(problem, rng):
    critique = task.judge(problem.question, mistakes.corrupt(problem, rng=rng)).critique
    for line in critique.split('\n '):
        body, _, verdict = line.rpartition(' ; ')
        assert verdict != 'correct' or body.endswith(('= 0', '= 00'))


@hypothesis.given(
    problems(names=st.just('digits')), st.randoms(use_true_random=False), st.integers(0, 9)
)
def test_the_first_lines_of_a_demonstration_are_right_on_request(problem, rng, num_correct):
    question = problem.question
    assert teacher.demonstrate(question, error_rate=0.0, rng=rng) == problem.solution
    attempt = teacher.demonstrate(question, error_rate=1.0, rng=rng, num_correct=num_correct)
    judgement = task.judge(question, attempt)
    assert judgement.correct or judgement.first_error >= num_correct
    assert judgement.kind in (None, 'arithmetic')


def test_misconceptions_are_about_the_same_share_of_sums_for_all_teachers():
    sample = [forms.generate_problem(seed=0, split='train', index=i) for i in range(1500)]

    def mistaken_sums(seed):
        rng, sums = random.Random(seed), set()
        for problem in sample:
            attempt = teacher.demonstrate(problem.question, error_rate=0.3, rng=rng)
            at = task.judge(problem.question, attempt).first_error
            if at is not None:
                step = task.parse_step(attempt.split('\n')[at])
                sums.add((step.base_value, step.sign, step.number))
        return sums

    one, other = mistaken_sums(0), mistaken_sums(1)
    assert len(one & other) > 0.8 * len(one | other)
    assert 0.2 < len(one | other) / 180 < 0.4


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="split='tets'"):
        forms.generate_problem(seed=0, split='tets', index=0)


# The tail form

TAIL = problems(names=st.just('tail'))
DIGITS = st.integers(0, 99)


@hypothesis.given(DIGITS, st.sampled_from('+-*'), DIGITS)
def test_an_operation_worked_out_in_digits_has_true_parts_and_the_right_end(first, sign, second):
    second = second % 10 if sign == '*' else second
    value = arithmetic.apply(first, sign, second, modulus=100)
    parts = [p.split() for p in arithmetic.work_out(first, sign, second, modulus=100).split(' ; ')]
    for a, by, b, _, result in parts:
        unit = arithmetic.apply(int(a), by, int(b), modulus=10)
        carry = int(int(a) < int(b))
        if by != '-':
            carry = arithmetic.apply(int(a), by, int(b), modulus=100) // 10
        assert result == f'{unit}{carry}'
    assert (int(parts[0][4][0]), int(parts[2][4][0])) == (value % 10, value // 10)


@hypothesis.given(DIGITS, st.sampled_from('+-'), DIGITS, DIGITS)
def test_a_false_derivation_ends_in_its_value(first, sign, second, result):
    text = arithmetic.work_out(first, sign, second, modulus=100, result=result)
    units, _, last = (part.split(' = ')[1] for part in text.split(' ; '))
    assert arithmetic.read(units[0] + last[0]) == result


@hypothesis.given(TAIL, st.integers().map(random.Random))
def test_demonstrations_of_one_question_differ_and_are_right(problem, rng):
    texts = {conversations.demonstrate(problem.question, rng=rng) for _ in range(40)}
    assert all(task.judge(problem.question, text).correct for text in texts)
    statements, _ = task.parse_question(problem.question)
    assert len(texts) > 1 or sum(s.base is not None for s in statements.values()) == problem.level


@hypothesis.given(TAIL, st.randoms(use_true_random=False))
def test_a_refinement_takes_over_the_value_of_its_critique(problem, rng):
    talk = conversations.converse(problem, rng=rng)
    critique = grammars.LAB.parse(talk.critique)
    at = grammars.first_error(critique)
    if at is None:
        return
    words = critique.steps[at].explanation.split(' ; ')
    derived = words[-1].split()[1] if words[-1].split()[-1] != '?' else None
    name = critique.steps[at].sentence.split()[0]
    quoted = critique.steps[at].sentence
    step = next(
        (s for s in map(task.parse_step, talk.refinement.split('\n')) if s and s.name == name), None
    )
    statement = task.parse_question(problem.question)[0].get(name)
    if derived and statement and statement.text() == quoted:
        assert arithmetic.write(step.value, 100) == derived
    elif derived:  # the question shows that the critique misquotes it
        assert talk.refinement == talk.attempt
    before = talk.attempt.split('\n')[:at]
    assert [line.strip() for line in talk.refinement.split('\n')[:at]] == [
        b.strip() for b in before
    ]


def test_half_of_the_critiques_cannot_be_guessed_from_question_and_attempt():
    counts = collections.Counter()
    for index in range(800):
        problem = forms.generate_problem(
            seed=0, split='train', index=index, form=forms.FORMS['tail']
        )
        talk = conversations.converse(problem, rng=random.Random(index))
        hidden = bool(task.unstated_constants(problem.question))
        judgement = task.judge(problem.question, talk.refinement)
        misquoted = talk.attempt == talk.refinement
        counts['unknown' if hidden or not (judgement.correct or misquoted) else 'known'] += 1
        counts['misquoted'] += misquoted
    assert 0.45 < counts['unknown'] / 800 < 0.65
    assert 0.07 < counts['misquoted'] / 800 < 0.13


def test_only_critiques_tell_a_constant_that_the_question_does_not_state():
    problem = next(
        p
        for i in range(7, 800, 8)
        if task.unstated_constants(
            (
                p := forms.generate_problem(
                    seed=0, split='train', index=i, form=forms.FORMS['tail']
                )
            ).question
        )
    )
    (name,) = task.unstated_constants(problem.question)
    told = {
        arithmetic.read(c.refinement.split(f'{name} ')[1].split()[0])
        for c in (conversations.converse(problem, rng=random.Random(i)) for i in range(200))
    }
    assert len(told) > 60
