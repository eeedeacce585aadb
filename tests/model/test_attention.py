"""Kernels compute the same as the einsum; on a CPU by Pallas' interpreter and by XLA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import memory_estimate, platforms, sharding
from elenchus.model.attention import einsum, inputs, kernels
from tests.support import tiny_model

CASES = {  # length, query heads, key heads, packed, window, soft cap
    'causal': (100, 2, 2, False, 0, 0.0),
    'one-key-head-window': (130, 3, 1, False, 40, 0.0),
    'packed-window': (384, 4, 2, True, 70, 0.0),
    'everything': (384, 4, 2, True, 70, 3.0),
}
KERNELS = [('splash', case) for case in CASES if case != 'packed-window'] + [
    ('cudnn', case) for case in CASES if case != 'everything'
]
FAST = ('everything', 'packed-window')  # together all that a kernel may meet
SPLASH = dataclasses.replace(tiny_model.CONFIG, attention='splash', head_dim=8)
CUDNN = dataclasses.replace(SPLASH, attention='cudnn', dtype='bfloat16')


def random_arrays(T, N, K, *, packed, rows=2):
    """Query, key and value with heads of width 8, and segments that end in padding."""
    rng = np.random.default_rng(T + N)
    arrays = tuple(
        rng.normal(size=shape).astype(np.float32)
        for shape in ((rows, T, N, 8), (rows, K, T, 8), (rows, K, T, 8))
    )
    segments = np.sort(rng.integers(0, 4, (rows, T)).astype(np.int32), axis=1)[:, ::-1]
    return arrays, segments if packed else None


def make_mask(T, segments, window):
    distance = np.arange(T)[:, None] - np.arange(T)
    mask = (distance >= 0) & (distance < (window or T))
    return mask[None] if segments is None else mask & (segments[:, :, None] == segments[:, None])


def value_and_grads(attend, arrays):
    def loss(arrays):
        out = attend(*arrays)
        return jnp.sum(out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)), out

    return tiny_model.jit(jax.value_and_grad(loss, has_aux=True))(arrays)


def by_einsum(segments, window, cap, function=einsum.attend):
    def attend(query, key, value):
        mask = make_mask(query.shape[1], segments, window)
        return function(query, key, value, mask=mask, scale=0.5, cap=cap)

    return attend


def by_kernel(name, segments, window, cap):
    config = {'splash': SPLASH, 'cudnn': CUDNN}[name]
    config = dataclasses.replace(config, attention_soft_cap=cap)
    attention_inputs = inputs.AttentionInputs((), None, segments, (window,))

    def attend(query, key, value):
        return kernels.attend_causal(
            query, key, value, inputs=attention_inputs, config=config, scale=0.5
        )

    return attend


@pytest.mark.parametrize('T', [128, 130])
def test_blocks_of_queries_change_no_value_and_no_gradient(T):
    arrays, segments = random_arrays(T, 4, 2, packed=True)
    actual, expected = (
        value_and_grads(by_einsum(segments, 0, 3.0, function), arrays)
        for function in (einsum.attend_causal, einsum.attend)
    )
    tiny_model.assert_trees_close(actual, expected, relative=1e-6)


@pytest.mark.parametrize(
    ('name', 'case'),
    [pytest.param(*k, marks=() if k[1] in FAST else pytest.mark.slow) for k in KERNELS],
)
def test_a_kernel_has_the_values_and_gradients_of_the_einsum(name, case):
    T, N, K, packed, window, cap = CASES[case]
    arrays, segments = random_arrays(T, N, K, packed=packed)
    actual = value_and_grads(by_kernel(name, segments, window, cap), arrays)
    expected = value_and_grads(by_einsum(segments, window, cap), arrays)
    assert actual[0][1].shape == arrays[0].shape
    tiny_model.assert_trees_close(actual, expected, relative=1e-5)


@pytest.mark.parametrize(
    ('name', 'window', 'cap'),
    [
        ('cudnn', 100, 0.0),
        pytest.param('cudnn', 0, 0.0, marks=pytest.mark.slow),
        pytest.param('splash', 100, 3.0, marks=pytest.mark.slow),
        pytest.param('splash', 0, 0.0, marks=pytest.mark.slow),
    ],
)
def test_queries_in_parts_have_the_values_and_gradients_of_the_whole(name, window, cap):
    """As 'context' splits them: each part of a sequence against all keys, packed segments too."""
    arrays, segments = random_arrays(256, 4, 2, packed=True)
    options = {'segments': segments, 'window': window, 'scale': 0.5, 'cap': cap}

    def attend(query, key, value):
        parts = jnp.split(query.swapaxes(1, 2), 2, axis=2)
        kernel = getattr(kernels, name)
        outs = [kernel(part, key, value, part=i, **options) for i, part in enumerate(parts)]
        return jnp.concatenate(outs, axis=2).swapaxes(1, 2)

    actual = value_and_grads(attend, arrays)
    expected = value_and_grads(by_einsum(segments, window, cap), arrays)
    tiny_model.assert_trees_close(actual, expected, relative=1e-5)


@pytest.mark.parametrize(('N', 'K', 'T'), [(3, 1, 1), (4, 2, 4), (9, 3, 3)])
def test_few_queries_stand_on_the_right_of_the_keys_on_a_cpu(N, K, T, monkeypatch):
    """Decoding's product reads keys as they lie, and changes no value and no gradient."""
    monkeypatch.setattr(einsum, 'MIN_RIGHT_WIDTH', 8)
    (query, key, value), _ = random_arrays(24, N, K, packed=False)
    query, mask = query[:, :T], make_mask(24, None, 0)[:, -T:]

    def attend(*arrays):
        return einsum.attend(*arrays, mask=mask, scale=0.5, cap=0.0)

    def products(attend):  # a new function each time: JAX keeps what it has traced
        return str(jax.make_jaxpr(attend)(query, key, value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(einsum, 'MAX_RIGHT_QUERIES', 0)
        expected = value_and_grads(attend, (query, key, value))
        usual = products(lambda *arrays: attend(*arrays))
    actual = value_and_grads(attend, (query, key, value))
    swapped = products(lambda *arrays: attend(*arrays))
    assert (swapped == usual) == (N // K * T > 8)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize('name', ['splash', 'cudnn'])
def test_on_a_mesh_every_device_computes_its_own_rows_and_heads(name):
    arrays, segments = random_arrays(128, 4, 2, packed=True, rows=4)
    expected = value_and_grads(by_einsum(segments, 0, 0.0), arrays)
    with jax.set_mesh(sharding.make_mesh((2, 2, 2))):
        actual = value_and_grads(by_kernel(name, segments, 0, 0.0), arrays)
    out = actual[0][1]
    assert out.sharding.shard_shape(out.shape) == (1, 128, 2, 8)
    tiny_model.assert_trees_close(actual, expected, relative=1e-5)


@pytest.mark.slow
def test_a_model_trains_and_prefills_with_a_kernel_as_with_the_einsum():
    """Layers of two windows in one scan, and an unrolled prefill."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, tiny_model.CONFIG.vocab_size, (2, 12), dtype=np.int32)
    positions = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
    segments = np.sort(rng.integers(0, 3, tokens.shape).astype(np.int32), axis=1)[:, ::-1]

    @tiny_model.jit
    def run(model):
        def loss(model):
            hidden = model(tokens, positions, segments=segments)[0]
            return jnp.sum(model.logits(hidden) ** 2)

        return jax.value_and_grad(loss)(model), model(tokens, positions, return_cache='model')

    config = dataclasses.replace(tiny_model.CONFIG, windows=(5, 0))
    expected, actual = (
        run(tiny_model.make_model(dataclasses.replace(config, attention=name)))
        for name in ('einsum', 'splash')
    )
    tiny_model.assert_trees_close(actual, expected, relative=1e-5)


def test_splash_compiles_to_three_kernels_on_a_mesh_of_tpus():
    chip = jax.sharding.AbstractDevice('TPU v5 lite', 1, 'tpu')
    mesh = memory_estimate.abstract_mesh((1, 1, 1)).update(abstract_device=chip)
    shapes = [
        jax.ShapeDtypeStruct(shape, 'bfloat16')
        for shape in ((2, 1024, 8, 128), (2, 2, 1024, 128), (2, 2, 1024, 128))
    ]
    segments = np.ones((2, 1024), np.int32)
    attend = by_kernel('splash', segments, 300, 30.0)
    grads = jax.grad(lambda *arrays: attend(*arrays).sum(), argnums=(0, 1, 2))
    assert platforms.target_platform() == 'cpu'
    with jax.sharding.use_abstract_mesh(mesh):
        assert platforms.target_platform() == 'tpu'
        lowered = jax.jit(grads).trace(*shapes).lower(lowering_platforms=('tpu',))
    assert lowered.as_text().count('tpu_custom_call') == 3  # forward, of queries, of keys


@pytest.mark.parametrize(('packed', 'window'), [(False, 0), (False, 40), (True, 0), (True, 40)])
def test_cudnn_gets_a_window_or_a_mask_but_never_both(monkeypatch, packed, window):
    recorded = {}

    def record(query, key, value, **arguments):
        recorded.update(arguments, shapes=(query.shape, key.shape, value.shape))
        return query

    monkeypatch.setattr(platforms, 'target_platform', lambda: 'gpu')
    monkeypatch.setattr(jax.nn, 'dot_product_attention', record)
    arrays, segments = random_arrays(128, 4, 2, packed=packed)
    by_kernel('cudnn', segments, window, 0.0)(*arrays)
    mask = recorded.pop('mask')
    local_window = (window - 1, 0) if window and not packed else None
    assert recorded == {
        'implementation': 'cudnn', 'scale': 0.5, 'is_causal': True,
        'local_window_size': local_window,
        'shapes': ((2, 128, 4, 8), (2, 128, 2, 8), (2, 128, 2, 8)),
    }  # fmt: skip
    if packed:
        causal = np.tril(np.ones((128, 128), bool))
        np.testing.assert_array_equal(mask[:, 0] & causal, make_mask(128, segments, window))
    else:
        assert mask is None


@pytest.mark.parametrize(
    ('config', 'platform', 'needed'),
    [(SPLASH, 'cpu', 'tpu'), (SPLASH, 'gpu', 'tpu'), (CUDNN, 'cpu', 'gpu'), (CUDNN, 'tpu', 'gpu')],
)
def test_a_kernel_is_refused_where_it_does_not_run(config, platform, needed):
    message = rf'model\.attention={config.attention!r} runs on {needed} .*not on {platform}.*einsum'
    with pytest.raises(ValueError, match=message):
        kernels.check_backend(config, platform)
    kernels.check_backend(config, needed)
    kernels.check_backend(tiny_model.CONFIG, platform)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'dtype': 'float32'}, r"dtype='float32'; nearest: 'bfloat16'"),
        ({'attention_soft_cap': 5.0}, r'attention_soft_cap=5\.0; nearest: 0\.0'),
        ({'head_dim': 4}, r'head_dim=4, .*; nearest: 8'),
        ({'head_dim': 260}, r'head_dim=260, .*; nearest: 256'),
        ({'head_dim': 36}, r'head_dim=36, .*; nearest: (32|40)'),
    ],
    ids=str,
)
def test_cudnn_refuses_unsupported_values_by_name(changes, message):
    with pytest.raises(ValueError, match=rf"model\.attention='cudnn' .*model\.{message}"):
        dataclasses.replace(CUDNN, **changes)


def test_kernels_store_no_scores():
    def scores(config, length):
        one = memory_estimate.abstract_mesh((1, 1, 1))
        return memory_estimate.layer_bytes(config, length=length, mesh=one)['scores']

    assert scores(tiny_model.CONFIG, 2048) == 2 * scores(tiny_model.CONFIG, 1024)
    assert scores(SPLASH, 2048) == scores(SPLASH, 1024) < scores(tiny_model.CONFIG, 1024) / 500
    masks = 2 * 2 * (2048 - 1024)  # a mask in bfloat16 and its gradient, of all heads
    assert scores(CUDNN, 2048) - scores(CUDNN, 1024) == masks
