"""AlphaLLM: adaptive widths, UCT over them, and a value of several critics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import alpha_llm
from elenchus.sampling.trees import selection
from elenchus.sampling.trees.tree import BACKUPS
from elenchus.train.config import build, players
from elenchus.train.config.run_settings import RunSettings
from tests.sampling.trees import test_tree


def test_a_width_grows_with_the_importance_of_a_node():
    """I is 0.1, 0.25 and 0.5, times 20."""
    assert alpha_llm.width(()) == alpha_llm.width((0.5,)) == 3
    assert [alpha_llm.width((0.5 - d, 0.5 + d)) for d in (0.1, 0.26, 0.5)] == [3, 5, 10]


@given(st.lists(st.floats(0, 1)))
def test_a_width_is_within_bounds(values):
    assert 3 <= alpha_llm.width(values) <= 10


def test_a_node_gets_children_up_to_its_width_and_then_its_best_child_does():
    alike = test_tree.grown([(0, 0.5), (0, 0.5), (0, 0.6)], children=10)
    assert alpha_llm.adaptive(alike.view(), 1.0, 0.0) == 3
    apart = test_tree.grown([(0, 0.1), (0, 0.5), (0, 0.9)], children=10)
    assert alpha_llm.adaptive(apart.view(), 1.0, 0.0) == 0  # |0.9 - 0.5| * 20 = 8 children
    few = test_tree.grown([(0, 0.5), (0, 0.6)], children=10)
    assert alpha_llm.adaptive(few.view(), 1.0, 0.0) == 0


@given(test_tree.drawn_trees(), st.floats(0, 2))
def test_it_always_takes_an_open_node(tree, exploration):
    nodes = tree.view()
    if nodes[0].is_live:
        selection.select(alpha_llm.adaptive, nodes, exploration=exploration, draw=0.5)


def test_a_value_is_of_prefix_and_continuations_and_the_best_path_is_trained():
    s = build.build(RunSettings, alpha_llm.get_config('gsm8k:tiny'))
    tree = s.sampling.tree
    assert dict(tree.values) == {'product': 1.0, 'rollout_scores': 1.0}
    assert tree.num_rollouts == 4 and tree.num_nodes == 40 and tree.expansions == 1
    assert tree.backup in BACKUPS.functions and not tree.reads_labels
    assert players.searching_stages(s) == ('tree_search',)
    assert s.improve.num_rounds == 2 and s.improve.explore.keep == 1
    assert s.improve.explore.accept == 'critic'
    assert tree.exploration == pytest.approx(1.0)
