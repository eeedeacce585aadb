"""FunReason: reasoning and result weigh alike at any lengths."""

import jax
import numpy as np
import pytest

from elenchus.configs.methods import fun_reason
from elenchus.data.batching import packing
from elenchus.data.records import Example


def example(lengths, prompt=2):
    """A prompt, then trained steps of these lengths."""
    steps = np.repeat(np.arange(len(lengths)) + 1, lengths)
    steps = np.concatenate([np.zeros(prompt, int), steps])
    values = {'steps': steps, 'loss_mask': steps > 0}
    blank = np.ones(len(steps))
    return Example(*(np.asarray(values.get(name, blank)) for name in Example._fields))


def factors(*examples):
    batch = packing.pack(list(examples), rows=1, length=60)
    zeros = np.zeros(batch.tokens.shape, np.float32)
    return np.asarray(jax.jit(fun_reason.balanced)(zeros, zeros, batch))[0], batch


def test_the_last_line_has_half_of_the_weight():
    weights, batch = factors(example((5, 9, 2)), example((3, 3)), example((1, 20)))
    for number, (reasoning, result) in enumerate([(14, 2), (3, 3), (1, 20)], 1):
        own = weights[(batch.segments[0] == number) & (batch.loss_mask[0] > 0)]
        assert own.sum() == pytest.approx(reasoning + result, rel=1e-5)
        assert own[:reasoning] == pytest.approx((reasoning + result) / 2 / reasoning)
        assert own[reasoning:] == pytest.approx((reasoning + result) / 2 / result)


def test_a_turn_of_one_line_keeps_its_weight_and_prompts_have_none():
    weights, batch = factors(example((4,)))
    assert weights[batch.loss_mask[0] > 0] == pytest.approx(1.0)
    assert not weights[batch.loss_mask[0] == 0].any()
