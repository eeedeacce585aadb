"""AUROC and Brier score, at their ends and by hand."""

import math

import pytest

from elenchus.configs.evaluations import p_true
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
