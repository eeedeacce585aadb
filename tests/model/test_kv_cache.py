import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import kv_cache, projection
from tests.support import tiny_model

LENGTH = 12


@functools.partial(tiny_model.jit, static_argnames='return_cache')
def forward(model, tokens, positions, return_cache=None):
    hidden, cache = model(tokens, positions, return_cache=return_cache)
    return model.logits(hidden), cache


@tiny_model.jit
def forward_cached(model, tokens, positions, cache):
    hidden, cache = model(tokens, positions, cache=cache)
    return model.logits(hidden), cache


def full_inputs(seed, rows=3):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, tiny_model.CONFIG.vocab_size, (rows, LENGTH), dtype=np.int32)
    return tokens, np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape)


@pytest.mark.parametrize(
    ('config', 'dtype'),
    [
        pytest.param(
            dataclasses.replace(tiny_model.CONFIG, num_kv_heads=1), 'model', marks=pytest.mark.slow
        ),
        (tiny_model.EVERYTHING, 'model'),
        pytest.param(
            dataclasses.replace(tiny_model.EVERYTHING, num_kv_heads=4, scan_layers=False),
            'model',
            marks=pytest.mark.slow,
        ),
        (tiny_model.EVERYTHING, 'int8'),
    ],
    ids=['one-kv-head', 'everything', 'all-kv-heads', 'int8'],
)
def test_prefill_and_decode_equal_the_full_forward(config, dtype):
    """Rows are at different positions, and the cache still contains an earlier sequence."""
    model = tiny_model.make_model(config)
    tokens, positions = full_inputs(1)
    return_cache = None if dtype == 'model' else dtype
    expected = np.asarray(forward(model, tokens, positions, return_cache)[0])
    cache = kv_cache.init_cache(config, batch=3, length=LENGTH + 4, dtype=dtype)
    cache = jax.tree.map(lambda x: x + 3, cache)
    logits, cache = forward_cached(model, tokens[:, :5], positions[:, :5], cache)
    np.testing.assert_allclose(logits, expected[:, :5], atol=2e-5)
    at = np.array([3, 4, 5])  # rows 0 and 1 go back and write over prefilled slots
    while (at < LENGTH).all():
        rows = np.arange(3)
        logits, cache = forward_cached(model, tokens[rows, at, None], at[:, None], cache)
        np.testing.assert_allclose(logits[:, 0], expected[rows, at], atol=2e-5)
        at = at + 1


@pytest.mark.parametrize(
    ('config', 'dtype'),
    [
        (tiny_model.CONFIG, 'model'),
        (tiny_model.EVERYTHING, 'model'),
        (tiny_model.EVERYTHING, 'int8'),
    ],
    ids=['plain', 'everything', 'int8'],
)
def test_a_returned_cache_equals_one_that_the_prompt_was_written_to(config, dtype):
    model = tiny_model.make_model(config)
    tokens, positions = full_inputs(3)
    empty = kv_cache.init_cache(config, batch=3, length=LENGTH, dtype=dtype)
    expected = forward_cached(model, tokens, positions, empty)
    actual = forward(model, tokens, positions, dtype)
    assert actual[1].dtype == empty.dtype == dtype
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def num_products(jaxpr):
    """Number of matrix products of a program; those of a function count at each of its calls."""
    inner = [
        getattr(value, 'jaxpr', value)
        for eqn in jaxpr.eqns
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, 'jaxpr'))
    ]
    own = sum(eqn.primitive.name == 'dot_general' for eqn in jaxpr.eqns)
    return own + sum(num_products(x) for x in inner if hasattr(x, 'eqns'))


@pytest.mark.slow
def test_prompts_are_read_by_one_program_for_all_layers():
    """With scanned layers the program has as many products for 6 layers as for 2; same caches."""
    tokens, positions = full_inputs(4)

    def read(config):
        model = tiny_model.make_model(config)
        run = lambda: model(tokens, positions, return_cache='model')  # noqa: E731
        return run, num_products(jax.make_jaxpr(run)().jaxpr)

    products = {}
    for scan_layers in (True, False):
        config = dataclasses.replace(tiny_model.EVERYTHING, scan_layers=scan_layers)
        shallow = read(dataclasses.replace(config, num_layers=2))
        deep = read(dataclasses.replace(config, num_layers=6))
        products[scan_layers] = shallow[1], deep[1]
        if scan_layers:
            expected = deep[0]()
    assert products[True][0] == products[True][1] < products[False][0] < products[False][1]
    for one, other in zip(jax.tree.leaves(deep[0]()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_int8_errors_are_at_most_half_a_step_of_the_largest_entry():
    x = np.random.default_rng(5).standard_normal((3, 2, 7, 16)).astype(np.float32)
    x[1, 0, 2] = 0
    stored = kv_cache.store_entries(x, 'int8')
    assert stored.qvalue.dtype == np.int8 and stored.scale.shape == (3, 2, 7, 1)
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    assert (np.abs(projection.dense(stored, 'float32') - x) <= step / 2 + 1e-7).all()


def test_a_turn_appended_to_a_cache_equals_the_full_forward():
    model = tiny_model.make_model(tiny_model.EVERYTHING)
    tokens, positions = full_inputs(2)
    expected, _ = forward(model, tokens, positions)
    cache = kv_cache.init_cache(tiny_model.EVERYTHING, batch=3, length=LENGTH)
    for start, end in ((0, 4), (4, 8), (8, 12)):
        part, cache = forward_cached(model, tokens[:, start:end], positions[:, start:end], cache)
        np.testing.assert_allclose(part, expected[:, start:end], atol=2e-5)


def test_positions_past_the_end_are_dropped():
    cache = kv_cache.init_cache(tiny_model.CONFIG, batch=2, length=4)
    shape = (2, 1, tiny_model.CONFIG.num_kv_heads, tiny_model.CONFIG.head_dim)
    new = np.ones(shape, np.float32)
    keys, values = kv_cache.write(cache.layers[0], new, 2 * new, positions=np.array([[4], [1]]))
    assert not keys[0].any() and not values[0].any()
    np.testing.assert_array_equal(np.flatnonzero(keys[1, 0, :, 0]), [1])
    np.testing.assert_array_equal(values[1, :, 1], 2 * new[1, 0])


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('tokens', [1, 2])
def test_only_the_written_positions_change_in_every_dtype(dtype, tokens):
    rng = np.random.default_rng(0)
    layer = tuple(jnp.asarray(rng.standard_normal((3, 2, 8, 4)), dtype) for _ in range(2))
    new = [jnp.asarray(rng.standard_normal((3, tokens, 2, 4)), dtype) for _ in range(2)]
    positions = jnp.array([[0], [5], [kv_cache.NOWHERE]]) + jnp.arange(tokens)
    written = jax.jit(kv_cache.write)(layer, *new, positions=positions)
    for cached, before, entries in zip(written, layer, new, strict=True):
        expected = np.array(before)
        for row, start in enumerate((0, 5)):
            expected[row, :, start : start + tokens] = np.array(entries[row]).swapaxes(0, 1)
        assert cached.dtype == dtype
        np.testing.assert_array_equal(np.array(cached), expected)


def test_blocks_of_bfloat16_are_copied_as_integers_and_come_back_the_same():
    cache = {'a': jnp.arange(64, dtype='bfloat16') - 7.5, 'b': jnp.arange(3)}
    bits = kv_cache.as_bits(cache)
    assert bits['a'].dtype == 'uint16' and bits['b'] is cache['b']
    for name, array in kv_cache.from_bits(bits).items():
        assert array.dtype == cache[name].dtype
        np.testing.assert_array_equal(np.array(array), np.array(cache[name]))


def test_inserted_rows_are_copied_into_their_slots_and_nothing_else_changes():
    rng = np.random.default_rng(3)

    def noise(batch, length):
        empty = kv_cache.init_cache(tiny_model.CONFIG, batch=batch, length=length)
        return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), empty)

    old, new = noise(4, 8), noise(2, 5)
    slots, rows = np.array([3, 1, 4]), np.array([0, 1, 1])  # slot 4 does not exist
    result = tiny_model.jit(kv_cache.insert)(old, new, slots=slots, rows=rows)
    for before, source, after in zip(*map(jax.tree.leaves, (old, new, result)), strict=True):
        expected = before.copy()
        expected[3, :, :5], expected[1, :, :5] = source[0], source[1]
        np.testing.assert_array_equal(after, expected)


def test_cache_bytes_are_the_bytes_of_the_cache():
    for config in (tiny_model.CONFIG, dataclasses.replace(tiny_model.EVERYTHING, dtype='bfloat16')):
        cache = kv_cache.init_cache(config, batch=3, length=7)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
        assert kv_cache.cache_bytes(config, batch=3, length=7) == size
        assert {leaf.dtype.name for leaf in jax.tree.leaves(cache)} == {config.dtype}
        small = kv_cache.init_cache(config, batch=3, length=7, dtype='int8')
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(small))
        assert kv_cache.cache_bytes(config, batch=3, length=7, dtype='int8') == size


def test_a_cache_longer_than_the_model_is_refused_by_name():
    with pytest.raises(ValueError, match=r'65.*model\.max_length=64'):
        kv_cache.init_cache(tiny_model.CONFIG, batch=1, length=65)
