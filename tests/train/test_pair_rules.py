"""Pair rules: what they pair, and the errors of a rule of one's own."""

import collections
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.train import pair_rules
from elenchus.train.pair_rules import find_pairs

PROBLEMS = [records.Problem(name, 'question', '1', '1', 1, 'lab') for name in 'ab']


def response(number, problem='a', *, refines=None, **facts):
    """An attempt, or a refinement of the attempt `refines`; its token is its number."""
    turn = records.Turn('attempt', (6,), (number,), facts=records.TurnFacts(**facts))
    question = records.Turn('question', (5,), (1,))
    if refines is None:
        return records.Episode(problem, 1, (question, turn))
    critique = records.Turn('critique', (7,), (1,))
    refinement = records.Turn('refinement', (8,), (number,), facts=turn.facts)
    return records.Episode(problem, 1, (*refines.turns, critique, refinement))


def critique(number, *, right, verdict, helpful=None):
    attempt = response(0, correct=right)
    facts = records.TurnFacts(verdict=verdict, helpful=helpful)
    turn = records.Turn('critique', (7,), (number,), facts=facts)
    return records.Episode('a', 1, (*attempt.turns, turn))


def group(*episodes, problem=0):
    return records.RolloutGroup(PROBLEMS[problem], tuple(episodes))


def numbers(groups, rule, *, keep=10, player='actor'):
    pairs = find_pairs(groups, rule=rule, keep=keep, player=player, takes_offsets=True)
    return [tuple(side.turns[-1].tokens[0] for side in pair[:2]) for pair in pairs]


def test_a_right_response_is_preferred_to_a_wrong_one():
    groups = [
        group(*(response(i, correct=i % 2 == 0) for i in range(5))),
        group(*(response(i, 'b', correct=True) for i in range(3)), problem=1),
    ]
    assert numbers(groups, 'right_wrong') == [(0, 1), (2, 3)]
    assert numbers(groups, 'right_wrong', keep=1) == [(0, 1)]


def test_a_right_verdict_is_preferred_to_a_wrong_one_and_to_none():
    group_of = [critique(i, right=False, verdict=v) for i, v in enumerate([True, False, None])]
    assert numbers([group(*group_of)], 'right_wrong', player='critic') == [(1, 0)]
    unknown = critique(3, right=None, verdict=True)
    assert not numbers([group(unknown, group_of[0])], 'right_wrong', player='critic')


def test_a_right_refinement_is_preferred_to_its_attempt():
    wrong, right = response(0, correct=False), response(1, correct=True)
    refined = [response(2, refines=wrong, correct=True), response(3, refines=wrong, correct=False)]
    kept_right = response(4, refines=right, correct=True)
    groups = [group(wrong, right, *refined, kept_right)]
    assert numbers(groups, 'refined') == [(2, 0)]


def test_the_best_score_is_preferred_to_the_worst():
    scores = [0.4, None, 0.9, 0.1]
    groups = [group(*(response(i, score=s) for i, s in enumerate(scores)))]
    assert numbers(groups, 'best_worst') == [(2, 3)]
    assert not numbers([group(response(0, score=0.5), response(1, score=0.5))], 'best_worst')
    assert not numbers([group(response(0), response(1))], 'best_worst')
    helpful = [critique(i, right=False, verdict=False, helpful=h) for i, h in enumerate([0, 1, -1])]
    assert numbers([group(*helpful)], 'best_worst', player='critic') == [(1, 2)]
    assert pair_rules.PAIR_RULES['best_worst'].reads_scores


@given(st.integers(0, 9))
def test_random_pairs_use_each_response_once_and_no_fact(size):
    plain = [group(*(response(i) for i in range(size)))]
    judged = [group(*(response(i, correct=i < 3, score=0.1 * i) for i in range(size)))]
    pairs = numbers(plain, 'random')
    assert pairs == numbers(judged, 'random')
    used = [number for pair in pairs for number in pair]
    assert len(used) == len(set(used)) == size // 2 * 2


def test_random_pairs_prefer_early_and_late_responses_alike():
    first = collections.Counter(
        pair[0] < pair[1]
        for i in range(200)
        for pair in numbers([group()] * i + [group(response(0), response(1))], 'random')
    )
    assert 70 < first[True] < 130


def use(monkeypatch, result):
    """Makes a function that returns `result` the rule 'mine'."""
    slot = pair_rules.PAIR_RULES
    monkeypatch.setitem(slot.functions, 'mine', lambda groups: result)


GOOD = (response(0), response(1), 0.0)
GROUPS = [group(response(0)), group(response(0, 'b'), problem=1)]
SAME = response(2)
EMPTY = dataclasses.replace(
    SAME, turns=(SAME.turns[0], dataclasses.replace(SAME.turns[1], tokens=()))
)


@pytest.mark.parametrize(
    ('result', 'words'),
    [
        (None, ') returned NoneType, not a list of pairs'),
        ([GOOD[:2]], 'pair 0 is not (chosen, rejected, offset)'),
        ([GOOD, ('a', 'b', 0.0)], "pair 1 has ['str', 'str'], not two episodes"),
        ([(response(0), response(1, 'b'), 0.0)], "pair 0 is of 'a' and 'b'"),
        ([(*GOOD[:2], None)], 'pair 0 has the offset None, which must be a number'),
        ([(*GOOD[:2], float('nan'))], 'pair 0 has the offset nan, which must be a number'),
        ([(*GOOD[:2], True)], 'pair 0 has the offset True, which must be a number'),
        (
            [(response(0), critique(1, right=False, verdict=True), 0.0)],
            "pair 0 ends with the turns ['attempt', 'critique'], which the actor does not write",
        ),
        ([(SAME, SAME, 0.0)], 'pair 0 has one episode twice'),
        ([(SAME, EMPTY, 0.0)], 'pair 0 ends with a turn without tokens'),
        ([(response(0, 'c'), response(1, 'c'), 0.0)], "pair 0 is of 'c', a problem of no group"),
        ([(*GOOD[:2], 0.5)], 'pair 0 has an offset of 0.5, which is for prefer.loss.kind='),
    ],
)
def test_what_a_rule_returns_is_checked_in_one_line(monkeypatch, result, words):
    use(monkeypatch, result)
    with pytest.raises(ValueError) as error:
        find_pairs(GROUPS, rule='mine', keep=1, player='actor', takes_offsets=False)
    assert str(error.value).startswith("prefer.pairs='mine' (")
    assert words in str(error.value) and '\n' not in str(error.value)


def test_a_rule_may_yield_pairs_with_offsets(monkeypatch):
    use(monkeypatch, iter([(*GOOD[:2], 1), [*GOOD[:2], 0.5]]))
    pairs = find_pairs(GROUPS, rule='mine', keep=5, player='actor', takes_offsets=True)
    assert [pair.offset for pair in pairs] == [1.0, 0.5]
