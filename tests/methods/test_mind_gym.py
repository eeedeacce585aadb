"""MindGYM: guides are read at first and hidden at last, each as a whole."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.configs.methods import mind_gym
from elenchus.data import records

ROWS, LENGTH = 64, 24


def batch():
    """Rows of two sequences: question, guide, attempt; then padding."""
    rng = np.random.default_rng(0)
    roles = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3, 3] * 2 + [0] * 4)
    segments = np.array([1] * 10 + [2] * 10 + [0] * 4)
    fields = {'roles': roles, 'segments': segments}
    return types.SimpleNamespace(
        tokens=jnp.asarray(rng.integers(10, 1000, (ROWS, LENGTH))),
        **{name: jnp.tile(values, (ROWS, 1)) for name, values in fields.items()},
    )


def read(progress, key=0):
    return np.asarray(mind_gym.faded(batch(), jax.random.key(key), jnp.float32(progress)))


def test_at_first_everything_is_read():
    np.testing.assert_array_equal(read(0.0), batch().tokens)
    assert records.ROLES[mind_gym.GUIDE] == 'guide'


def test_at_last_no_guide_is_read_and_all_else_is():
    tokens, is_guide = np.asarray(batch().tokens), np.asarray(batch().roles == mind_gym.GUIDE)
    hidden = read(1.0)
    np.testing.assert_array_equal(hidden[~is_guide], tokens[~is_guide])
    for start in (3, 13):  # the token before the guide stands for it
        np.testing.assert_array_equal(hidden[:, start : start + 3], tokens[:, [start - 1] * 3])


def test_a_guide_is_hidden_as_a_whole_and_with_the_probability_of_the_progress():
    tokens = np.asarray(batch().tokens)
    for progress in (0.25, 0.5, 0.75):
        changed = read(progress) != tokens
        whole = np.stack([changed[:, 3:6], changed[:, 13:16]])
        assert (whole.all(-1) == whole.any(-1)).all()
        share, count = whole.all(-1).mean(), 2 * ROWS
        assert abs(share - progress) < 4 * np.sqrt(progress * (1 - progress) / count)
    assert (read(0.5, key=1) != read(0.5, key=2)).any()
