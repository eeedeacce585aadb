"""Each metric on cases by hand, and its properties on random episodes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.metrics import critic_metrics


def episode(correct, *, refined=None, verdict=None, level=1, scores=(), **facts):
    located = facts.pop('located', None)
    if 'first_error' in facts:
        facts = {'steps_correct': facts['first_error'] is None} | facts
    steps = tuple(records.Step(i + 1, score) for i, score in enumerate(scores))
    attempt = records.TurnFacts(**{'correct': correct, 'answer': '7'} | facts)
    critique = records.TurnFacts(verdict=verdict, located=located)
    turns = [
        records.Turn('attempt', (6,), (1,) * len(scores), steps=steps, facts=attempt),
        records.Turn('critique', (7,), (), facts=critique),
    ]
    if refined is not None:
        refinement = records.TurnFacts(correct=refined)
        turns.append(records.Turn('refinement', (8,), (), facts=refinement))
    return records.Episode('p', level, tuple(turns))


truths = st.booleans()
played = st.builds(
    episode,
    truths,
    refined=st.none() | truths,
    verdict=st.none() | truths,
    level=st.integers(1, 3),
)
some = st.lists(played, min_size=1, max_size=30)


# Refinement


def changed(c2c, c2i, i2c, i2i):
    counts = {(1, 1): c2c, (1, 0): c2i, (0, 1): i2c, (0, 0): i2i}
    return [
        episode(bool(before), refined=bool(after))
        for (before, after), count in counts.items()
        for _ in range(count)
    ]


def test_transitions_are_shares_of_all_attempts_and_helpfulness_of_wrong_ones():
    summary = critic_metrics.transitions(changed(4, 1, 3, 2))
    expected = {'c2c': 0.4, 'c2i': 0.1, 'i2c': 0.3, 'i2i': 0.2, 'delta': 0.2, 'helpfulness': 0.6}
    assert summary == pytest.approx(expected)


def test_what_was_not_refined_stays_as_it_is():
    summary = critic_metrics.transitions([episode(True), episode(False)])
    assert (summary['c2c'], summary['i2i'], summary['delta']) == (0.5, 0.5, 0.0)


def test_a_rate_of_nothing_is_none():
    assert critic_metrics.transitions([episode(True)])['helpfulness'] is None
    summary = critic_metrics.confidence_and_critique([episode(True)])
    assert (summary['CL'], summary['CS'], summary['RSS']) == (1.0, None, None)


@given(some)
def test_transitions_add_up_and_delta_is_what_accuracy_wins(episodes):
    summary = critic_metrics.transitions(episodes)
    assert sum(summary[name] for name in ('c2c', 'c2i', 'i2c', 'i2i')) == pytest.approx(1)
    before = sum(e.attempt.facts.correct for e in episodes) / len(episodes)
    after = sum(critic_metrics.finally_correct(e) for e in episodes) / len(episodes)
    assert summary['delta'] == pytest.approx(after - before)


def test_confidence_and_critique_by_hand():
    summary = critic_metrics.confidence_and_critique(changed(4, 1, 3, 2))
    assert summary['CL'] == 0.8 and summary['CS'] == 0.6
    assert summary['RSS'] == pytest.approx((0.7 - 0.25) / (1.0 - 0.5))


@given(some)
def test_accuracy_after_follows_from_confidence_and_critique(episodes):
    summary = critic_metrics.confidence_and_critique(episodes)
    a = summary['before']
    assert summary['after'] == pytest.approx(
        a * (summary['CL'] or 0) + (1 - a) * (summary['CS'] or 0)
    )


@given(st.integers(1, 9), st.integers(1, 9))
def test_relative_self_correction_is_a_half_where_nothing_is_won(right, wrong):
    for swapped in range(min(right, wrong) + 1):
        summary = critic_metrics.confidence_and_critique(
            changed(right - swapped, swapped, swapped, wrong - swapped)
        )
        assert summary['RSS'] == pytest.approx(0.5)


@pytest.mark.parametrize(('counts', 'rss'), [((1, 1, 0, 2), 0.0), ((2, 0, 1, 1), 1.0)])
def test_relative_self_correction_is_zero_and_one_at_its_bounds(counts, rss):
    assert critic_metrics.confidence_and_critique(changed(*counts))['RSS'] == pytest.approx(rss)


# The critic


def test_garbled_critiques_lower_all_rates_but_discriminability():
    summary = critic_metrics.critic(
        [
            episode(True, verdict=True),
            episode(True, verdict=None),
            episode(False, verdict=False),
            episode(False, verdict=False),
            episode(False, verdict=True),
            episode(False, verdict=None),
        ]
    )
    assert summary == {
        'discriminability': 3 / 4,
        'discriminability_right': 1.0,
        'discriminability_wrong': pytest.approx(2 / 3),
        'passed': 0.5,
        'found': 0.5,
        'parse_rate': pytest.approx(4 / 6),
        'by_steps': None,
    }


@given(some)
def test_no_critic_gains_by_garbling(episodes):
    summary = critic_metrics.critic(episodes)
    for rate, parsed in (('passed', 'right'), ('found', 'wrong')):
        of_parsed = summary[f'discriminability_{parsed}']
        assert summary[rate] is None or summary[rate] <= (of_parsed or 0.0) + 1e-12


@given(some)
def test_discriminability_is_between_its_two_halves(episodes):
    summary = critic_metrics.critic(episodes)
    halves = [summary[f'discriminability_{half}'] for half in ('right', 'wrong')]
    known = [half for half in halves if half is not None]
    if known:
        assert min(known) - 1e-12 <= summary['discriminability'] <= max(known) + 1e-12
    else:
        assert summary['discriminability'] is None


@pytest.mark.parametrize(
    ('pairs', 'f1'),
    [
        ([(None, None)], 0.0),
        ([(2, 2), (None, None)], 1.0),
        ([(1, 2)], 0.0),
        ([(0, 0), (0, None), (None, 3)], 0.5),
    ],
)
def test_location_counts_the_very_line(pairs, f1):
    assert critic_metrics.first_error_micro_f1(pairs) == f1
    episodes = [episode(True, located=l, first_error=t) for l, t in pairs]
    assert critic_metrics.critic(episodes)['first_error_micro_f1'] == f1


def test_without_checkable_steps_nothing_is_said_of_them():
    episodes = [episode(True, verdict=True, score=0.9, scores=(0.5,))]
    measures = critic_metrics.critic(episodes)
    assert not {'first_error_micro_f1', 'processbench_f1'} & measures.keys()
    assert critic_metrics.spurious_share(episodes) is None
    assert critic_metrics.detection(episodes) == {}
    assert set(critic_metrics.calibration(episodes, num_bins=2)) == {'final'}


def test_answers_reached_through_a_wrong_step_are_counted_among_right_ones():
    episodes = [
        episode(c, steps_correct=s, first_error=None if s else 0)
        for c, s in ((True, True), (True, False), (False, False))
    ]
    assert critic_metrics.spurious_share(episodes) == 0.5


def test_detection_is_by_kind_of_mistake_and_location_by_line():
    mistakes = [('operand', False, 1), ('operand', False, 0), ('operand', None, None)]
    episodes = [
        episode(False, kind=kind, verdict=verdict, located=located, first_error=1)
        for kind, verdict, located in mistakes
    ]
    episodes += [
        episode(True, kind=None, verdict=False, first_error=None),
        episode(True, kind='target', verdict=True, first_error=2),
    ]
    summary = critic_metrics.detection(episodes)
    third = pytest.approx(1 / 3)
    assert summary == {
        'operand': {'attempts': 3, 'found': pytest.approx(2 / 3), 'located': third},
        'target': {'attempts': 1, 'found': 0.0, 'located': 0.0},
    }


# Uncertainty


def answering(answers):
    return [episode(a == '7', verdict=True, answer=a) for a in answers]


def test_entropy_is_zero_where_all_agree_and_one_where_none_do():
    assert critic_metrics.vote_entropy(answering('7')) == 0.0
    assert critic_metrics.vote_entropy(answering('7777')) == 0.0
    assert critic_metrics.vote_entropy(answering('7123')) == pytest.approx(1.0)
    assert critic_metrics.vote_entropy(answering('7711')) == pytest.approx(0.5)
    assert critic_metrics.vote_entropy(answering(['7', '7', None, None])) == pytest.approx(0.5)


def test_uncertain_questions_are_apart_from_certain_ones():
    groups = [answering('7777'), answering('1111'), answering('7123')]
    sure, unsure = critic_metrics.uncertainty(groups, num_bins=4)
    assert (sure['low'], sure['high'], sure['questions']) == (0.0, 0.25, 2)
    assert (unsure['low'], unsure['high'], unsure['questions']) == (0.75, 1.0, 1)
    assert (sure['accuracy'], unsure['accuracy']) == (0.5, 0.25)
    assert (sure['discriminability'], unsure['discriminability']) == (0.5, 0.25)


@given(st.lists(st.lists(st.sampled_from('1237'), min_size=3, max_size=3), min_size=1))
def test_every_question_is_in_one_bin(answers):
    summary = critic_metrics.uncertainty([answering(a) for a in answers], num_bins=5)
    assert sum(b['questions'] for b in summary) == len(answers)
    assert all(b['low'] <= b['uncertainty'] <= b['high'] + 1e-9 for b in summary)


# Calibration


def test_steps_after_the_first_error_are_unknown():
    wrong = episode(False, scores=(0.9, 0.8, 0.3, 0.7), first_error=2)
    assert critic_metrics.known_steps(wrong) == [(0.9, True), (0.8, True), (0.3, False)]
    right = episode(True, scores=(0.9, 0.8), first_error=None)
    assert critic_metrics.known_steps(right) == [(0.9, True), (0.8, True)]


def test_reliability_by_hand():
    pairs = [(0.1, False), (0.3, True), (0.9, True), (1.0, True)]
    summary = critic_metrics.reliability(pairs, num_bins=2)
    low, high = summary['curve']
    assert (low['count'], low['score'], low['right']) == (2, pytest.approx(0.2), 0.5)
    assert (high['count'], high['score'], high['right']) == (2, pytest.approx(0.95), 1.0)
    assert summary['ece'] == pytest.approx((2 * 0.3 + 2 * 0.05) / 4)
    assert summary['brier'] == pytest.approx((0.01 + 0.49 + 0.01 + 0.0) / 4)
    assert (summary['count'], summary['score'], summary['right']) == (4, pytest.approx(0.575), 0.75)


@given(st.integers(0, 10), st.integers(1, 10))
def test_a_score_that_is_the_share_of_right_ones_is_calibrated(right, wrong):
    share = right / (right + wrong)
    pairs = [(share, True)] * right + [(share, False)] * wrong
    assert critic_metrics.reliability(pairs, num_bins=7)['ece'] == pytest.approx(0, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), truths), min_size=1), st.integers(1, 12))
def test_calibration_error_is_within_its_bounds(pairs, num_bins):
    summary = critic_metrics.reliability(pairs, num_bins=num_bins)
    assert abs(summary['score'] - summary['right']) - 1e-9 <= summary['ece'] <= 1 + 1e-9
    assert sum(b['count'] for b in summary['curve']) == summary['count'] == len(pairs)
    assert all(b['low'] <= b['score'] <= b['high'] + 1e-9 for b in summary['curve'])


def test_calibration_is_of_finals_of_steps_and_of_each_position():
    summary = critic_metrics.calibration(
        [
            episode(True, scores=(1.0, 0.0), first_error=None, score=0.9),
            episode(False, scores=(0.4,), first_error=0, score=None),
        ],
        num_bins=10,
    )
    assert summary['final']['count'] == 1 and summary['steps']['count'] == 3
    assert summary['unjudged'] == pytest.approx(1 / 3) and summary['judged']['count'] == 2
    assert {p: r['count'] for p, r in summary['positions'].items()} == {'1': 2, '2': 1}
    assert summary['positions']['2']['ece'] == 1.0


def test_nothing_to_score_is_no_calibration():
    summary = critic_metrics.reliability([], num_bins=10)
    assert summary['count'] == 0 and summary['ece'] is None and summary['curve'] == []


# Levels


@given(some)
def test_levels_are_measured_apart_and_all_together(episodes):
    summary = critic_metrics.by_level(episodes, len)
    assert summary.pop('all') == len(episodes) == sum(summary.values())
    assert summary == {str(n): sum(e.level == n for e in episodes) for n in map(int, summary)}


def test_levels_are_in_the_order_of_their_numbers():
    assert list(critic_metrics.by_level([episode(True, level=n) for n in (10, 2)], len)) == [
        'all',
        '2',
        '10',
    ]
    assert math.isclose(critic_metrics.vote_entropy(answering('12')), 1.0)


def test_a_judge_of_steps_is_perfect_by_steps_and_not_by_answers():
    """Of four right answers one has a wrong step, which the critic calls wrong."""
    sound = [episode(True, verdict=True, first_error=None) for _ in range(3)]
    spurious = episode(True, verdict=False, located=0, first_error=0)
    wrong = episode(False, verdict=False, located=1, first_error=1)
    summary = critic_metrics.critic([*sound, spurious, wrong])
    assert (summary['discriminability'], summary['passed']) == (0.8, 0.75)
    expected = dict.fromkeys(
        ('discriminability', 'discriminability_right', 'discriminability_wrong', 'passed', 'found'),
        1.0,
    )
    assert summary['by_steps'] == expected
    # One that misses the slip gains by answers and loses by steps.
    lenient = critic_metrics.critic([*sound, episode(True, verdict=True, first_error=0), wrong])
    assert lenient['discriminability'] == 1.0 and lenient['by_steps']['found'] == 0.5
    assert critic_metrics.critic([episode(True, verdict=True)])['by_steps'] is None
