"""Rows of zero advantages are dropped from an update without a change of the loss."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.data.records import ROLES, Batch
from elenchus.train import objective as objective_lib
from elenchus.train import preferences
from elenchus.train.rl.update_batch import drop_zero_advantage_rows
from tests.support import slow_cases, tiny_model

ROWS, LENGTH = 16, 6
IGNORING_ZERO_WEIGHTS = {
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
    'dpo': objective_lib.of_pairs(preferences.published('dpo', beta=0.1)),
}


def batch_of(seed: int, num_used: int) -> Batch:
    """One sequence per row; only `num_used` of them have weights."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, LENGTH)
    has_weight = np.isin(np.arange(ROWS), rng.permutation(ROWS)[:num_used])
    real = np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (ROWS, 1))
    mask = (real & (np.arange(LENGTH) > 0)).astype(np.float32)
    as_ids = lambda values: np.where(real, values, 0).astype(np.int32)  # noqa: E731
    return Batch(
        tokens=as_ids(rng.integers(2, 9, shape)),
        loss_mask=mask,
        weights=(rng.normal(size=shape) * mask * has_weight[:, None]).astype(np.float32),
        old_logprobs=-rng.random(shape).astype(np.float32),
        ref_logprobs=-rng.random(shape).astype(np.float32),
        steps=as_ids(1),
        turns=as_ids(1),
        roles=as_ids(ROLES.index('attempt')),
        positions=as_ids(np.arange(LENGTH)),
        segments=as_ids(1),
    )


def loss_and_gradient(objective, batch, embedding):
    """Loss and gradient of a policy that looks up log-probabilities by token and position."""

    def mean(embedding):
        logprobs = -jax.nn.softplus(embedding[batch.tokens, batch.positions])
        sums = objective_lib.loss(objective, batch, logprobs=logprobs, entropy=0.0 * logprobs)
        return sums.total / sums.weight

    return jax.jit(jax.value_and_grad(mean))(embedding)


@slow_cases.combinations(
    {(2, 3, name) for name in IGNORING_ZERO_WEIGHTS} | {(1, 0, 'grpo'), (1, 16, 'grpo')},
    samples_per_row=[1, 2],
    num_used=[0, 3, 16],
    name=list(IGNORING_ZERO_WEIGHTS),
)
def test_the_loss_and_its_gradient_are_unchanged(name, num_used, samples_per_row):
    objective = IGNORING_ZERO_WEIGHTS[name]
    batch = batch_of(num_used, num_used)
    embedding = np.random.default_rng(1).normal(size=(9, LENGTH)).astype(np.float32)
    remaining = drop_zero_advantage_rows(batch, objective, parts=2, samples_per_row=samples_per_row)
    rows = {0: 4, 3: 4 if samples_per_row == 1 else 8, 16: 16}[num_used]
    assert len(remaining.tokens) == rows
    expected = loss_and_gradient(objective, batch, embedding)
    actual = loss_and_gradient(objective, remaining, embedding)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('name', OTHERS)
def test_other_objectives_keep_all_rows(name):
    batch = batch_of(0, 3)
    assert drop_zero_advantage_rows(batch, OTHERS[name], parts=1, samples_per_row=1) is batch


@pytest.mark.parametrize('parts', [1, 2, 4, 8, 16])
def test_the_remaining_rows_divide_into_the_parts_and_have_few_shapes(parts):
    sizes = set()
    for num_used in range(ROWS + 1):
        remaining = drop_zero_advantage_rows(
            batch_of(num_used, num_used), objective_lib.GRPO, parts=parts, samples_per_row=1
        )
        rows = len(remaining.tokens)
        assert rows % parts == 0 and rows >= num_used
        assert (remaining.weights != 0).any(axis=1).sum() == num_used
        sizes.add(rows)
    assert len(sizes) <= 4
