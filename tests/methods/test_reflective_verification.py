"""Reflective Verification: the fusion, worked; the sizes; and what a reflection can change."""

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.configs.methods import reflective_verification as method
from elenchus.sampling.engine.reflection import Reflection
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases


class Echo:
    """A model whose logits are its hidden states."""

    @staticmethod
    def logits(hidden):
        return hidden


def test_a_draft_that_the_reflection_likes_is_kept():
    """Of two words of one meaning the model prefers one, and behind the text the drafted one."""
    lookup = Reflection(2, 1, (5,), 0.3)
    own = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])  # at the last token and at the draft
    reflected = np.array([[-1.0, 5.0], [0.0, 1.0]])  # at the text and at the draft's second copy
    z = lookup.logits(Echo, jnp.array([[*own, *reflected]]))[0]
    np.testing.assert_allclose(z[0], [0.7 * 2 - 0.3, 0.7 + 1.5], rtol=1e-6)  # token 1, not 0
    np.testing.assert_allclose(z[1], [0.0, 0.7 * 3 + 0.3], rtol=1e-6)
    np.testing.assert_allclose(z[2], own[2])  # behind the draft
    plain = Reflection(2, 1, (5,), 0.0).logits(Echo, jnp.array([[*own, *reflected]]))[0]
    np.testing.assert_array_equal(plain, own)


def method_weight():
    return method.get_config().sampling.engine.reflection_weight


def test_the_numbers_are_those_of_the_source_and_each_base_has_room():
    assert (method_weight(), method.DRAFT) == (0.3, 6)
    for variant in ('default', 'smoke', 'gsm8k:tiny', 'qwen3_0p6b_gsm8k'):
        s = build.build(RunSettings, method.get_config(variant))
        engine = s.sampling.engine.encoded(lambda text: [1] * len(text))
        assert s.model.max_length >= engine.max_length >= engine.lookup.num_read
    s = build.build(RunSettings, method.get_config('qwen3_0p6b_gsm8k'))
    assert s.sampling.engine.reflection == method.TEXT


def test_nothing_else_changes():
    config, base = method.get_config('smoke'), lab.get_config('smoke')
    drafting = ('draft_tokens', 'draft_ngram', 'reflection', 'reflection_weight', 'max_length')
    fields = [f'sampling.engine.{name}' for name in drafting]
    method_cases.undo(config, base, [*fields, 'model.max_length'])
    assert config.to_dict() == base.to_dict()


@pytest.mark.parametrize('weight', [0.0, 0.3, 1.0])
def test_equal_logits_stay_what_they_are(weight):
    rng = np.random.default_rng(0)
    own = rng.normal(size=(1, 5, 7))
    hidden = jnp.concatenate([own, own[:, :1] * 0, own[:, :4]], axis=1)
    z = Reflection(4, 1, (5, 6), weight).logits(Echo, hidden)
    np.testing.assert_allclose(z, own, atol=1e-6)
