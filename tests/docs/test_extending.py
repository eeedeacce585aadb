"""The examples of docs/extending.md are configs and functions that work.

The first two are tested in tests/sampling/test_slots.py.
"""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.lab import forms, task
from elenchus.sampling import slots
from elenchus.train.config import build, checks, functions
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases

ROOT = pathlib.Path(__file__).parents[2]
BLOCKS = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/extending.md').read_text(), re.DOTALL)


@pytest.fixture(scope='module')
def training(tmp_path_factory):
    """Path of the example on data, pairs and weights."""
    (source,) = [block for block in BLOCKS if 'def short_and_long' in block]
    path = tmp_path_factory.mktemp('extending') / 'training.py'
    path.write_text(source)
    return path


def function(path, name):
    """A function of the example, found as a config finds it."""
    return slots.load(f'{path}:{name}').function


def test_every_block_is_an_example_of_a_test():
    assert len(BLOCKS) == 5
    assert all('get_config' in block for block in BLOCKS)


def test_the_example_of_training_is_a_run_with_five_functions(training):
    config = function(training, 'get_config')('smoke')
    settings = build.build(RunSettings, config)
    checks.check_settings(settings)
    named = {f.function.__name__ for f in functions.functions_of(settings)}
    assert named == {'renamed', 'first_step', 'short_and_long', 'rare', 'likely'}


def test_renamed_and_first_step_are_of_problems_of_the_lab(training):
    form, changed = forms.FORMS['tail'], 0
    for index in range(100):
        problem = forms.generate_problem(seed=0, split='test', index=index, form=form)
        renamed = function(training, 'renamed')(problem)
        assert renamed.id == problem.id and task.is_solvable(renamed.question)
        target = renamed.question.split(' ; ')[-1].split()[0]
        assert str(task.known_values(renamed.question)[target]) == problem.answer
        changed += renamed.question != problem.question
        assert function(training, 'first_step')(problem) == problem.solution.splitlines()[0]
    assert changed > 30


def test_pairs_are_of_the_shortest_right_and_the_longest_wrong_answer(training):
    sizes = [(3, True), (2, True), (4, False), (5, False), (9, None)]
    group = method_cases.group(
        *(
            method_cases.talk(method_cases.written('attempt', range(size), correct=correct))
            for size, correct in sizes
        )
    )
    pairs = function(training, 'short_and_long')([group])
    assert [tuple(map(len, lengths)) for lengths in method_cases.last_tokens(pairs)] == [(2, 5)]
    unknown = method_cases.group(method_cases.talk(method_cases.written('attempt', (1,))))
    assert function(training, 'short_and_long')([unknown]) == []


def test_weights_are_of_each_token(training):
    turn = method_cases.written('attempt', (1, 2, 3))
    assert function(training, 'rare')(turn, 0.25).tolist() == [0.75] * 3
    logprobs = jnp.log(jnp.array([[0.5, 0.25]]))
    values = function(training, 'likely')(logprobs, jnp.zeros((1, 2)), None)
    np.testing.assert_allclose(values, [[0.5, 0.25]], rtol=1e-6)


@pytest.mark.parametrize('variant', ['default', 'smoke', 'gsm8k:smoke'])
def test_the_method_is_a_config_of_every_base(variant, tmp_path):
    (source,) = [block for block in BLOCKS if 'method.of' in block]
    (tmp_path / 'brief_grpo.py').write_text(source)
    config = slots.load(f'{tmp_path / "brief_grpo.py"}:get_config').function(variant)
    settings = build.build(RunSettings, config)
    checks.check_settings(settings)
    assert settings.reinforce.rewards.length == 0.5
    assert 'reinforce' in settings.stages
