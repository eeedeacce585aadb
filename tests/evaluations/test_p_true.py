"""AUROC and Brier score, at their ends and by hand; a probe that knows, and one that cannot."""

import math

import numpy as np
import pytest

from elenchus.configs.evaluations import p_true
from elenchus.sampling.metrics import measures
from tests.support import method_cases


def figures_of(*pairs):
    row = [{'score': score, 'correct': correct} for score, correct in pairs]
    return p_true.p_true(method_cases.groups(row), str)


def test_worked_values():
    assert figures_of((0.9, True), (0.1, False)) == {'AUROC': 1.0, 'Brier': pytest.approx(0.01)}
    assert figures_of((0.1, True), (0.9, False))['AUROC'] == 0.0
    assert figures_of((0.5, True), (0.5, False)) == {'AUROC': 0.5, 'Brier': 0.25}
    figures = figures_of((0.8, True), (0.4, True), (0.6, False), (None, True))
    assert figures['AUROC'] == 0.5
    assert figures['Brier'] == pytest.approx((0.04 + 0.36 + 0.36) / 3)


def test_scores_of_one_kind_of_answer_have_no_ranking():
    figures = figures_of((0.5, True), (None, False))
    assert math.isnan(figures['AUROC']) and figures['Brier'] == 0.25
    assert all(map(math.isnan, figures_of((None, True)).values()))


def probed(states, right, attempts=4):
    """Figures of P(IK); right[i] of the attempts at question i are right."""
    rows = [[{'correct': k < count} for k in range(attempts)] for count in right]
    return p_true.p_ik(method_cases.groups(*rows), str, np.asarray(states, float))


def test_a_state_that_tells_what_is_known_predicts_it_before_any_attempt():
    rng = np.random.default_rng(0)
    known = rng.random(200) < 0.5
    states = rng.normal(size=(200, 5))
    states[:, 2] += 4 * known
    figures = probed(states, np.where(known, 4, 0))
    assert figures['AUROC'] > 0.95 and figures['Brier'] < 0.1
    shares = probed(states, np.where(known, 3, 1))  # soft labels: 3/4 and 1/4
    assert 0.7 < shares['AUROC'] < 0.8 and 0.18 < shares['Brier'] < 0.21  # at best 3/16


def test_a_state_without_a_sign_of_it_predicts_no_better_than_chance():
    rng = np.random.default_rng(1)
    figures = probed(rng.normal(size=(400, 3)), np.where(rng.random(400) < 0.5, 4, 0))
    assert 0.4 < figures['AUROC'] < 0.6 and figures['Brier'] == pytest.approx(0.25, abs=0.02)


def test_no_question_is_predicted_by_a_probe_that_saw_its_answers():
    rng = np.random.default_rng(2)  # more dimensions than questions: it could repeat every label
    figures = probed(rng.normal(size=(41, 60)), rng.integers(0, 2, 41) * 4)
    assert figures['AUROC'] < 0.6 and figures['Brier'] > 0.2


def test_the_states_are_computed_only_for_who_reads_them():
    groups = method_cases.groups([{'correct': True, 'score': 0.9}] * 2, [{'correct': False}] * 2)
    calls = []

    def states():
        calls.append(1)
        return np.array([[1.0, 0.0], [0.0, 1.0]])

    options = {'states': states}
    measures.measure([f'{p_true.HERE}:p_true'], groups, str, **options)
    assert not calls
    figures = measures.measure([f'{p_true.HERE}:p_ik'], groups, str, **options)
    assert calls == [1] and set(figures['own_measures']['p_ik']) == {'AUROC', 'Brier'}
