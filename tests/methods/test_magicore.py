"""MAgICoRe: which problems are hard, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import magicore
from elenchus.data import records
from elenchus.sampling.test_time import gates
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import written


def group_of(number, rows):
    """A problem with attempts (answer, ORM, steps)."""
    problem = records.Problem(str(number), 'q', '1', '', 1, 'lab')
    episodes = tuple(
        records.Episode(
            problem.id,
            1,
            (
                written('attempt', (5,) * len(steps), scores=steps, answer=answer, score=orm),
                written('critique', (7,), verdict=True),
            ),
        )
        for answer, orm, steps in rows
    )
    return records.RolloutGroup(problem, episodes)


EASY = [('7', 0.9, (0.9, 0.9))] * 4
TORN = [(str(i), 0.2, (0.5, 0.4)) for i in range(4)]  # four answers alike: H = ln 4 > ln 3
POOR = [('7', 0.2, (0.5, 0.4))] * 4  # low scores, but one answer


def test_the_gate_needs_low_scores_and_an_unclear_vote():
    groups = [group_of(i, rows) for i, rows in enumerate((EASY, TORN, POOR))]
    assert magicore.hard(groups, 1) == [[False] * 4, [True] * 4, [False] * 4]
    # Alone, a problem has no others to be worse than: z = 0.
    assert magicore.hard(groups[1:2], 1) == [[False] * 4]


@pytest.mark.parametrize(
    ('weights', 'entropy'),
    [((1, 1, 1), math.log(3)), ((1,), 0.0), ((3, 1), 0.5623351446), ((0, 2), 0.0), ((), 0.0)],
)
def test_the_entropy_of_a_weighted_vote(weights, entropy):
    assert magicore.entropy(list(enumerate(weights))) == pytest.approx(entropy)


def test_either_vote_may_be_the_unclear_one():
    """ORM is sure of '0'; the products of the steps are alike."""
    torn = [(str(i), 0.9 if i == 0 else 0.001, (0.1,)) for i in range(4)]
    good = [('7', 1.0, (1.0,))] * 4
    flags = magicore.hard([group_of(0, good), group_of(1, torn)], 1)
    assert flags == [[False] * 4, [True] * 4]


def test_unknown_scores_are_no_samples_and_a_problem_without_any_is_hard():
    rows = [('7', None, (0.5,)), ('7', 0.5, (None,)), (None, 0.5, (0.5,))]
    assert magicore.samples(group_of(0, rows)) == []
    flags = magicore.hard([group_of(0, rows), group_of(1, EASY)], 1)
    assert flags == [[True] * 3, [False] * 4]


CELL = st.tuples(
    st.sampled_from(['1', '2', None]),
    st.none() | st.floats(0, 1),
    st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=3).map(tuple),
)


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=1, max_size=4))
def test_all_samples_of_a_problem_go_the_same_way_through_the_slot(rows):
    settings = build.build(RunSettings, magicore.get_config('default')).evaluate
    groups = [group_of(i, row) for i, row in enumerate(rows)]
    episodes = [e for g in groups for e in g]
    problems = [g.problem for g in groups for _ in g]
    flags = iter(gates.due(settings.refine, episodes, problems, number=1))
    assert all(len({next(flags) for _ in g}) == 1 for g in groups)
