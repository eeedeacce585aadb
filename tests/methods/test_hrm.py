"""HRM with HNC: a wrong line is forgiven where the next one puts it right, by chance."""

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import hrm
from elenchus.sampling.critique_data import step_labels
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import PROBLEM

COUNTS = st.lists(st.integers(0, 8), max_size=6)


def labels(counts, *, correct=False, threshold=0.5):
    outcomes = step_labels.Outcomes(tuple(counts), 8, threshold, correct, PROBLEM)
    return hrm.merged(outcomes)


@given(COUNTS, st.booleans())
def test_a_label_differs_from_the_lines_own_only_where_the_next_line_is_right(counts, correct):
    own = [n >= 4 for n in counts]
    new = labels(counts, correct=correct)
    assert len(new) == len(own) and labels(counts, correct=correct) == new
    for is_right, label, later in zip(own, new, (*own, correct)[1:], strict=True):
        assert label == is_right or (label and not is_right and later)


def test_half_of_the_corrected_lines_are_merged():
    """The label of a merged pair is that of its later line: 0 successes, then all."""
    new = [labels([i, 8])[0] for i in range(4)] + [labels([0, 8, i])[0] for i in range(9)]
    assert set(new) == {True, False}
    rate = [labels([0, 8, *[i % 9, i // 9 % 9, i // 81]])[0] for i in range(729)]
    assert abs(sum(rate) / 729 - 0.5) < 3 * 0.5 / 27
    # Two failures in a row are never forgiven at the first.
    assert not any(labels([0, 0, i])[0] for i in range(9))


def test_the_annotator_of_the_file_reads_the_labels():
    settings = build.build(RunSettings, hrm.get_config('default')).critique
    assert settings.annotator == 'monte_carlo'
    options = {'num_rollouts': 8, 'threshold': 0.5, 'correct': False, 'problem': PROBLEM}
    assert step_labels.first_wrong(settings.labels, {0: 8, 1: 0, 2: 0}, **options) == 1
    assert step_labels.first_wrong('threshold', {0: 8, 1: 0, 2: 0}, **options) == 1
