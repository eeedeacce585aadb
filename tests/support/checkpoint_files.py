"""Damage to the files of a checkpoint, and exact comparison of loaded arrays."""

import jax
import numpy as np


def truncate(path):
    """Cuts off the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(path):
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(path):
    """Deletes a file."""
    path.unlink()


def assert_same_arrays(actual, expected):
    """Asserts equal structure, dtypes and values of two trees."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
