"""Free-text refinements follow the number that their critique states."""

import random

from elenchus.data.critiques import grammars, text_refinements
from elenchus.data.grading import answers
from elenchus.data.records import Problem

SOLUTION = 'Each box has 12 pens.\n7 boxes have 7 * 12 = 84 pens.\n84 - 5 = 79 are left.\n#### 79'
PROBLEM = Problem('p', 'How many pens are left?', '79', SOLUTION, 0, 'gsm8k')


def refine(seed):
    return text_refinements.refine(PROBLEM, rng=random.Random(seed))


def test_a_refinement_states_the_number_of_its_critique_and_half_of_them_are_false():
    num_false = 0
    for seed in range(400):
        example = refine(seed)
        critique = grammars.RELEASED.parse(example.critique)
        at = grammars.first_error(critique)
        (stated,) = answers.numbers(critique.steps[at].explanation)
        lines, right = example.refinement.split('\n'), SOLUTION.split('\n')
        assert lines[:at] == example.attempt.split('\n')[:at] == right[:at]
        assert stated in answers.numbers(lines[at])
        is_false = example.refinement != SOLUTION
        assert is_false == (stated not in answers.numbers(right[at]))
        num_false += is_false
    assert 160 < num_false < 240


def test_what_follows_from_the_number_follows_in_the_refinement():
    examples = (refine(seed) for seed in range(400))
    changed = next(
        e for e in examples if '= 84' not in e.refinement and 'have 7 * 12' in e.refinement
    )
    (number,) = {
        n for n in answers.numbers(changed.refinement) if n not in ['7', '12', '5', '79', '84']
    }
    assert f'= {number} pens.\n{number} - 5' in changed.refinement


def test_the_attempt_is_wrong_where_the_critique_says():
    for seed in range(100):
        example = refine(seed)
        at = grammars.first_error(grammars.RELEASED.parse(example.critique))
        assert example.attempt.split('\n')[at] != SOLUTION.split('\n')[at]
        assert grammars.RELEASED.parse(example.critique).final_correct is False
