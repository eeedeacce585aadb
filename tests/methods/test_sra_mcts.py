"""SRA-MCTS: scores in words, values weighted by visits, and the best path as training data."""

import math
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import sra_mcts
from elenchus.sampling.trees import selection, values
from elenchus.sampling.trees.tree import Node
from elenchus.train.config import build, players
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import PROBLEM


def said(*texts):
    return sra_mcts.score(PROBLEM, values.NodeNotes('a step', False, written=texts))


def test_a_score_needs_one_request_and_is_read_as_the_authors_do():
    (request,) = said()
    assert PROBLEM.question in request and 'a step' in request
    assert [said(text) for text in ('Score: 8', 'score:10', 'Score: 99', 'no number')] == [
        0.8, 1.0, 1.0, 0.5
    ]  # fmt: skip
    assert sra_mcts.score.num_requests == 1


def nodes_of(parent, *children):
    return [types.SimpleNamespace(visits=n, value=v) for n, v in (parent, *children)]


def test_a_value_is_the_mean_of_the_children_by_visits():
    """Children of V 6 (twice) and 9 (once), of ten: (2 * 6 + 9) / 3 = 7."""
    node, *children = nodes_of((3, 0.1), (2, 0.6), (1, 0.9))
    assert sra_mcts.weighted(node, children, 0.9) == pytest.approx(0.7)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1))
def test_a_value_is_between_those_of_the_children(pairs):
    node, *children = nodes_of((sum(n for n, _ in pairs), 0.0), *pairs)
    low, high = (pick(v for _, v in pairs) for pick in (min, max))
    assert low - 1e-9 <= sra_mcts.weighted(node, children, 0.0) <= high + 1e-9


def test_selection_is_the_authors_up_to_the_scale():
    """V + 0.5 sqrt(2 ln 4 / n) with V = 6, n = 2 and V = 6.4, n = 1; a tenth of it here."""
    s = build.build(RunSettings, sra_mcts.get_config('default')).sampling.tree
    rows = [Node(0, (), 1, n, v / 10, v / 10, 0.5, True, True) for v, n in ((6, 2), (6.4, 1))]
    nodes = [Node(None, (1, 2), 0, 4, 0.6, 0, 1, False, True), *rows]
    for i, (v, n) in enumerate(((6, 2), (6.4, 1)), 1):
        bound = selection.upper_bound(nodes, i, s.exploration)
        assert 10 * bound == pytest.approx(v + 0.5 * math.sqrt(2 * math.log(4) / n))


def test_the_best_path_is_trained_without_labels():
    s = build.build(RunSettings, sra_mcts.get_config('default'))
    assert players.searching_stages(s) == ('tree_search',)
    assert s.improve.explore.keep == 1 and s.improve.explore.accept == 'critic'
    assert not s.sampling.tree.reads_labels
