"""Tokens that are read instead of those that are predicted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.train import input_transforms, step
from tests.support import tiny_model


@pytest.fixture
def readings(monkeypatch):
    """Registers functions by name."""
    return lambda **functions: [
        monkeypatch.setitem(input_transforms.READINGS.functions, name, function)
        for name, function in functions.items()
    ]


def noise(batch, key, progress):
    return jax.random.randint(key, batch.tokens.shape, 1, 48)


def test_nothing_is_in_the_way_by_default():
    assert input_transforms.make_reader('same', seed=0, num_steps=10) is None


def test_noise_depends_on_seed_and_step_alone_and_padding_stays(readings):
    readings(noise=noise)
    batch = tiny_model.random_batch(0)
    read = lambda seed, at: np.asarray(  # noqa: E731
        input_transforms.make_reader('noise', seed=seed, num_steps=10)(batch, jnp.int32(at))
    )
    np.testing.assert_array_equal(read(0, 3), read(0, 3))
    assert (read(0, 3) != read(0, 4)).any() and (read(0, 3) != read(1, 3)).any()
    assert (read(0, 3)[batch.segments == 0] == batch.tokens[batch.segments == 0]).all()


def test_progress_is_the_share_of_the_steps(readings):
    readings(late=lambda batch, key, progress: jnp.where(progress < 0.5, batch.tokens, 7))
    batch = tiny_model.random_batch(0)
    read = input_transforms.make_reader('late', seed=0, num_steps=10)
    assert (read(batch, jnp.int32(4)) == batch.tokens).all()
    assert (read(batch, jnp.int32(5))[batch.segments > 0] == 7).all()


@pytest.mark.parametrize(
    'result',
    [
        lambda batch: batch.tokens[:, 1:],
        lambda batch: batch.tokens * 0.5,
        lambda batch: None,
        lambda batch: batch.tokens.tolist(),
    ],
)
def test_other_shapes_and_numbers_are_refused_by_name(readings, result):
    readings(mine=lambda batch, key, progress: result(batch))
    read = input_transforms.make_reader('mine', seed=0, num_steps=10)
    with pytest.raises(
        ValueError, match=r'fit\.read: .* returned .* whole numbers of shape \[8, 16\]'
    ):
        read(tiny_model.random_batch(0), jnp.int32(0))


@pytest.mark.slow
def test_the_labels_stay_and_microbatches_read_alike():
    """The loss is that of the batch's tokens, predicted from the others."""
    model, batch = tiny_model.make_model(tiny_model.FLAT), tiny_model.random_batch(0)
    other = (batch.tokens + 5) % 48

    @tiny_model.jit
    def losses(read):
        options = {'objective': tiny_model.SFT, 'transform': tiny_model.untouched}
        values = [
            step.loss_and_grads(model, batch, num_microbatches=n, read=read, **options)[0]
            for n in (1, 4)
        ]
        logprobs, _ = step.batch_logprobs(model, batch, tiny_model.untouched, read=read)
        return values, logprobs

    (whole, parts), logprobs = losses(other)
    (plain, _), own = losses(batch.tokens)
    expected = -(logprobs * batch.loss_mask * batch.weights).sum() / batch.loss_mask.sum()
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    assert abs(float(whole - plain)) > 1e-4 and (logprobs != own).any()
