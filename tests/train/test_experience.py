"""Rows that teach nothing are left out of an update, and the loss stays what it was."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.data.records import ROLES, Batch
from elenchus.train import objective as objective_lib
from elenchus.train.rl.update_batch import busy_rows
from tests.support import tiny_model

ROWS, LENGTH = 16, 6
OF_WEIGHTS = {
    'grpo': objective_lib.GRPO,
    'dapo': objective_lib.DAPO,
    'dr-grpo': objective_lib.dr_grpo(LENGTH),
    'gspo': objective_lib.GSPO,
    'cispo': objective_lib.CISPO,
    'reinforce': objective_lib.REINFORCE,
    'sft': tiny_model.SFT,
}
OTHERS = {
    'kl': dataclasses.replace(objective_lib.GRPO, kl='k3', kl_coef=0.1),
    'entropy': dataclasses.replace(objective_lib.GRPO, entropy_coef=0.1),
    'dpo': objective_lib.dpo(0.1),
}


def batch_of(seed: int, busy: int) -> Batch:
    """One sequence a row; only `busy` of them have weights."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, LENGTH)
    has_weight = np.isin(np.arange(ROWS), rng.permutation(ROWS)[:busy])
    real = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (ROWS, 1))
    mask = (real & (np.arange(LENGTH) > 0)).astype(np.float32)
    whole = lambda values: np.where(real, values, 0).astype(np.int32)  # noqa: E731
    return Batch(
        tokens=whole(rng.integers(2, 9, shape)),
        loss_mask=mask,
        weights=(rng.normal(size=shape) * mask * has_weight[:, None]).astype(np.float32),
        old_logprobs=-rng.random(shape).astype(np.float32),
        ref_logprobs=-rng.random(shape).astype(np.float32),
        steps=whole(1),
        turns=whole(1),
        roles=whole(ROLES.index('attempt')),
        positions=whole(np.arange(LENGTH)),
        segments=whole(1),
    )


def loss_and_gradient(objective, batch, embedding):
    """Of a policy whose log-probabilities are looked up by token and position."""

    def mean(embedding):
        logprobs = -jax.nn.softplus(embedding[batch.tokens, batch.positions])
        found = objective_lib.loss(objective, batch, logprobs, 0.0 * logprobs)
        return found.total / found.weight

    return jax.value_and_grad(mean)(embedding)


@pytest.mark.parametrize('name', OF_WEIGHTS)
@pytest.mark.parametrize('busy', [0, 3, 16])
@pytest.mark.parametrize('together', [1, 2])
def test_the_loss_and_its_gradient_stay(name, busy, together):
    batch = batch_of(busy, busy)
    embedding = np.random.default_rng(1).normal(size=(9, LENGTH)).astype(np.float32)
    left = busy_rows(batch, OF_WEIGHTS[name], parts=2, together=together)
    assert len(left.tokens) == {0: 4, 3: 4 if together == 1 else 8, 16: 16}[busy]
    expected = loss_and_gradient(OF_WEIGHTS[name], batch, embedding)
    found = loss_and_gradient(OF_WEIGHTS[name], left, embedding)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('name', OTHERS)
def test_rows_with_another_term_stay(name):
    batch = batch_of(0, 3)
    assert busy_rows(batch, OTHERS[name], parts=1, together=1) is batch


@pytest.mark.parametrize('parts', [1, 2, 4, 8, 16])
def test_what_is_left_divides_into_the_parts_and_has_few_shapes(parts):
    sizes = set()
    for busy in range(ROWS + 1):
        left = busy_rows(batch_of(busy, busy), objective_lib.GRPO, parts=parts, together=1)
        rows = len(left.tokens)
        assert rows % parts == 0 and rows >= busy
        assert (left.weights != 0).any(axis=1).sum() == busy
        sizes.add(rows)
    assert len(sizes) <= 4
