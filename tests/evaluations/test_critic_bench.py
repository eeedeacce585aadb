"""Verdicts by how often the actor is right; a missing verdict is a wrong one."""

import math

from elenchus.configs.evaluations import critic_bench
from tests.support import method_cases


def cell(correct, verdict):
    return {'correct': correct}, {'verdict': verdict}


def test_verdicts_by_the_share_of_right_attempts():
    easy = [cell(True, True), cell(True, False), cell(True, True), cell(False, False)]
    hard = [cell(False, False), cell(False, None), cell(False, True), cell(False, False)]
    figures = critic_bench.verdicts(method_cases.groups(easy, hard), str)
    assert (figures['easy'], figures['hard'], figures['all']) == (0.75, 0.5, 0.625)
    assert math.isnan(figures['middling'])


def test_a_critic_that_always_approves_is_right_as_often_as_the_actor():
    group = [cell(True, True), cell(False, True)]
    assert critic_bench.verdicts(method_cases.groups(group), str)['middling'] == 0.5
