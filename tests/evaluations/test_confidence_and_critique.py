"""CL, CS and RSS: the identity of the paper, and the ends of the score."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.evaluations import confidence_and_critique
from elenchus.sampling.metrics import critic_metrics
from tests.support import method_cases

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=12)


def figures_of(pairs):
    row = [({'correct': before}, {'correct': after}) for before, after in pairs]
    groups = method_cases.groups(row)
    return confidence_and_critique.decomposed(groups, str), list(groups[0])


@given(PAIRS)
def test_accuracy_after_refinement_follows_from_confidence_and_critique(pairs):
    figures, _ = figures_of(pairs)
    before = sum(first for first, _ in pairs) / len(pairs)
    after = sum(second for _, second in pairs) / len(pairs)
    kept = 0.0 if before == 0 else before * figures['CL']
    mended = 0.0 if before == 1 else (1 - before) * figures['CS']
    assert kept + mended == pytest.approx(after)


def test_the_score_is_one_for_perfect_and_zero_for_none_and_agrees_with_the_stage():
    """With acc1 = 1/2, all right afterwards is (1 - 1/4) / (1/2) = 1.5 by the authors' formula."""
    for after, score in (((True, True), 1.5), ((True, False), 0.5), ((False, False), -0.5)):
        pairs = [(True, after[0]), (False, after[1])]
        figures, episodes = figures_of(pairs)
        assert figures['RSS'] == pytest.approx(score)
        stage = critic_metrics.confidence_and_critique(episodes)
        assert any(
            math.isclose(v[0] if isinstance(v, list | tuple) else v, score) for v in stage.values()
        )
