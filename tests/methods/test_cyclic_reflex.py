"""CyclicReflex: the published triangle on words of reflection, and nothing else."""

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.configs.methods import cyclic_reflex
from elenchus.data.text import tokenizer
from elenchus.sampling.engine import token_rules
from elenchus.sampling.engine.token_rules import Place, Where

V, WORDS = 20, {word: (i,) for i, word in enumerate(cyclic_reflex.wave.words, 3)}


def published(n, amplitude=5.0, period=1200):
    """Base/evaluate.py: three pieces of u = (n mod P) / P."""
    u = n % period / period
    if u <= 0.25:
        return 4 * amplitude * u
    if u <= 0.75:
        return amplitude - 4 * amplitude * (u - 0.25)
    return -amplitude + 4 * amplitude * (u - 0.75)


def test_the_wave_is_the_authors_at_every_token_and_only_on_the_words():
    at = jnp.arange(2500)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2500, V)), 'float32')
    changed = cyclic_reflex.wave(logits, Where(at + 31, at, WORDS, ()))
    expected = np.zeros((2500, V))
    expected[:, 3:8] = [[published(n)] * 5 for n in range(2500)]
    np.testing.assert_allclose(changed - logits, expected, atol=2e-5)
    assert [published(n) for n in (0, 300, 600, 900)] == [0, 5, 0, -5]


@pytest.mark.parametrize('shape', [(), (2, 5)])
def test_tokens_of_any_shape_have_their_own_height(shape):
    at = jnp.full(shape, 300)
    changed = cyclic_reflex.wave(jnp.zeros((*shape, V)), Where(at, at, WORDS, ()))
    assert (changed[..., 3:8] == 5).all() and changed.sum() == 25 * max(1, at.size)


@pytest.mark.slow
def test_on_the_lab_the_word_is_a_verdict_of_the_actors_turns():
    lab = tokenizer.lab_tokenizer()
    rule = token_rules.logits_rule(f'{cyclic_reflex.HERE}:lab_wave', lab, lab.vocab_size)
    assert rule.roles == ('attempt', 'refinement')
    (wrong,) = dict(rule.ids)['wrong']
    at = jnp.array([0, 15, 30, 45])
    changed = np.asarray(rule.logits(jnp.zeros((4, lab.vocab_size)), Place(at, at, None)))
    np.testing.assert_allclose(changed[:, wrong], [0, 5, 0, -5], atol=1e-5)
    assert np.count_nonzero(np.delete(changed, wrong, axis=1)) == 0


def test_a_vocabulary_without_the_words_is_an_error_that_names_one():
    with pytest.raises(ValueError, match="cyclic_reflex:wave'.*'wait' is no single token"):
        lab = tokenizer.lab_tokenizer()
        token_rules.logits_rule(f'{cyclic_reflex.HERE}:wave', lab, lab.vocab_size)
