"""ReGenesis: general advice, adapted, then an outline; the answer is in none of them."""

import pytest

from elenchus.configs.methods import regenesis
from elenchus.data import records
from elenchus.sampling.writing import Notes
from tests.support import fake_engine

PROBLEM = records.Problem('p', 'How many {eggs}?', '42', 'Six times seven is 42.', 1, 'jsonl')


@pytest.mark.parametrize('number', range(7))
def test_three_steps_from_the_general_to_the_concrete(number):
    (adapt,) = regenesis.outline(PROBLEM, Notes(number))
    general = regenesis.GUIDELINES[number % 5]
    assert general in adapt and PROBLEM.question in adapt
    (outline,) = regenesis.outline(PROBLEM, Notes(number, ('Count the rows.',)))
    assert 'Count the rows.' in outline and general not in outline
    assert PROBLEM.question in outline and '42' not in adapt + outline
    written = ('Count the rows.', '1. Count. 2. Multiply.')
    assert regenesis.outline(PROBLEM, Notes(number, written)) == written[1]


def test_on_the_lab_the_outline_is_what_the_model_writes():
    (problem,) = fake_engine.problems(1)
    assert regenesis.outline(problem, Notes()) == [problem.question]
    assert regenesis.outline(problem, Notes(0, ('ben ?',))) == 'ben ?'


def test_every_guideline_has_its_round():
    assert regenesis.CHANGES['improve.explore.num_guided_rounds'] == len(set(regenesis.GUIDELINES))
