"""The two F1 of located first errors: ProcessBench's, and the micro F1."""

import pytest

from elenchus.sampling.metrics import critic_metrics
from tests.sampling.metrics.test_critic_metrics import episode


def test_the_two_f1_of_first_errors_differ():
    """The worked example: four wrong attempts, all located; four right ones, two of them passed.

    ProcessBench: 2 * 1 * 0.5 / 1.5 = 0.67. Micro: 2 * 4 / (6 + 4) = 0.80.
    """
    episodes = [episode(False, verdict=False, located=i, first_error=i) for i in range(4)]
    episodes += [episode(True, verdict=False, located=0, first_error=None) for _ in range(2)]
    episodes += [episode(True, verdict=True, first_error=None) for _ in range(2)]
    measures = critic_metrics.critic(episodes)
    assert measures['processbench_f1'] == pytest.approx(2 / 3)
    assert measures['first_error_micro_f1'] == pytest.approx(0.8)


Claim = critic_metrics.Claim


@pytest.mark.parametrize(
    ('claims', 'f1'),
    [
        ([], None),
        ([Claim(1, False, 1)], None),  # no right attempts
        ([Claim(None, True, None)], None),  # no wrong ones
        ([Claim(1, False, 1), Claim(None, True, None)], 1.0),
        ([Claim(0, False, 1), Claim(None, True, None)], 0.0),  # another line
        ([Claim(None, True, 1), Claim(0, False, None)], 0.0),
        ([Claim(1, False, 1), Claim(None, False, None)], 0.0),  # no verdict, or "wrong" nowhere
        ([Claim(1, False, 1), Claim(0, True, None)], 0.0),  # a right attempt with a wrong line
        ([Claim(1, False, 1), Claim(None, True, 1), Claim(None, True, None)], 2 / 3),
    ],
)
def test_processbench_f1_is_the_harmonic_mean_of_two_accuracies(claims, f1):
    assert critic_metrics.processbench_f1(claims) == (None if f1 is None else pytest.approx(f1))


def test_unreadable_critiques_are_misses_of_processbench():
    episodes = [
        episode(False, verdict=None, first_error=1),
        episode(True, verdict=None, first_error=None),
    ]
    assert critic_metrics.critic(episodes)['processbench_f1'] == 0.0
