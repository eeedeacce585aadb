"""The round controller: balance scores against their formula, and what is chosen by them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.exploration import controller, selection

SETTINGS = controller.CandidateSettings((0.5, 1.0), (0.0, 0.5), 4, 4, 2)
responses = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([None, 0.1, 0.5, 0.9])), max_size=8
)


def attempt(tokens, *, correct, score, problem='p'):
    facts = records.TurnFacts(correct=correct, score=score, passes_barrier=True)
    turn = records.Turn('attempt', (6,), (tokens,), facts=facts)
    return records.Episode(problem, 1, (turn,))


def attempts_of(drawn, right=(0, 1)):
    """Attempts of which those with these tokens are right; a response has one score."""
    scores = dict(drawn)
    return [attempt(t, correct=t in right, score=scores[t]) for t, _ in drawn]


def test_a_score_is_that_of_the_formula():
    attempts = attempts_of([(0, 0.9), (1, 0.6), (2, 0.7), (3, 0.2), (0, 0.9)])
    score = lambda threshold, target: controller.balance_score(  # noqa: E731
        attempts, threshold=threshold, target=target
    )
    assert score(0.0, 2) == pytest.approx(2 / 4)
    assert score(0.5, 2) == pytest.approx(2 / 3)
    assert score(0.5, 4) == pytest.approx(2 / 4 * 2 / 3)
    assert score(0.8, 2) == pytest.approx(1 / 2)
    assert score(1.0, 2) == 0.0


@given(responses, st.sampled_from([0.0, 0.5, 0.9]), st.integers(1, 4))
def test_a_score_is_a_share_that_repeats_do_not_change(drawn, threshold, target):
    attempts = attempts_of(drawn)
    score = controller.balance_score(attempts, threshold=threshold, target=target)
    assert 0 <= score <= 1
    again = controller.balance_score(attempts * 2, threshold=threshold, target=target)
    assert again == score


def test_the_best_average_over_questions_is_chosen_and_the_first_among_equals():
    easy = [attempt(i, correct=True, score=0.9, problem='easy') for i in (1, 2)]
    hard = [attempt(i, correct=i == 1, score=0.9 - i / 4, problem='hard') for i in (1, 2)]
    candidates = controller.score_candidates({0.5: easy[:1] + hard, 1.0: easy + hard}, SETTINGS)
    balances = [candidate['balance'] for candidate in candidates]
    assert balances == pytest.approx([3 / 8, 1 / 2, 5 / 8, 3 / 4])
    assert controller.choose(candidates) == controller.Knobs(1.0, 0.5)
    equal = [candidate | {'balance': 0.0} for candidate in candidates]
    assert controller.choose(equal) == controller.Knobs(0.5, 0.0)


def test_what_does_not_reach_the_threshold_makes_room_for_what_does():
    scores = (0.2, 0.9, None, 0.6, 0.7)
    attempts = [attempt(i, correct=True, score=score) for i, score in enumerate(scores)]
    wrong = attempt(9, correct=False, score=0.0)
    kept = selection.keep_above_threshold([*attempts, wrong], threshold=0.5, keep=2)
    assert kept == [attempts[1], attempts[3], wrong]
    assert selection.keep_above_threshold(attempts[:2], threshold=0.0, keep=5) == attempts[:2]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'temperatures': (0.5, 0.0)},
            r'improve\.candidates\.temperatures\[1\]=0\.0 must be at least 0\.01',
        ),
        ({'thresholds': ()}, r'thresholds=\(\)'),
        ({'thresholds': (0.5, 0.5)}, 'different values'),
        ({'thresholds': (0.5, 1.5)}, 'at most 1'),
        ({'target': 0}, r'improve\.candidates\.target=0 must be at least 1'),
    ],
)
def test_candidates_that_make_no_sense_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_a_figure_of_ones_own_is_of_what_reaches_the_threshold_by_question():
    rows = [attempt(1, correct=True, score=0.9), attempt(2, correct=False, score=0.2)]
    rows += [attempt(3, correct=True, score=0.1, problem='q')]
    sizes = lambda groups: 10 * len(groups[0]) + len(groups[1])  # noqa: E731
    candidates = controller.score_candidates({0.5: rows}, SETTINGS, sizes)
    assert [(c['threshold'], c['worth']) for c in candidates] == [(0.0, 21.0), (0.5, 10.0)]
    plain = controller.score_candidates({0.5: rows}, SETTINGS)
    assert [{k: v for k, v in c.items() if k != 'worth'} for c in candidates] == plain


@pytest.mark.parametrize('returned', [None, 'x', [1.0, 2.0], float('nan'), float('inf'), {}])
def test_a_figure_that_is_no_number_is_an_error_of_one_line(returned):
    rows = [attempt(1, correct=True, score=0.9)]
    message = 'improve.controller: .* it must return a finite number'
    with pytest.raises(ValueError, match=message) as error:
        controller.score_candidates({0.5: rows}, SETTINGS, lambda groups: returned)
    assert '\n' not in str(error.value)
