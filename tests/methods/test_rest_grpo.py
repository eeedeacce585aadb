"""ReST-RL: groups of little spread are not trained; the tree goes on among the best lines."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import rest_grpo
from elenchus.sampling.trees import selection
from elenchus.train.rl import advantages
from tests.sampling.trees import test_tree
from tests.support import method_cases


@pytest.mark.parametrize(
    ('rewards', 'is_kept'),
    [([0.0, 1.0], True), ([0.5, 0.599], False), ([0.5, 0.601], True), ([1.0, 1.0], False)],
)
def test_a_group_is_kept_by_the_deviation_of_its_rewards(rewards, is_kept):
    returns = np.array(rewards)[:, None]
    values, context = method_cases.outcome(rest_grpo.spread, returns)
    assert values.any() == is_kept
    if is_kept:  # as GRPO has it
        np.testing.assert_allclose(values, advantages.OUTCOMES['grpo'](returns, context), 1e-6)


def test_the_tree_by_hand():
    """Values 0.5, 0.4, 0.3 and 0.2, of 2, 1, 1 and 1 visits: the last child is never gone to."""
    places = [(0, 0.5), (0, 0.4), (0, 0.3), (0, 0.2), (1, 0.5)]
    nodes = test_tree.grown(places, children=4).view()
    top = math.sqrt(1 + math.log(5))
    equal = 0.1 / top / (1 / math.sqrt(1.1) - 1 / math.sqrt(2.1))
    choices = [rest_grpo.uct(nodes, equal + d, 0.0) for d in (-0.01, 0.01, 100.0)]
    assert choices == [1, 2, 2]


@given(test_tree.drawn_trees(), st.floats(0, 2))
def test_the_tree_always_takes_an_open_node(tree, exploration):
    nodes = tree.view()
    if nodes[0].is_live:
        selection.select(rest_grpo.uct, nodes, exploration=exploration, draw=0.5)
