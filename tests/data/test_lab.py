"""The lab: properties of its problems, solutions, mistakes, judgements and teacher."""

import collections
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import grammars, mistakes
from elenchus.data.grading import answers
from elenchus.data.lab import conversations, forms, pretraining, task
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
    index = draw(INDICES)
    return forms.generate_problem(seed=draw(SEEDS), split=draw(splits), index=index, form=form)


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


@hypothesis.given(FORM_NAMES, SPLITS, INDICES)
def test_the_level_is_the_number_of_steps_needed_and_goes_round(name, split, index):
    form = forms.FORMS[name]
    problem = forms.generate_problem(seed=0, split=split, index=index, form=form)
    statements, name = task.parse_question(problem.question)
    needed = 0
    while (base := statements[name].base) is not None:
        needed, name = needed + 1, base
    assert problem.level == needed
    harder = form.ood_steps[index % 2]
    assert problem.level == (harder if split == 'ood' else 1 + index % form.levels)


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
    assert task.known_values(problem.question)[task.parse_question(problem.question)[1]] == int(
        problem.answer
    )


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
    results = {line.split(' ')[0]: int(line[-1]) for line in steps}
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
        assert verdict != 'correct' or body.endswith('= 0')


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="split='tets'"):
        forms.generate_problem(seed=0, split='tets', index=0)


# The tail form

TAIL = problems(names=st.just('tail'))
RANDOM = st.integers(0, 2**32).map(random.Random)


def tail_problem(index):
    return forms.generate_problem(seed=0, split='train', index=index, form=forms.FORMS['tail'])


CONSTANT = 'eve 7 ; ben : eve - gold ; hal : ben + 7 ; hal ?'


@pytest.mark.parametrize(
    ('line', 'kind'),
    [
        ('ben : eve 7 - gold {right} = {result} ; ben {result}', None),
        ('ben : eve 7 - gold {wrong} = {other} ; ben {other}', 'fact'),
        ('ben : eve 7 - iron {right} = {result} ; ben {result}', 'operand'),
        ('ben : eve 7 - {right} = {result} ; ben {result}', 'operand'),
        ('ben : eve 7 - gold {right} = {other} ; ben {other}', 'arithmetic'),
        ('ben : eve 7 + gold {right} = {total} ; ben {total}', 'operation'),
    ],
)
def test_a_wrong_constant_is_a_mistake_of_its_own_kind(line, kind):
    right = task.CONSTANTS['gold']
    values = {'right': right, 'wrong': (right + 1) % 10, 'result': (7 - right) % 10}
    values |= {'other': (6 - right) % 10, 'total': (7 + right) % 10}
    judgement = task.judge(CONSTANT, f'{line.format(**values)}\n #### 0')
    assert judgement.first_error == (0 if kind else 1)
    assert judgement.kind == (kind or 'skipped')
    assert f'gold {right} ; 7 - {right} = {(7 - right) % 10}' in judgement.critique


def test_a_question_may_state_another_value_of_a_constant():
    assert task.constants_of(CONSTANT) == ['gold']
    assert task.constants_of(f'gold 4 ; {CONSTANT}') == []
    assert task.known_values(f'gold 4 ; {CONSTANT}')['ben'] == 3


def test_hard_questions_need_rare_constants():
    ranks = collections.defaultdict(list)
    for index in range(1600):
        problem = tail_problem(index)
        for name in task.constants_of(problem.question):
            ranks[problem.level].append(task.THINGS.index(name))
    form = forms.FORMS['tail']
    assert max(ranks[1]) == form.first_ranks - 1
    assert max(ranks[8]) == form.last_ranks - 1 < len(task.THINGS)
    means = [sum(ranks[level]) / len(ranks[level]) for level in range(1, 9)]
    assert means == sorted(means)


@hypothesis.given(TAIL, RANDOM)
def test_demonstrations_of_one_question_differ_and_are_right(problem, rng):
    texts = {conversations.demonstrate(problem.question, rng=rng) for _ in range(100)}
    assert all(task.judge(problem.question, text).correct for text in texts)
    statements, _ = task.parse_question(problem.question)
    num_steps = sum(statement.base is not None for statement in statements.values())
    assert len(texts) > 1 or num_steps == problem.level


@hypothesis.given(TAIL, RANDOM)
def test_a_refinement_takes_over_the_value_of_its_critique(problem, rng):
    talk = conversations.converse(problem, rng=rng)
    critique = grammars.LAB.parse(talk.critique)
    at = grammars.first_error(critique)
    if at is None:
        return
    sentence, explanation = critique.steps[at].sentence, critique.steps[at].explanation
    name = sentence.split()[0]
    statement = task.parse_question(problem.question)[0].get(name)
    lines = [line.strip() for line in talk.refinement.split('\n')]
    before = [line.strip() for line in talk.attempt.split('\n')[:at]]
    assert lines[:at] == before
    if statement is not None and statement.text() != sentence and statement.base is not None:
        assert talk.refinement == talk.attempt  # the question shows that the critique misquotes it
    elif ' = ' in explanation:
        derived = explanation.split(' = ')[1].split()[0]
        (line,) = (line for line in lines if line.startswith(f'{name} :'))
        assert line.endswith(f'; {name} {derived}')


@hypothesis.given(TAIL, RANDOM)
def test_a_refinement_is_not_taught_what_it_cannot_know(problem, rng):
    talk = conversations.converse(problem, rng=rng)
    named = {c for c in task.constants_of(problem.question) if f' {c} ' in talk.refinement}
    for name in named:
        digit = talk.refinement.split(f' {name} ')[1][0]
        assert (name in talk.unknown) != (f'{name} {digit}' in talk.critique)


def test_half_of_the_critiques_cannot_be_guessed_from_question_and_attempt():
    counts = collections.Counter()
    for index in range(800):
        problem = tail_problem(index)
        talk = conversations.converse(problem, rng=random.Random(index))
        misquoted = talk.attempt == talk.refinement
        counts['misquoted'] += misquoted
        right = task.judge(problem.question, talk.refinement).correct
        counts['unknown'] += not (right or misquoted)
    assert counts['unknown'] > 400
    assert 0.07 < counts['misquoted'] / 800 < 0.13


def test_the_value_of_a_constant_differs_between_conversations():
    problem = next(p for p in map(tail_problem, range(800)) if 'gold' in p.question)
    talks = [conversations.converse(problem, rng=random.Random(seed)) for seed in range(100)]
    digits = {t.refinement.split('gold ')[1][0] for t in talks if 'gold ' in t.refinement}
    assert digits == set('0123456789')
