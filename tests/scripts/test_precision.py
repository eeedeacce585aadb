"""Comparison of int8 variants of a tiny model; the unchanged model has no difference."""

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.metrics import int8_comparison
from tests.support import fake_engine, tiny_model


@pytest.mark.slow
def test_int8_variants_are_compared_with_the_unchanged_model():
    model, method = tiny_model.make_model(tiny_model.FLAT), Greedy(banned=(0,))
    tokens = np.random.default_rng(0).integers(1, 48, (3, 12), dtype=np.int32)
    logits = model.logits(model(tokens, jnp.broadcast_to(jnp.arange(12), tokens.shape))[0])
    best = np.asarray(method.transform(logits).argmax(-1))
    sampled = np.zeros(tokens.shape, bool)
    sampled[:, 6:9] = True
    tokens[:2, 8] = best[:2, 7]  # two of nine tokens are the most likely, if no others are
    differences = int8_comparison.compare_variants(model, tokens, sampled, method=method)
    assert differences['as it is'][:2] == (0, 0)
    assert differences['as it is'].tokens == (best[:, 5:8] == tokens[:, 6:9]).mean() >= 2 / 9
    for name in ('cache', 'weights', 'cache and weights'):
        assert 0 < differences[name].mean < differences[name].largest < 2
    assert int8_comparison.markdown_table(differences).count('\n') == 5


def test_sampled_tokens_are_masked_apart_from_their_prompts():
    problems, chat = fake_engine.problems(3), fake_engine.CHAT
    sampler = fake_engine.make_sampler(lambda request: '#### 7')
    tokens, sampled = int8_comparison.sample_attempts(
        sampler, None, problems, chat=chat, method=Greedy(()), num_tokens=20
    )
    expected = list(chat.text_turn('attempt', '#### 7').tokens)
    for problem, row, mask in zip(problems, tokens, sampled, strict=True):
        prompt = list(chat.context(chat.question_turns(problem.question), 'attempt'))
        assert row[: len(prompt)].tolist() == prompt and not mask[: len(prompt)].any()
        assert row[mask].tolist() == expected
