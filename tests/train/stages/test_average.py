"""The weight average of actors."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.model import lora
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages.average import average_models
from tests.support import tiny_adapters, tiny_model

MODELS = [tiny_model.make_model(tiny_model.CONFIG, seed) for seed in range(3)]


def loads(models):
    return [lambda model=model: model for model in models]


def leaves(model):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(model)]


def test_weights_are_divided_by_their_sum_and_equal_by_default():
    for weights, shares in (((), (1 / 3,) * 3), ((1.0, 3.0, 0.0), (0.25, 0.75, 0.0))):
        average = average_models(loads(MODELS), weights)
        for result, *parts in zip(leaves(average), *map(leaves, MODELS), strict=True):
            expected = sum(share * part for share, part in zip(shares, parts, strict=True))
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_the_average_of_one_model_is_the_model():
    for ours, theirs in zip(leaves(average_models(loads(MODELS[:1]))), leaves(MODELS[0]),
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)


def test_adapters_are_merged_first():
    model = lora.attach(tiny_adapters.base(), tiny_adapters.trained())
    other = tiny_model.make_model(tiny_adapters.CONFIG, 5)
    averaged = leaves(average_models(loads([model, other])))
    for result, *parts in zip(averaged, leaves(lora.merge(model)), leaves(other), strict=True):
        np.testing.assert_allclose(result, sum(parts) / 2, rtol=1e-5, atol=1e-6)


def test_models_of_different_shapes_are_refused():
    small = tiny_model.make_model(dataclasses.replace(tiny_model.CONFIG, mlp_dim=16))
    with pytest.raises(ValueError, match='average.stages: the models have different shapes'):
        average_models(loads([MODELS[0], small]))


def settings_with(average):
    config = lab.get_config('smoke')
    config.stages = ('base', 'actor', 'critique', 'critic', 'average')
    config.average.update(average)
    settings = build.build(RunSettings, config)
    checks.check_settings(settings)
    return settings


@pytest.mark.parametrize(
    ('average', 'words'),
    [
        ({'stages': ('vanilla',)}, "average.stages=('vanilla',) must be stages before it that"),
        ({'stages': ('critic',)}, "one or more of ['base', 'actor']"),
        ({'stages': ()}, 'average.stages=() must be stages before it'),
        ({'stages': ('actor', 'base'), 'weights': (1.0,)}, 'average.weights=(1.0,) must be one'),
        ({'stages': ('actor',), 'weights': (0.0,)}, 'average.weights=(0.0,) must not all be 0'),
    ],
)
def test_what_cannot_be_averaged_is_refused_in_one_line(average, words):
    with pytest.raises(ValueError) as error:
        settings_with(average)
    assert words in str(error.value) and '\n' not in str(error.value)
    assert settings_with({'stages': ('base', 'actor')}).average.stages == ('base', 'actor')
