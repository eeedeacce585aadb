"""Counterfactual critiques: what is changed, that the rest stays, and when a value is used."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.critiques import counterfactual, grammars, mistakes
from elenchus.data.critiques.counterfactual import Falsified
from elenchus.data.grading import answers
from elenchus.data.lab import forms, task

LAB, RELEASED, WORKED = grammars.LAB, grammars.RELEASED, grammars.WORKED
CRITIQUE = (
    'ada : lea + 7 ; lea 6 ; 6 + 7 = 3 ; ada 3 - 3 = 0 ; correct\n'
    ' ben : ada - 4 ; ada 3 ; 3 - 4 = 9 ; ben 2 - 9 = 3 ; wrong\n'
    ' answer : wrong'
)
TEXT = RELEASED.write(
    grammars.Critique(
        (
            grammars.StepVerdict('He has 3 * 4 = 12 eggs.', True, 'It reaches 12.'),
            grammars.StepVerdict(
                'He sells 5, so 12 - 5 = 8.', False, 'It should be 12 - 5 = 7.0, not 8.'
            ),
        ),
        False,
        'From 7.0 on all is wrong: 7 eggs, not 8.',
    )
)


def falsify(text, *, grammar=LAB, seed=0, avoid=''):
    return counterfactual.falsify(text, grammar=grammar, rng=random.Random(seed), avoid=avoid)


def test_the_lab_critique_stays_consistent():
    false = falsify(CRITIQUE)
    value = int(false.value)
    assert value not in (9, 2) and false.step == 1
    changed = f'3 - 4 = {value} ; ben 2 - {value} = {(2 - value) % 10} ; wrong'
    assert false.text == CRITIQUE.replace('3 - 4 = 9 ; ben 2 - 9 = 3 ; wrong', changed)


def test_every_false_value_can_be_drawn():
    values = {falsify(CRITIQUE, seed=seed).value for seed in range(200)}
    assert values == set('01345678')


@given(st.integers(0, 500), st.integers(0, 10**6))
def test_critiques_of_the_oracle_change_in_one_line(index, seed):
    problem = forms.generate_problem(seed=0, split='train', index=index)
    attempt = mistakes.corrupt(problem, rng=random.Random(seed))
    judgement = task.judge(problem.question, attempt)
    false = falsify(judgement.critique, seed=seed)
    if false is None:
        # The answer is wrong, or the wrong line cannot be derived.
        assert judgement.kind in ('target', 'skipped', 'operand')
        return
    old, new = judgement.critique.split('\n'), false.text.split('\n')
    assert [i for i, pair in enumerate(zip(old, new, strict=True)) if len(set(pair)) > 1] == [
        judgement.first_error
    ]
    before, after = LAB.parse(judgement.critique), LAB.parse(false.text)
    assert [s.correct for s in before.steps] == [s.correct for s in after.steps]
    quantity = after.steps[false.step].sentence.split()[0]
    assert task.known_values(problem.question)[quantity] != int(false.value)


@pytest.mark.parametrize(
    'text',
    [
        'ada : lea + 7 ; lea 6 ; 6 + 7 = 3 ; ada 3 - 3 = 0 ; correct\n answer : correct',
        'ada : lea + 7 ; lea ? ; wrong\n answer : wrong',
        'ada ? ; wrong\n answer : wrong',
        'ada : lea + 7 ; lea 6 ; 6 + 7 = 3 ; ada 2 - 4 = 8 ; wrong\n answer : wrong',  # 3 or 4?
        'answer : ada 3 - 4 = 9 ; wrong',
        'is is is',
        '',
    ],
)
def test_without_an_error_or_a_value_there_is_none(text):
    assert falsify(text) is None


def test_a_line_that_the_critic_could_not_read_has_a_derived_value_too():
    false = falsify('ada : lea + 7 ; lea 6 ; 6 + 7 = 3 ; ada ? ; wrong\n answer : wrong')
    assert false.value != '3'
    assert f'6 + 7 = {false.value} ; ada ? ; wrong' in false.text


def test_the_lab_uses_a_value_where_the_line_of_the_quantity_states_it():
    false = Falsified(CRITIQUE.replace('9', '1'), '1', 1)

    def used(refinement):
        return counterfactual.uses_value(refinement, false, grammar=LAB, question='', attempt='')

    assert used('ada : lea 6 + 7 = 3 ; ada 3\n ben : ada 3 - 4 = 1 ; ben 1\n #### 1')
    assert not used('ada : lea 6 + 7 = 1 ; ada 1\n ben : ada 3 - 4 = 9 ; ben 9\n #### 9')
    assert not used('ada : lea 6 + 7 = 3 ; ada 3\n #### 1')
    assert not used('')


@given(st.integers(0, 10**6))
def test_a_false_value_comes_with_the_constant_that_it_follows_from(seed):
    line = 'fay : ada - gold ; ada 1 ; gold 4 ; 1 - 4 = 7 ; fay 9 - 7 = 2'
    false = falsify(f'{line} ; wrong\n answer : wrong', seed=seed)
    assert false.value not in '79'
    digit = (1 - int(false.value)) % 10
    assert f'gold {digit} ; 1 - {digit} = {false.value} ; fay 9 - {false.value} = ' in false.text
    refinement = f'fay : ada 1 - gold {digit} = {false.value} ; fay {false.value}'
    assert counterfactual.uses_value(refinement, false, grammar=LAB, question='', attempt='')


def test_a_critique_that_misquotes_the_question_has_no_value_to_be_used():
    rng = random.Random(0)
    question = 'lea 6 ; ada : lea + 7 ; ben : ada - 4 ; ben ?'
    for quoted, is_used in ((question, True), (question.replace('- 4', '- 5'), False)):
        false = counterfactual.falsify(CRITIQUE, grammar=LAB, rng=rng, question=quoted)
        assert (false is not None) == is_used


@pytest.mark.parametrize(
    ('text', 'grammar'),
    [(CRITIQUE, LAB), (TEXT, RELEASED), (WORKED.write(RELEASED.parse(TEXT)), WORKED)],
)
def test_without_its_explanation_a_critique_says_where_but_not_why(text, grammar):
    before = grammar.parse(text)
    after = grammar.parse(counterfactual.without_explanation(text, grammar=grammar))
    at = grammars.first_error(before)
    assert [s.correct for s in after.steps] == [s.correct for s in before.steps]
    assert after.steps[at].sentence == before.steps[at].sentence
    assert after.steps[at].explanation == '' != before.steps[at].explanation
    assert after.steps[:at] == before.steps[:at]
    assert counterfactual.without_explanation('answer : wrong', grammar=LAB) is None


# Free text


@given(st.integers(0, 10**6))
def test_the_last_number_that_the_step_does_not_state_is_replaced_from_there_on(seed):
    false = falsify(TEXT, grammar=RELEASED, seed=seed, avoid='Question: 1 2 4 6 9 10')
    assert answers.parse_number(false.value) not in {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}
    assert false.value.endswith('.0') and false.step == 1
    whole = RELEASED.parse(false.text)
    assert whole.steps[0] == RELEASED.parse(TEXT).steps[0]
    assert whole.steps[1].sentence == 'He sells 5, so 12 - 5 = 8.'
    assert whole.steps[1].explanation == f'It should be 12 - 5 = {false.value}, not 8.'
    assert whole.final_explanation == (
        f'From {false.value} on all is wrong: {false.value} eggs, not 8.'
    )


def test_an_explanation_without_a_number_of_its_own_derives_nothing():
    critique = grammars.Critique(
        (grammars.StepVerdict('So 12 - 5 = 8.', False, 'The 8 is wrong.'),), False, 'It is 7.'
    )
    assert falsify(RELEASED.write(critique), grammar=RELEASED) is None


def test_large_numbers_keep_their_form():
    critique = grammars.Critique((grammars.StepVerdict('x', False, 'It is 1,250.75.'),), None, '')
    false = falsify(RELEASED.write(critique), grammar=RELEASED)
    assert false.value.startswith('1,2') and false.value.endswith('.75')


def test_free_text_uses_a_value_that_it_can_only_have_from_the_critique():
    false = Falsified(TEXT.replace('7.0', '13.0'), '13.0', 1)

    def used(refinement, question='', attempt=''):
        options = {'grammar': RELEASED, 'question': question, 'attempt': attempt}
        return counterfactual.uses_value(refinement, false, **options)

    assert used('So he has 13 eggs.')
    assert not used('So he has 113 eggs, not 1.3.')
    assert not used('So he has 13 eggs.', question='He has $13.')
    assert not used('So he has 13 eggs.', attempt='13.00 eggs')
