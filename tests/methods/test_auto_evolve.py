"""Auto-Evolve: modules, a plan, and two better plans; the last one is read."""

from elenchus.configs.methods import auto_evolve
from elenchus.data import records
from elenchus.sampling.writing import Notes
from tests.support import fake_engine

PROBLEM = records.Problem('p', 'How many {eggs}?', '42', 'Six times seven is 42.', 1, 'jsonl')


def requests(problem):
    """What is texts, where every answer is the number of its request, and the guide."""
    texts, written = [], ()
    for _ in range(9):
        result = auto_evolve.plan(problem, Notes(written=written))
        if isinstance(result, str):
            return texts, result
        texts += result
        written = (*written, f'answer {len(texts)}')
    raise AssertionError('it never ends')


def test_each_plan_comes_of_the_one_before():
    texts, guide = requests(PROBLEM)
    assert len(texts) == 4 and guide == 'answer 4'
    assert all(PROBLEM.question in text and '42' not in text for text in texts)
    for number, text in enumerate(texts[1:], 1):
        assert f'answer {number}' in text
    assert texts[2].split('\n')[0] == texts[3].split('\n')[0] != texts[1].split('\n')[0]


def test_on_the_lab_plans_are_attempts():
    (problem,) = fake_engine.problems(1)
    assert requests(problem) == ([problem.question] * 2, 'answer 2')
