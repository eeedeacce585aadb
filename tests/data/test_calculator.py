"""The annotator `calculator`: its sentences are true, and mistakes are located."""

import random
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import grammars, mistakes
from elenchus.data.critiques.calculator import (
    annotator,
    equations,
    falsification,
    review,
    wording,
)
from elenchus.data.critiques.calculator.expressions import Fraction
from elenchus.data.critiques.oracle import ConstructedAttempt, NoCritique
from elenchus.data.records import Problem
from tests.support import problem_lines

CLIPS = Problem(
    'clips',
    'Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?',
    '72',
    'She sold 48/2 = 24 clips in May.\nThat is 48+24 = 72 clips altogether.\n#### 72',
    2,
    'gsm8k',
)
MUFFINS = Problem(
    'muffins', 'There were 50 muffins and 21 cakes. They sold 41 pies. How many in all?', '112',
    '50+21+41=112\n#### 112', 1, 'asdiv',
)  # fmt: skip
FISH = Problem(
    'fish', 'Finn has 89 goldfish. 32 of them die. He buys 10 more. How many has he?', '67',
    '89-32=57\n57+10=67\n#### 67', 2, 'asdiv',
)  # fmt: skip


def written(problem, attempt, *, location=None, construction='RG1', **options):
    item = ConstructedAttempt(problem, attempt, construction, location, None)
    return annotator.annotate(item, **{'form': 'full_pass', 'seed': 0} | options)


def parsed(*args, **options):
    return grammars.RELEASED.parse(written(*args, **options))


def verdicts(*args, **options):
    critique = parsed(*args, **options)
    return [step.correct for step in critique.steps], critique.final_correct


def test_a_right_solution_passes():
    assert verdicts(CLIPS, CLIPS.solution) == ([True, True], True)


def test_a_slip_is_named_with_its_true_result_and_carried_on():
    attempt = 'She sold 48/2 = 22 clips.\nSo 48+22 = 70.\n#### 70'
    assert verdicts(CLIPS, attempt) == ([False, False], False)
    assert verdicts(CLIPS, attempt, form='first_error') == ([False], False)
    first, second = (step.explanation.replace(' ', '') for step in parsed(CLIPS, attempt).steps)
    assert '48/2' in first and '24' in first
    assert '48+24' in second and '72' in second


@pytest.mark.parametrize(
    ('problem', 'attempt', 'words'),
    [
        (MUFFINS, '50+21+16=87\n#### 87', ('16', 'sold 41 pies', '112')),  # from nowhere
        (MUFFINS, '50+21=71\n#### 71', ('41', '50+21+41', '112')),  # left out
        (MUFFINS, '50+21-41=30\n#### 30', ('50+21+41', '112')),  # operation
        (FISH, '89+32=121\n121+10=131\n#### 131', ('89-32', '57')),  # operation, carried on
        (FISH, '89-32=57\n57-10=47\n#### 47', ('57+10', '67')),
        (FISH, '89-10=79\n79+10=89\n#### 89', ('32', '57')),  # another number of the question
    ],
)
def test_another_computation_that_is_needed_is_named(problem, attempt, words):
    critique = parsed(problem, attempt, form='first_error')
    assert critique.steps[-1].correct is False and critique.final_correct is False
    said = critique.steps[-1].explanation
    assert all(word in said or word in said.replace(' ', '') for word in words)


def test_a_number_is_called_too_much_or_missing_only_if_nothing_else_differs():
    said = parsed(MUFFINS, '(50-21)*41/7=169\n#### 169').steps[0].explanation
    assert 'without' not in said and 'does not belong' not in said
    said = parsed(MUFFINS, '50-21=29\n#### 29').steps[0].explanation
    assert 'left out' not in said and 'leaves out' not in said


def test_steps_before_the_mistake_pass_if_they_are_the_references():
    assert verdicts(FISH, '89-32=57\n57-10=47\n#### 47') == ([True, False], False)


@pytest.mark.parametrize(
    'attempt',
    ['5*5=25\n#### 25', 'The answer must be large.\n#### 71', 'x + 3 = 71\n#### 68', '', '####'],
)
def test_a_mistake_that_cannot_be_located_is_no_critique(attempt):
    assert written(CLIPS, attempt) == NoCritique('not_located')


def test_a_right_answer_after_a_slip_keeps_its_verdict():
    assert verdicts(CLIPS, '48/2 = 22\n48+24 = 72\n#### 72') == ([False, True], True)


def test_a_right_result_by_the_wrong_operation_is_not_called_right():
    stamps = Problem('s', '2 stamps and 2 more. How many?', '4', '2+2=4\n#### 4', 1, 'asdiv')
    assert verdicts(stamps, '2*2=4\n#### 4') == ([None], True)


def test_a_result_with_many_decimals_is_in_no_formula():
    watts = Problem('w', '125 watts, 14 cents, 4 hours?', '500', '125*4=500\n#### 500', 1, 'x')
    for seed in range(8):
        critique = parsed(watts, '125/14=110\n110*4=440\n#### 440', seed=seed)
        assert critique.steps[1].correct is False and 'about' not in critique.steps[1].explanation


def test_what_is_not_checked_has_no_verdict():
    assert verdicts(CLIPS, f'Let us think.\n{CLIPS.solution}') == ([None, True, True], True)


def test_an_answer_that_is_not_the_last_result_is_named():
    critique = parsed(CLIPS, CLIPS.solution.replace('#### 72', '#### 27'))
    assert critique.final_correct is False and grammars.first_error(critique) is None
    assert '72' in critique.final_explanation and '27' in critique.final_explanation


def test_without_an_answer_the_last_line_is_a_step():
    critique = parsed(CLIPS, 'She sold 48/2 = 24 clips.\nThat is 48+24 = 74 cli')
    assert [step.correct for step in critique.steps] == [True, False]
    assert critique.final_correct is False and 'answer' in critique.final_explanation


def test_lines_before_a_known_location_are_right():
    attempt = 'Take 48*1 = 48.\nShe sold 48/2 = 22 clips.\n#### 22'
    assert verdicts(CLIPS, attempt, location=1, construction='RG2')[0] == [True, False]
    slip_before = 'She sold 48/2 = 22 clips.\nSo 48+22 = 70.\n#### 70'
    reason = NoCritique('contradicts_location')
    assert written(CLIPS, slip_before, location=1, construction='RG2') == reason


def test_the_wording_depends_on_the_seed_only():
    attempt = 'She sold 48/2 = 22 clips.\nSo 48+22 = 70.\n#### 70'
    texts = [written(CLIPS, attempt, form='mixed', seed=seed) for seed in range(40)]
    assert texts == [written(CLIPS, attempt, form='mixed', seed=seed) for seed in range(40)]
    assert len(set(texts)) > 10
    assert {len(grammars.RELEASED.parse(text).steps) for text in texts} == {1, 2}  # both forms


def test_a_step_that_spells_a_label_is_not_written():
    attempt = f'Explanation: Correctness of the step: Correct\n{CLIPS.solution}'
    critique = written(CLIPS, attempt)
    assert isinstance(critique, NoCritique) or verdicts(CLIPS, attempt)[1] is True


LINES = st.lists(
    st.sampled_from(
        [
            '48/2 = 24',
            '48/2 = 22',
            '48+24=72',
            '48+22=70',
            '24*3=72',
            'She sold clips.',
            '5+5=10',
            '',
        ]
    ),
    max_size=5,
)


@pytest.mark.parametrize('grammar', [grammars.RELEASED, grammars.WORKED])
@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    lines=LINES,
    last=st.sampled_from(['#### 72', '#### 70', '#### 10', 'nothing']),
    seed=st.integers(0, 9),
)
def test_every_critique_is_read_as_it_was_meant(grammar, lines, last, seed):
    attempt = '\n'.join([*lines, last])
    result = review.review(CLIPS, attempt)
    text = written(CLIPS, attempt, seed=seed, grammar=grammar)
    if isinstance(result, str):
        assert text == NoCritique(result)
        return
    critique = grammars.RELEASED.parse(text)
    steps = lines if last.startswith('####') else [*lines, last]
    kept = [i for i, line in enumerate(steps) if line.strip()]
    assert [step.correct for step in critique.steps] == [result.verdict(i) for i in kept]
    assert [step.sentence for step in critique.steps] == [steps[i] for i in kept]
    assert critique.final_correct is (last == '#### 72')
    check_sentences(critique)


STATED = re.compile(
    r'(?<![\w.-])(-?\.?[\d(][\d,.%+*/^() -]*[\d)%]) (?:is|=) (\d[\d,]*(?:\.\d+)?%?)(?![\d/])'
)


def check_sentences(critique):
    """Every formula that an explanation states is true."""
    for text in [*(step.explanation for step in critique.steps), critique.final_explanation]:
        for formula, value in STATED.findall(text):
            assert all(e.holds is not False for e in equations.find(f'{formula} = {value}')), text


@pytest.mark.parametrize(
    ('value', 'text'),
    [(Fraction(5), '5'), (Fraction(5, 2), '2.5'), (Fraction(10, 3), 'about 3.33'),
     (Fraction(-5, 4), '-1.25'), (Fraction(2, 1_000_000), '0.000002'),
     (Fraction(1, 3_000), 'about 0.000333'), (Fraction(0), '0')],
)  # fmt: skip
def test_values_are_written_exactly_or_as_about(value, text):
    assert wording.show(value) == text


def read(folder, name, count=None):
    source = name.split('/')[0]
    lines = (folder / f'{name}.jsonl').read_text(encoding='utf-8').splitlines()[:count]
    return [problem_lines.parse(source, line, id=str(i)) for i, line in enumerate(lines)]


FALSE_REFERENCES = {'gsm8k/test': 1, 'asdiv/test': 0}
"""Steps of references whose arithmetic is false, read one by one: `$32 - $20 = $300`."""


@pytest.mark.slow
@pytest.mark.parametrize('name', FALSE_REFERENCES)
def test_reference_steps_are_never_called_wrong(shared_data, name):
    alarms = []
    for problem in read(shared_data, name):
        result = review.review(problem, problem.solution)
        assert not isinstance(result, str)
        alarms += [line for i, line in enumerate(result.lines) if result.verdict(i) is False]
        critique = grammars.RELEASED.parse(written(problem, problem.solution))
        check_sentences(critique)
    assert len(alarms) == FALSE_REFERENCES[name], alarms


@pytest.mark.slow
@pytest.mark.parametrize('kind', falsification.KINDS)
@pytest.mark.parametrize(('name', 'least'), [('gsm8k/test', 0.88), ('asdiv/test', 0.98)])
def test_mistakes_in_references_are_located_with_their_value(shared_data, name, least, kind):
    total, located, misplaced, later = 0, 0, 0, 0
    for problem in read(shared_data, name):
        false = falsification.falsify(problem, kind, rng=random.Random(problem.id))
        if false is None:
            continue
        total += 1
        text = written(problem, false.text, form='first_error')
        if isinstance(text, NoCritique):
            continue
        critique = grammars.RELEASED.parse(text)
        check_sentences(critique)
        step = grammars.first_error(critique)
        said = (
            critique.steps[step].explanation.replace(',', '').replace('.00', '')
            if step is not None
            else ''
        )
        located += step == false.line and wording.show(false.result) in said
        misplaced += step is not None and step < false.line
        later += step is not None and step > false.line
    figures = f'{misplaced} before the mistake, {later} after it'
    print(f'{name} {kind}: {located} of {total} located with value, {figures}')
    assert located >= least * total and misplaced == 0
    # Another number or sign may leave a true equation, which nothing proves wrong.
    assert later == 0 or kind != 'value'


@pytest.mark.slow
@pytest.mark.parametrize('distance', [1, 7, 13, 29])
def test_solutions_of_other_problems_are_hardly_ever_repaired(shared_data, distance):
    problems = read(shared_data, 'gsm8k/test')
    others = problems[distance:] + problems[:distance]
    reviews = [review.review(p, other.solution) for p, other in zip(problems, others, strict=True)]
    kinds = [r.repair.kind for r in reviews if not isinstance(r, str) and r.repair]
    print(f'distance {distance}: {len(kinds)} of {len(problems)} repaired by chance, {kinds}')
    assert len(kinds) <= 2


@pytest.mark.slow
def test_inserted_mistakes_never_have_a_critique_that_contradicts_them(shared_data):
    for problem in read(shared_data, 'gsm8k/test', 300):
        rng = random.Random(problem.id)
        try:
            attempt = mistakes.corrupt(problem, rng=rng)
        except mistakes.NoMistakeError:
            continue
        pairs = zip(attempt.split('\n'), problem.solution.split('\n'), strict=True)
        at = next(i for i, (line, right) in enumerate(pairs) if line != right)
        text = written(problem, attempt, construction='RG3', location=at)
        if not isinstance(text, NoCritique):
            first = grammars.first_error(grammars.RELEASED.parse(text))
            assert first is None or first >= at


def test_a_computation_without_a_common_number_is_no_repair_by_chance():
    """The attempt solves another problem; `1/2*50 = 25` in its place would reach 75 by chance."""
    skirt = Problem(
        'skirt', 'A bag costs 50 dollars, a hat half of it. What do a bag and a hat cost?', '75',
        '1/2*50 = 25\n50+25 = 75\n#### 75', 2, 'gsm8k',
    )  # fmt: skip
    attempt = 'The jacket costs 30*3 = 90 dollars.\nTogether they cost 50+90 = 140.\n#### 140'
    assert written(skirt, attempt) == NoCritique('not_located')


CARROTS = Problem(
    'carrots', 'He eats 4 carrots on each of 5 weekdays and 5 on each of 2 other days. How many?',
    '30', '4 x 5 = 20\n5 x 2 = 10\n20 + 10 = 30\n#### 30', 3, 'gsm8k',
)  # fmt: skip
ORANGES = Problem(
    'oranges', 'Of 12 oranges she gave 2 to each of 3 girls and 3 to a boy. How many remain?', '3',
    '3 * 2 = 6\n6 + 3 = 9\n12 - 9 = 3\n#### 3', 3, 'gsm8k',
)  # fmt: skip


@pytest.mark.parametrize(
    ('problem', 'attempt'),
    [  # `4` for `9`, or `3` for `5`, would reach the answer through steps of another problem
        (CARROTS, 'The song is 5*9=45 long.\nSo 5+45=50.\nTogether 5+50=55.\n#### 55'),
        (ORANGES, 'She bought 5 x 2 = 10 pounds.\nLeft are 10 - 3 = 7.\n#### 7'),
    ],
)
def test_steps_of_another_problem_are_not_repaired_into_this_one(problem, attempt):
    assert written(problem, attempt) == NoCritique('not_located')


@pytest.mark.parametrize(
    'step',
    ['Half of them, 48/2 = 22 clips, were sold.', 'In 48 hours of 60 minutes are 48/2 = 22 days.',
     'The rate is 48/2 = $22/hr.', 'There are 48/2 = 22 (in May).', 'That is (40+8)/2 = 48/2 = 22.',
     'She sold three times as many as Jo, which is 48/2 = 22.'],
)  # fmt: skip
def test_no_later_step_is_the_first_mistake_after_an_open_false_equation(step):
    """What words leave open may be the first mistake; the slip that follows is not."""
    attempt = f'{step}\nThat is 48+22 = 71 clips.\n#### 71'
    critique = written(CLIPS, attempt, form='first_error')
    if isinstance(critique, NoCritique):
        assert critique == NoCritique('not_located')
    else:
        assert grammars.first_error(grammars.RELEASED.parse(critique)) == 0
    right = attempt.replace('22', '24')
    assert verdicts(CLIPS, right, form='first_error') == ([None, False], False) or verdicts(
        CLIPS, right, form='first_error'
    ) == ([True, False], False)
