"""MultiCritique: the critique that agrees with the others is preferred."""

import random

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import multi_critique
from tests.support.method_cases import group, last_tokens, talk, written

VERDICTS = st.lists(st.tuples(st.sampled_from([True, False, None]), st.integers(0, 2)), max_size=6)


def critiques(said):
    attempt = written('attempt', (9,), correct=False)
    return [
        talk(attempt, written('critique', (i,), verdict=verdict, located=located))
        for i, (verdict, located) in enumerate(said)
    ]


def test_two_of_three_agree_on_the_wrong_line():
    pairs = multi_critique.agreement([group(*critiques([(False, 1), (True, None), (False, 1)]))])
    assert last_tokens(pairs) == [((0,), (1,))]


def test_critiques_without_a_verdict_agree_with_nobody():
    assert not multi_critique.agreement([group(*critiques([(None, None)] * 3))])
    assert not multi_critique.agreement([group(*critiques([(False, 1), (False, 2)]))])


def facts(pairs):
    return [
        tuple((side.turns[-1].facts.verdict, side.turns[-1].facts.located) for side in pair[:2])
        for pair in pairs
    ]


@given(VERDICTS, st.randoms())
def test_neither_truth_nor_order_decides_what_is_preferred(said, rng):
    rows = critiques(said)
    first = facts(multi_critique.agreement([group(*rows)]))
    random.Random(rng.random()).shuffle(rows)
    again = facts(multi_critique.agreement([group(*rows)]))
    assert len(first) == len(again)
    for pair in first + again:
        counts = [said.count(s) if s[0] is not None else 0 for s in pair]
        assert counts[0] == max(said.count(s) for s in said if s[0] is not None)
        assert counts[0] > counts[1]
