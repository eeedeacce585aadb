"""Warnings about unhealthy metrics."""

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


def test_a_healthy_row_has_no_warning():
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
def test_a_metric_outside_its_range_is_a_warning_with_a_cause(name, value, cause):
    for metric in (name, name.replace('/', '/critic/')):
        (warning,) = diagnostics.warnings(HEALTHY | {metric: value})
        assert warning.metric == metric and cause in warning.text and metric in warning.text


def test_a_warning_is_reported_once():
    lines = []
    watch = diagnostics.make_watch(lines.append)
    for step in range(1, 4):
        watch(step, HEALTHY | {'loss/kl': 5.0} | ({'grads/norm': 1e9} if step == 3 else {}))
    assert [line.split(':')[1] for line in lines] == [' step 1', ' step 3']


def test_equal_rewards_are_healthy_with_a_value_model():
    row = {'reward/critic/groups_without_variance': 1.0}
    assert diagnostics.warnings(row)
    assert not diagnostics.warnings(row | {'value/critic/loss': 0.1})
