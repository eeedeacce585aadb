"""Labels of lines: the rule of the threshold, functions of one's own, and what they get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs import lab
from elenchus.sampling.critique_data import step_labels
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import PROBLEM

HERE = 'tests.sampling.critique_data.test_step_labels'


def second(outcomes):
    return [i != 1 for i in range(len(outcomes.successes))]


def all_right(outcomes):
    assert outcomes.problem is PROBLEM and outcomes.num_rollouts == 4
    return [outcomes.correct] * len(outcomes.successes)


def too_few(outcomes):
    return [True] * (len(outcomes.successes) - 1)


def shares(outcomes):
    return [n / outcomes.num_rollouts for n in outcomes.successes]


def one(outcomes):
    return True


def words(outcomes):
    return ['right'] * len(outcomes.successes)


def find(name, counts, *, correct=False, threshold=0.5):
    return step_labels.first_wrong(
        name, counts, num_rollouts=4, threshold=threshold, correct=correct, problem=PROBLEM
    )


@given(st.dictionaries(st.integers(0, 20), st.integers(0, 4)), st.floats(0, 1))
def test_the_threshold_finds_the_first_line_below_it(counts, threshold):
    first = find('threshold', counts, threshold=threshold)
    below = [i for i, n in counts.items() if n < threshold * 4]
    assert first == min(below, default=None)


def test_a_function_labels_lines_in_order_whatever_their_numbers():
    assert find(f'{HERE}:second', {7: 4, 3: 4, 9: 4}) == 7
    assert find(f'{HERE}:second', {3: 4}) is None
    assert find(f'{HERE}:all_right', {0: 0}, correct=True) is None
    assert find(f'{HERE}:all_right', {2: 4, 5: 4}) == 2
    assert find(f'{HERE}:all_right', {}) is None


@pytest.mark.parametrize('name', ['too_few', 'shares', 'one', 'words'])
def test_anything_but_a_boolean_a_line_is_refused(name):
    with pytest.raises(ValueError, match=rf'^critique\.labels: {name} \(.*each of 2 lines'):
        find(f'{HERE}:{name}', {0: 1, 1: 3})


@pytest.mark.parametrize(
    ('section', 'changes'),
    [
        ('critique', {'critique.annotator': 'monte_carlo'}),
        (
            'reinforce',
            {'reinforce.num_rollouts': 4, 'reinforce.critic_rewards.located': 1.0},
        ),
    ],
)
def test_labels_that_nothing_reads_are_refused(section, changes):
    config = lab.get_config('smoke')
    config.update_from_flattened_dict({f'{section}.labels': f'{HERE}:second'})
    with pytest.raises(ValueError, match=rf'^{section}\.labels=.* nearest: labels=.threshold'):
        checks.check_settings(build.build(RunSettings, config))
    config.update_from_flattened_dict(changes)
    checks.check_settings(build.build(RunSettings, config))
