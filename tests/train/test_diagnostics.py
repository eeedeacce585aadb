import math

import pytest

from elenchus.train.rl import diagnostics

HEALTHY = {
    'loss/ratio': 1.0,
    'loss/ratio_max': 1.4,
    'loss/clipped_high': 0.02,
    'loss/kl': 0.01,
    'loss/entropy': 0.3,
    'sampler/gap': 1e-5,
    'reward/groups_without_variance': 0.4,
    'grads/norm': 1.2,
    'loss/total': -50.0,
}


def test_a_healthy_row_says_nothing():
    assert diagnostics.warnings(HEALTHY) == []


@pytest.mark.parametrize(
    ('name', 'value', 'cause'),
    [
        ('sampler/gap', 0.3, 'temperature or truncation'),
        ('loss/clipped_low', 0.5, 'fewer minibatches'),
        ('loss/entropy', 0.0, 'collapsed'),
        ('reward/groups_without_variance', 1.0, 'too easy or too hard'),
        ('loss/kl', 7.0, 'kl_coef'),
        ('grads/norm', math.nan, 'explodes'),
    ],
)
def test_what_leaves_its_range_is_told_with_a_cause(name, value, cause):
    for told in (name, name.replace('/', '/critic/')):
        (warning,) = diagnostics.warnings(HEALTHY | {told: value})
        assert warning.metric == told and cause in warning.text and told in warning.text


def test_a_warning_is_shown_once():
    told = []
    watch = diagnostics.make_watch(told.append)
    for step in range(1, 4):
        watch(step, HEALTHY | {'loss/kl': 5.0} | ({'grads/norm': 1e9} if step == 3 else {}))
    assert [line.split(':')[1] for line in told] == [' step 1', ' step 3']
