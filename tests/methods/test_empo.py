"""EMPO: the share of the group with the same answer."""

import random

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import empo
from tests.support import method_cases

ANSWERS = st.lists(st.sampled_from(['1', '2', '3', None]), min_size=2, max_size=8)


def reward(answers, correct=False):
    facts = [{'answer': answer, 'correct': correct} for answer in answers]
    return empo.agreement(method_cases.turns(*facts))


def test_the_paper_rewards_a_cluster_by_its_share():
    assert reward(['7', '7', '7', '8', None]) == [0.6, 0.6, 0.6, 0.2, 0.0]
    assert reward(['1', '2', '3']) == [0.0, 0.0, 0.0]  # no two agree
    assert reward([None, None]) == [0.0, 0.0]  # to say nothing is no agreement


@given(ANSWERS, st.randoms())
def test_neither_labels_nor_names_of_answers_nor_their_order_matter(answers, rng):
    assert reward(answers, correct=True) == reward(answers)
    renamed = {'1': 'x', '2': '1', '3': '30', None: None}
    assert reward([renamed[answer] for answer in answers]) == reward(answers)
    order = list(range(len(answers)))
    random.Random(rng.random()).shuffle(order)
    assert reward([answers[i] for i in order]) == [reward(answers)[i] for i in order]
