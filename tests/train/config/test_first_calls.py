"""A user's functions are called before a run begins, where their arguments are known by then."""

import pytest

from elenchus.configs import lab
from elenchus.train.config import build, checks, run_settings

FUNCTIONS = """
import jax.numpy as jnp
import numpy as np


def texts(batch, key, progress):
    return 'tokens'


def short(batch, key, progress):
    return batch.tokens[:, :-1]


def floats(batch, key, progress):
    return batch.tokens / 2


def branches(batch, key, progress):
    return batch.tokens if progress > 0.5 else batch.tokens + 1


def zeros(batch, key, progress):
    return jnp.zeros_like(batch.tokens)


def likely(logprobs, entropy, batch):
    return jnp.exp(logprobs)


def misspelt(logprobs, entropy, batch):
    return logprobs * batch.weight


def flat(logprobs, entropy, batch):
    return logprobs.ravel()


def too_many(rounds, context):
    return {'improve.num_problems': 1000}


def numpy_numbers(rounds, context):
    few = np.int64(context.settings['improve.num_problems'] - 1)
    return {'sampling.temperature': np.float32(0.5), 'improve.num_problems': few}


def last_round(rounds, context):
    return {'sampling.temperature': rounds[-1]['knobs']['temperature']}


def nowhere(rounds, context):
    return {'improve.num_atempts': 2}
"""


@pytest.fixture
def settings_of(tmp_path):
    """settings_of(field, function) -> settings of the smoke run, with a function of the file."""
    path = tmp_path / 'mine.py'
    path.write_text(FUNCTIONS)

    def settings_of(field, function, stages=None):
        config = lab.get_config('smoke')
        config.update_from_flattened_dict({field: f'{path}:{function}'})
        config.stages = stages or config.stages
        return build.build(run_settings.RunSettings, config)

    return settings_of


@pytest.mark.parametrize(
    ('field', 'function', 'message'),
    [
        ('actor.fit.read', 'texts', r"returned 'tokens'; it must return token ids"),
        ('actor.fit.read', 'short', r'int32\[2, 15\]; it must return token ids'),
        ('critic.fit.read', 'floats', r'float32\[2, 16\]; it must return token ids'),
        ('actor.fit.read', 'branches', r'raised TracerBoolConversionError'),
        ('actor.fit.reweigh', 'misspelt', r"raised AttributeError: .* no attribute 'weight'"),
        ('improve.fit.reweigh', 'flat', r'float32\[32\]; it must return numbers of shape'),
        ('improve.controller', 'too_many', r'num_problems=1000 must be at most 60, .*nearest: 60'),
        ('improve.controller', 'last_round', 'raised IndexError'),
        ('improve.controller', 'nowhere', r"no field that may change; nearest: 'improve\."),
    ],
)
def test_a_mistake_is_one_line_before_the_run(settings_of, field, function, message):
    with pytest.raises(ValueError, match=message) as error:
        checks.check_settings(settings_of(field, function))
    text = str(error.value)
    assert 'mine.py:' in text and '\n' not in text
    assert field in text or field.rpartition('.')[2] in text


@pytest.mark.parametrize(
    ('field', 'function'),
    [
        ('actor.fit.read', 'zeros'),
        ('actor.fit.reweigh', 'likely'),
        ('improve.controller', 'numpy_numbers'),
    ],
)
def test_functions_that_do_what_they_should_pass(settings_of, field, function):
    checks.check_settings(settings_of(field, function))


def test_a_controller_is_called_only_where_there_are_rounds(settings_of):
    stages = ('base', 'actor', 'critique', 'critic', 'evaluate')
    checks.check_settings(settings_of('improve.controller', 'nowhere', stages))
