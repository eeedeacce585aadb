"""Accuracy and cost of every arm at every size."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.metrics import cost_curves
from elenchus.sampling.test_time import votes

TOKENS = {'attempt': 10, 'critique': 30, 'refinement': 7}
PROCESSED = {'attempt': 15, 'critique': 50, 'refinement': 60}


def episode(answer, refined=None, scores=(0.5,), roles=('attempt', 'critique', 'refinement')):
    steps = tuple(records.Step(i + 1, score) for i, score in enumerate(scores))
    turns = [answering('attempt', answer, answer == '7', steps)]
    if refined is not None:
        turns.append(answering('refinement', refined, refined == '7'))
    tokens, processed = ({role: n[role] for role in roles} for n in (TOKENS, PROCESSED))
    facts = records.EpisodeFacts(tokens=tokens, calls=dict.fromkeys(roles, 1), processed=processed)
    return records.Episode('p', 1, tuple(turns), facts)


def answering(role, answer, correct, steps=()):
    facts = records.TurnFacts(answer=answer, correct=correct)
    return records.Turn(role, (6,), (1,) * len(steps), steps=steps, facts=facts)


def point(arm, size=None, num_draws=100):
    size = len(arm.groups[0]) if size is None else size
    return cost_curves.point(arm, [{'7'}] * len(arm.groups), size=size, num_draws=num_draws)


def arms(*groups):
    return cost_curves.parallel_arms(groups)


ATTEMPTS = [
    episode('1', '7', (0.9, 0.1)),
    episode('7', None, (0.8, 0.7), roles=('attempt', 'critique')),
    episode('1', '1', (0.2, 0.95)),
    episode(None, '7', (0.99, 0.99)),
]


def right(name, group=ATTEMPTS):
    return point(arms(group)[name]).right


def test_sizes_are_powers_of_two_and_all():
    assert cost_curves.sizes(1) == [1]
    assert cost_curves.sizes(4) == [1, 2, 4]
    assert cost_curves.sizes(6) == [1, 2, 4, 6]
    assert cost_curves.sizes(64) == [1, 2, 4, 8, 16, 32, 64]


def test_votes_are_of_first_and_of_final_answers():
    assert right('majority') == [0.0]
    assert right('refined majority') == [1.0]


def test_step_rewards_choose_as_they_are_aggregated():
    """min: 0.1, 0.7, 0.2; product: 0.09, 0.56, 0.19; last: 0.1, 0.7, 0.95; no answer never wins."""
    assert right('best of n (min)') == [1.0] == right('best of n (product)')
    assert right('best of n (last)') == [0.0]
    assert right('weighted majority (min)') == [1.0] == right('weighted majority (product)')
    assert right('weighted majority (last)') == [0.0]


def test_costs_are_of_the_turns_an_arm_needs():
    result = {name: point(arm) for name, arm in arms(ATTEMPTS).items()}
    assert result['majority'].tokens == [40.0]
    assert result['refined majority'].tokens == [4 * 40 + 3 * 7]
    assert result['best of n (min)'].tokens == [160.0]
    assert result['majority'].calls == [{'attempt': 4}]
    assert result['refined majority'].calls == [{'attempt': 4, 'critique': 4, 'refinement': 3}]


def test_processed_tokens_are_of_the_same_turns_as_sampled_ones():
    result = {name: point(arm).processed for name, arm in arms(ATTEMPTS).items()}
    assert result['majority'] == [4 * 15.0]
    assert result['refined majority'] == [4 * 65 + 3 * 60]
    assert result['best of n (min)'] == [4 * 65]
    assert point(arms(ATTEMPTS)['majority'], 1).processed == [15.0]
    first, later = chain('1', '7', '1')
    two = cost_curves.sequential_arms([[first]], {0: later}, num_rounds=2)
    assert point(two['sequential majority (last)']).processed == [125.0 + 110.0]


def test_processed_tokens_that_an_episode_lacks_are_unknown_and_not_zero():
    old = ATTEMPTS[1].with_facts(processed=None)
    for arm in arms([*ATTEMPTS, old], [*ATTEMPTS, ATTEMPTS[0]]).values():
        assert (point(arm).processed[0], point(arm).processed[1] > 0) == (None, True)
    assert cost_curves.recall_point([old], size=2).processed == [None]
    first, later = chain('1', '7', '1')
    later = [e.with_facts(processed=None) for e in later]
    two = cost_curves.sequential_arms([[first]], {0: later}, num_rounds=2)
    assert point(two['sequential majority (last)']).processed == [None]


def test_fewer_attempts_cost_their_share():
    arm = arms(ATTEMPTS)['refined majority']
    assert point(arm, 1).tokens == [pytest.approx((4 * 40 + 3 * 7) / 4)]
    assert point(arm, 2).calls[0]['refinement'] == pytest.approx(1.5)


@given(st.lists(st.sampled_from(['1', '7', '3', None]), min_size=1, max_size=6))
def test_one_attempt_is_worth_its_mean_and_all_their_majority(answers):
    group = [episode(answer) for answer in answers]
    for name in ('majority', 'best of n (min)', 'weighted majority (last)'):
        one = point(arms(group)[name], 1).right[0]
        assert one == pytest.approx(np.mean([answer == '7' for answer in answers]))
    assert right('majority', group) == [votes.majority(answers).get('7', 0.0)]


@given(st.lists(st.sampled_from(['1', '7', '3', '5']), min_size=2, max_size=7))
def test_a_majority_of_two_is_worth_one_of_them(answers):
    """Two answers agree, or each decides half of the time, whatever their places."""
    arm = arms([episode(answer) for answer in answers])['majority']
    assert point(arm, 2).right == pytest.approx(point(arm, 1).right)


@given(st.permutations(['1', '7', '7', '3', None, '1']), st.integers(1, 6))
def test_the_order_of_attempts_decides_nothing(answers, size):
    ordered, shuffled = (
        arms([episode(a, a) for a in some]) for some in (sorted(answers, key=str), answers)
    )
    for name in ('majority', 'refined majority', 'weighted majority (min)'):
        some, others = (point(a[name], size).right for a in (ordered, shuffled))
        assert some == pytest.approx(others), name


def test_a_size_is_worth_its_mean_over_all_sets():
    answers = ['7', '1', '7', '1', '1']
    triples = itertools.combinations(answers, 3)
    expected = np.mean([sorted(some)[1] == '7' for some in triples])
    arm = arms([episode(answer) for answer in answers])['majority']
    assert point(arm, 3).right == [pytest.approx(expected)]


def test_questions_are_apart():
    result = point(arms([episode('7')], [episode('1')])['majority'])
    assert result.right == [1.0, 0.0] and result.tokens == [10.0, 10.0]


def test_what_the_judge_calls_right_is_right_however_it_is_spelt():
    spelt = (answering('attempt', '1/2', True), answering('refinement', '2', False))
    refined = (answering('attempt', '3', False), answering('refinement', '2/4', True))
    spelt, refined = (records.Episode('p', 1, turns) for turns in (spelt, refined))
    assert cost_curves.right_answers([spelt, refined], '0.5') == {'1/2', '2/4', '0.5'}
    assert cost_curves.right_answers([], None) == set()


# Oracle


def test_the_oracle_spends_on_wrong_attempts_alone():
    group = [episode('7', '1'), episode('1', '1')]
    refined = {1: episode('1', '7')}
    result = point(cost_curves.oracle_arm([group], refined))
    assert result.right == [1.0]
    assert result.tokens == [10.0 + 47.0]
    assert result.calls == [{'attempt': 2, 'critique': 1, 'refinement': 1}]


def test_the_oracles_attempts_are_looked_up_by_id_over_all_questions():
    groups = [[episode('1')], [episode('1')]]
    result = point(cost_curves.oracle_arm(groups, {1: episode('1', '7')}))
    assert result.right == [0.0, 1.0]


# Sequential rounds

LATER = ('critique', 'refinement')


def chain(*finals):
    """A first round and later ones: the attempt's answer, then that after each round."""
    first = episode(finals[0], finals[1])
    later = [
        episode(before, after, roles=LATER) for before, after in itertools.pairwise(finals[1:])
    ]
    return first, later


def sequential(finals, num_rounds, which):
    first, later = chain(*finals)
    arm = cost_curves.sequential_arms([[first]], {0: later}, num_rounds=num_rounds)
    return point(arm[f'sequential majority ({which})'])


@pytest.mark.parametrize(
    ('finals', 'last', 'everything'),
    [
        ('17', [1.0], [1.0]),  # one each: the latest wins
        ('71', [0.0], [0.0]),
        ('177', [1.0], [1.0]),
        ('1171', [0.0], [0.0]),
        ('7731', [0.0], [1.0]),
    ],
)
def test_votes_are_of_the_last_round_or_of_all(finals, last, everything):
    rounds = len(finals) - 1
    assert sequential(finals, rounds, 'last').right == last
    assert sequential(finals, rounds, 'all').right == everything


def test_rounds_not_played_yet_neither_vote_nor_cost():
    assert sequential('1711', 1, 'all').right == [1.0]
    assert sequential('1711', 1, 'all').tokens == [47.0]
    assert sequential('1711', 3, 'all').right == [0.0]
    assert sequential('1711', 3, 'all').tokens == [47.0 + 2 * 37.0]


def test_a_chain_that_was_passed_repeats_its_answer():
    assert sequential('117', 2, 'all').right == [0.0]
    assert sequential('117', 4, 'all').right == [1.0]
    assert sequential('117', 4, 'all').tokens == sequential('117', 2, 'all').tokens


def test_the_first_round_is_what_parallel_refines():
    groups = [[chain('1', '7')[0], chain('7', '1')[0]]]
    arm = cost_curves.sequential_arms(groups, {}, num_rounds=1)['sequential majority (last)']
    refined = cost_curves.parallel_arms(groups)['refined majority']
    assert point(arm)[1:] == point(refined)[1:]


# Search


def test_a_search_costs_what_its_facts_count():
    searched = [episode('7'), episode('1')]
    result = cost_curves.recall_point(searched, size=4)
    assert (result.size, result.right, result.tokens) == (4, [1.0, 0.0], [47.0, 47.0])
    assert result.calls[0] == {'attempt': 1, 'critique': 1, 'refinement': 1}
    assert result.processed == [125.0, 125.0]
