"""Step-APO: siblings of one prefix, with the gap of their advantages as the offset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import step_apo
from elenchus.train import pair_rules
from elenchus.train.config import build, players
from elenchus.train.config.run_settings import RunSettings
from tests.sampling.trees import test_tree
from tests.support.method_cases import group, last_tokens, talk, written


def response(tokens, scores):
    return talk(written('attempt', tokens, scores=scores))


def test_the_offset_is_alpha_times_the_gap_of_the_advantages():
    """q = 2 score - 1: 0.8 and -0.6 after the same first step, so the margin must exceed 1.4."""
    pairs = step_apo.siblings(
        [group(response((3, 4, 9), (0.9, 0.9, 0.5)), response((3, 5, 9), (0.9, 0.2, 0.5)))]
    )
    assert last_tokens(pairs) == [((3, 4), (3, 5))]
    assert pairs[0][2] == pytest.approx(1.4)


def test_a_last_step_counts_less_and_a_pair_needs_a_good_and_a_bad_one():
    last = step_apo.siblings([group(response((4,), (1.0,)), response((5,), (0.0,)))])
    assert last[0][2] == pytest.approx(0.6)
    assert not step_apo.siblings([group(response((4, 1), (0.9, 1)), response((5, 1), (0.6, 1)))])
    assert not step_apo.siblings([group(response((4,), (None,)), response((5,), (0.1,)))])


def test_nodes_of_a_tree_are_siblings():
    """Two lines after a root, of which one goes on rightly and one wrongly: q is 0.6 and -0.8."""
    tree = test_tree.grown([(0, 0.8), (0, 0.1), (1, 0.8), (2, 0.1)])
    paths = [tree.episode_of(i) for i in (3, 4)]
    pairs = step_apo.siblings([group(*paths)])
    assert last_tokens(pairs) == [((1,), (2,))] and pairs[0][2] == pytest.approx(1.4)


def test_the_tree_is_of_training_alone():
    s = build.build(RunSettings, step_apo.get_config('default'))
    assert players.searching_stages(s) == ('prefer',) and s.sampling.tree.reads_labels
    assert not getattr(step_apo.siblings, 'reads_scores', False)


@given(st.lists(st.tuples(st.integers(3, 5), st.integers(3, 5), st.floats(0, 1)), max_size=6))
def test_both_sides_begin_alike_and_part_at_the_last_step(rows):
    groups = [group(*(response((a, b), (q, 1 - q)) for a, b, q in rows))]
    pairs = pair_rules.find_pairs(
        [g for g in groups if len(g)],
        rule=step_apo.CHANGES['prefer.pairs'],
        keep=100,
        player='actor',
        takes_offsets=True,
    )
    for chosen, rejected in last_tokens(pairs):
        assert chosen[:-1] == rejected[:-1] and len(chosen) == len(rejected)
    assert all(0 < pair.offset <= 2 for pair in pairs)
