"""Which attempts are refined: built-in gates, functions of one's own, and what these get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.test_time import gates, strategies
from tests.sampling.test_time.test_strategies import (
    PROBLEMS,
    N,
    first_round,
    make_rule,
    play,
    scored,  # noqa: F401  the fixture
)
from tests.support import fake_engine
from tests.support.method_cases import written

HERE = 'tests.sampling.test_time.test_gates'
CALLS = []


def never(groups, number):
    return [[False] * len(group) for group in groups]


def first_of_each(groups, number):
    CALLS.append((number, [(g.problem.id, len(g)) for g in groups]))
    return [[i == 0 for i in range(len(group))] for group in groups]


def in_round_one(groups, number):
    return tuple(tuple(number == 1 for _ in group) for group in groups)


def wrong_shape(groups, number):
    return [[True] for _ in groups]


def flat(groups, number):
    return [True for group in groups for _ in group]


def numbers(groups, number):
    return [[2 for _ in group] for group in groups]


def texts(groups, number):
    return [['yes' for _ in group] for group in groups]


def nothing(groups, number):
    return None


def criticised(verdicts):
    """Problems and criticised attempts; verdicts[i] are those of problem i."""
    problems, episodes = [], []
    for i, row in enumerate(verdicts):
        problem = records.Problem(str(i), 'q', '1', '', 1, 'lab')
        for verdict in row:
            turns = (written('attempt', (5,)), written('critique', (7,), verdict=verdict))
            problems.append(problem)
            episodes.append(records.Episode(problem.id, 1, turns))
    return problems, episodes


ROWS = st.lists(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=4), max_size=4)


@given(ROWS, st.integers(1, 5))
def test_built_in_gates_go_by_the_verdict(rows, number):
    problems, episodes = criticised(rows)
    flags = gates.due('wrong', episodes, problems, number=number)
    assert flags == [verdict is not True for row in rows for verdict in row]
    assert all(gates.due('always', episodes, problems, number=number))


@given(ROWS)
def test_a_function_gets_the_groups_of_problems_in_order(rows):
    problems, episodes = criticised(rows)
    CALLS.clear()
    flags = gates.due(f'{HERE}:first_of_each', episodes, problems, number=3)
    assert flags == [i == 0 for row in rows for i in range(len(row))]
    assert ([(3, [(str(i), len(row)) for i, row in enumerate(rows)])] if rows else []) == CALLS


@pytest.mark.parametrize('name', ['wrong_shape', 'flat', 'numbers', 'texts', 'nothing'])
def test_anything_but_booleans_for_each_attempt_is_refused(name):
    problems, episodes = criticised([[True, False], [None]])
    with pytest.raises(ValueError, match=rf'^evaluate\.refine: {name} \(.*booleans.*\[2, 1\]'):
        gates.due(f'{HERE}:{name}', episodes, problems, number=1)


def test_without_refinements_the_strategy_only_criticises():
    engine = fake_engine.RuleEngine(make_rule(1))
    _, played, _ = first_round(engine, refine=f'{HERE}:never')
    assert engine.num_requests('refinement') == 0
    assert all([turn.role for turn in e.turns][-1] == 'critique' for e in played)


def test_a_later_round_has_the_chains_that_go_on():
    CALLS.clear()
    setup, played, problems = first_round(
        fake_engine.RuleEngine(make_rule(2)), refine=f'{HERE}:first_of_each'
    )
    later = play(strategies.sequential, setup, played, problems)
    assert CALLS[0] == (1, [(p.id, N) for p in PROBLEMS])
    # One chain a problem goes on: it is the first of its group in each later round.
    assert CALLS[1:] == [(n, [(p.id, 1) for p in PROBLEMS]) for n in (2, 3)]
    assert {e.facts.chain % N for e in later} == {0}


def test_a_chain_ends_with_the_round_in_which_nothing_is_due():
    engine = fake_engine.RuleEngine(make_rule(2))
    setup, played, problems = first_round(engine, refine=f'{HERE}:in_round_one')
    later = play(strategies.sequential, setup, played, problems)
    assert engine.num_requests('refinement') == len(played) == len(later)
    assert {e.facts.round for e in later} == {2}
