"""Trees: visits, values, priors, and rules of selection by hand and on drawn trees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.trees import selection
from elenchus.sampling.trees.tree import BACKUPS, Grown, Tree, checked_value
from tests.support.method_cases import PROBLEM, talk, written


def attempt(*tokens, logprobs=()):
    turn = written('attempt', tokens, scores=[None] * len(tokens))
    return talk(records.Turn(**{**vars(turn), 'logprobs': tuple(logprobs)}))


def empty_tree(children=3, depth=4):
    return Tree(PROBLEM, 0, [Grown(None, 0, attempt(), False)], children, depth, False)


def grown(places, rule='mean', **size):
    """A tree from (parent, value) of each node in order; a node's tokens are its path."""
    tree = empty_tree(**size)
    for parent, value in places:
        path = tree.nodes[parent].episode.attempt.tokens
        i = tree.add(parent, attempt(*path, len(tree.nodes)), ended=False)
        tree.back_up(i, value, BACKUPS[rule])
    return tree


def values(tree):
    return [pytest.approx(node.value) for node in tree.nodes]


CHAIN = [(0, 0.2), (1, 0.8), (1, 0.5), (0, 0.6)]


def test_a_mean_is_of_all_values_of_the_subtree():
    tree = grown(CHAIN)
    assert values(tree) == [0.525, 0.5, 0.8, 0.5, 0.6]
    assert [node.visits for node in tree.nodes] == [4, 3, 1, 1, 1]


def test_a_maximum_is_the_value_of_the_best_way_on():
    assert values(grown(CHAIN, 'max')) == [0.8, 0.8, 0.8, 0.5, 0.6]


def test_an_equal_child_is_counted_and_not_kept():
    tree = empty_tree(children=2)
    assert [tree.add(0, attempt(7), ended=False) for _ in range(2)] == [1, None]
    assert tree.samples == 2 and not tree.view()[0].is_open


def test_priors_are_the_actors_probabilities_among_siblings():
    tree = empty_tree()
    for token, p in ((1, 0.6), (2, 0.2)):
        tree.add(0, attempt(token, logprobs=[math.log(p)]), ended=False)
    tree.add(1, attempt(1, 3, logprobs=[math.log(0.6), math.log(0.5)]), ended=False)
    assert [node.prior for node in tree.view()] == pytest.approx([1, 0.75, 0.25, 1])
    assert tree.nodes[3].logprob == pytest.approx(math.log(0.5))


def test_the_scores_of_a_path_are_the_values_of_its_nodes():
    tree = grown(CHAIN)
    assert tree.episode_of(2).attempt.step_scores == pytest.approx((0.5, 0.8))
    longer = tree.with_values(2, attempt(1, 2, 9))
    assert longer.attempt.step_scores == (pytest.approx(0.5), pytest.approx(0.8), None)


def test_the_best_has_ended():
    tree = grown(CHAIN)
    assert tree.best() == 2
    tree.nodes[3].ended = tree.nodes[4].ended = True
    assert tree.best() == 4 and empty_tree().best() == 0


@st.composite
def drawn_trees(draw, ended=True):
    tree = empty_tree(children=draw(st.integers(1, 3)), depth=draw(st.integers(1, 4)))
    rule = BACKUPS[draw(st.sampled_from(['mean', 'max']))]
    for _ in range(draw(st.integers(0, 12))):
        open_nodes = selection.open_nodes(tree.view())
        if not open_nodes:
            break
        parent = draw(st.sampled_from(open_nodes))
        path = tree.nodes[parent].episode.attempt.tokens
        i = tree.add(parent, attempt(*path, len(tree.nodes)), ended=draw(st.booleans()))
        tree.back_up(i, draw(st.floats(0, 1)), rule)
    return tree


@given(drawn_trees())
def test_visits_add_up_and_values_stay_within_bounds(tree):
    nodes = tree.view()
    for node in nodes:
        assert node.visits == (node.parent is not None) + sum(
            nodes[i].visits for i in node.children
        )
        assert 0 <= node.value <= 1
    for node in nodes:
        assert not node.children or math.isclose(sum(nodes[i].prior for i in node.children), 1)


@given(
    drawn_trees(),
    st.sampled_from(sorted(selection.SELECTIONS.functions)),
    st.floats(0, 2),
    st.floats(0, 1, exclude_max=True),
)
def test_every_rule_takes_an_open_node_and_changes_nothing(tree, name, exploration, draw):
    nodes, rule = tree.view(), selection.SELECTIONS[name]
    is_live = bool(selection.open_nodes(nodes))
    assert nodes[0].is_live == is_live
    if is_live:
        options = {'exploration': exploration, 'draw': draw}
        index = selection.select(rule, nodes, **options)
        assert nodes[index].is_open and nodes == tree.view()
        assert index == selection.select(rule, nodes, **options)


# By hand


def full_root(exploration, rule, draw=0.0):
    """Root with two children of values 0.5 and 0.4, of 3 and 1 visits."""
    tree = grown([(0, 0.5), (0, 0.4), (1, 0.5), (1, 0.5)], children=2)
    return rule(tree.view(), exploration, draw)


def test_uct_explores_the_child_with_few_visits():
    """0.5 + c sqrt(ln 4 / 3) against 0.4 + c sqrt(ln 4): equal at c = 0.2009."""
    equal = 0.1 / (math.sqrt(math.log(4)) - math.sqrt(math.log(4) / 3))
    assert equal == pytest.approx(0.2009, abs=1e-4)
    assert full_root(0.19, selection.uct) == 3  # below node 1, whose two children are there
    assert full_root(0.21, selection.uct) == 2


def test_puct_by_hand():
    """Equal priors: 0.5 + c / 4 against 0.4 + c / 2, so equal at c = 0.4."""
    assert full_root(0.39, selection.puct) == 3
    assert full_root(0.41, selection.puct) == 2


def test_global_rules_by_hand():
    """Open are node 2 (0.4), and 3 and 4 (0.5), whose parent has 3 visits."""
    assert full_root(0.0, selection.greedy) == 3
    assert [full_root(0.0, selection.importance, d) for d in (0.28, 0.29, 0.64, 0.65)] == [
        2,
        3,
        3,
        4,
    ]
    # Pairs differ by 0.1, 0.1 and 0.
    assert [full_root(0.0, selection.pairwise, d) for d in (0.49, 0.51, 0.99)] == [3, 4, 4]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=5), st.floats(0, 1, exclude_max=True))
def test_a_pick_never_has_no_weight(weights, draw):
    index = selection.pick(weights, draw)
    assert 0 <= index < len(weights)
    assert weights[index] > 0 or not sum(weights)


def test_functions_that_return_anything_else_are_named():
    tree = grown(CHAIN)

    def first(nodes, exploration, draw):
        return 99

    with pytest.raises(ValueError, match=r'select: first .* returned 99; it must return the index'):
        selection.select(first, tree.view(), exploration=1.0, draw=0.0)
    for index in (np.array([0]), np.array([0, 0]), np.array(99)):
        with pytest.raises(ValueError, match='returned .*; it must return the index of an open'):
            selection.select(lambda *_, i=index: i, tree.view(), exploration=1.0, draw=0.0)
    assert selection.select(lambda *_: np.int64(0), tree.view(), exploration=1.0, draw=0.0) == 0
    for bad in (1.1, -0.1, math.nan, 'x', None):
        with pytest.raises(ValueError, match='it must return a number in'):
            checked_value(bad, first, 'sampling.tree.values')
