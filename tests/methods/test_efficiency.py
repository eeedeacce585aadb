"""Self-rewarded efficiency: short right before long right before wrong."""

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import efficiency
from tests.support import method_cases

SAMPLES = st.lists(st.tuples(st.booleans(), st.integers(1, 50)), min_size=2, max_size=8)


def brevity(samples):
    facts, lengths = [{'correct': right} for right, _ in samples], [n for _, n in samples]
    return efficiency.brevity(method_cases.turns(*facts, tokens=lengths))


def test_worked_values():
    assert brevity([(True, 10), (True, 5), (False, 1), (False, 2)]) == [0.0, 0.125, 0.0, 0.0]
    assert brevity([(True, 10), (True, 5)]) == [0.0, 0.25]  # all right: length counts more
    assert brevity([(False, 10), (False, 5)]) == [0.0, 0.0]


@given(SAMPLES)
def test_wrong_responses_gain_nothing_and_right_ones_keep_their_order(samples):
    values = brevity(samples)
    assert all(value == 0 for value, (right, _) in zip(values, samples, strict=True) if not right)
    ordered = sorted((n, -v) for v, (right, n) in zip(values, samples, strict=True) if right)
    assert [v for _, v in ordered] == sorted(v for _, v in ordered)
    assert all(0 <= value <= 0.5 for value in values)  # so right beats wrong with 'correct' at 1
