"""MC-NEST: rewards, Q of the nodes above, candidates, and the draw by UCT and Nash strategy."""

import math
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import mc_nest
from elenchus.sampling.trees import selection, values
from elenchus.sampling.trees.tree import Node
from elenchus.train.config import build, players
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import PROBLEM


def said(*texts):
    return mc_nest.reward(PROBLEM, values.NodeNotes('an answer', True, written=texts))


def test_a_reward_is_a_number_in_words_and_full_marks_lose_five():
    (request,) = said()
    assert 'an answer' in request and mc_nest.reward.num_requests == 1
    numbers = {
        '95': 95,
        '96': 91,
        '100': 95,
        '-100': -100,
        '-400': -100,
        '85/100': 85,
        'none': -100,
    }
    for number, expected in numbers.items():
        assert 200 * said(f'Out of 100. Score: {number}') - 100 == pytest.approx(expected)
    assert said('I would give it 20 out of 100.') == 0


@given(st.text(max_size=30))
def test_a_reward_is_within_bounds_whatever_is_said(text):
    assert 0 <= said(text) <= 1


def test_a_node_goes_half_of_the_way_to_its_best_child():
    node, *children = [types.SimpleNamespace(value=v) for v in (0.2, 0.8, 0.4)]
    assert mc_nest.halfway(node, children, 0.4) == pytest.approx(0.5)


def tree(*values, root=0.3):
    """A root of two children with these values, open, and a child of the first that is better."""
    first, second = values
    return [
        Node(None, (1, 2), 0, 3, root, 0.0, 1.0, False, True),
        Node(0, (3,), 1, 2, first, first, 0.5, True, True),
        Node(0, (), 1, 1, second, second, 0.5, True, True),
        Node(1, (), 2, 1, 0.9, 0.9, 1.0, True, True),
    ]


def test_the_draw_by_hand():
    """Candidates are both children: u = 0.95 + sqrt(ln 4 / 2) and 0.4 + sqrt(ln 4)."""
    nodes = tree(0.95, 0.4)
    bounds = [0.95 + math.sqrt(math.log(4) / 2), 0.4 + math.sqrt(math.log(4))]
    share = bounds[0] / sum(bounds)
    assert [mc_nest.nash(nodes, 1.0, share + d) for d in (-1e-6, 1e-6)] == [1, 2]


def test_a_node_with_a_better_child_is_no_candidate():
    assert {mc_nest.nash(tree(0.5, 0.4), 1.0, d / 10) for d in range(10)} == {2}


def test_without_a_child_of_the_root_the_draw_is_uniform():
    nodes = tree(0.5, 0.4)
    nodes[2] = nodes[2]._replace(is_open=False)
    assert {mc_nest.nash(nodes, 1.0, d / 10) for d in range(10)} == {3}


def test_the_policies_differ_on_one_tree():
    nodes = tree(0.95, 0.4)
    rules = (mc_nest.nash, selection.greedy, selection.importance, selection.pairwise)
    choices = [[rule(nodes, 0.1, d / 20) for d in range(20)] for rule in rules]
    assert all(a != b for i, a in enumerate(choices) for b in choices[:i])


def test_it_is_a_row_of_the_evaluation():
    s = build.build(RunSettings, mc_nest.get_config('default'))
    assert players.searching_stages(s) == ('evaluate',)
    assert s.evaluate.tree_problems == s.evaluate.num_problems
    assert s.sampling.tree.grow == 'refinement' and not s.sampling.tree.reads_labels
