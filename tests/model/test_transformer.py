import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.batching import packing
from elenchus.model import transformer
from elenchus.model.config import RopeScaling
from tests.support import tiny_model

ROWS, LENGTH = 3, 16


@tiny_model.jit
def logits_of(model, tokens, positions, segments):
    hidden, _ = model(tokens, positions, segments=segments)
    return model.logits(hidden)


@tiny_model.jit
def value_and_grads(model, tokens, positions, segments):
    """A loss that weighs every logit differently, and its gradients."""

    def loss(model):
        hidden, _ = model(tokens, positions, segments=segments)
        logits = model.logits(hidden)
        wave = jnp.sin(jnp.arange(logits.shape[-1]) * 0.7 + positions[..., None])
        return jnp.sum(logits * wave * (segments > 0)[..., None])

    return jax.value_and_grad(loss)(model)


def random_tokens(seed, shape=(ROWS, LENGTH)):
    tokens = np.random.default_rng(seed).integers(
        0, tiny_model.CONFIG.vocab_size, shape, dtype=np.int32
    )
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    return tokens, positions, np.ones(shape, np.int32)


def reference_forward(model, tokens):
    """Logits [T, V] of one sequence in float64, written from the papers with plain loops."""
    c = model.config
    W = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model)
    at = lambda param, i=None: param[...] if i is None else param[...][i]  # noqa: E731

    def rms(x, scale):
        normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_epsilon)
        return normed * (1 + scale if c.zero_centered_norms else scale)

    def cap(x, limit):
        return limit * np.tanh(x / limit) if limit else x

    def frequency(i, window):
        if window and c.local_rope_theta:
            return c.local_rope_theta ** (-2 * i / c.head_dim)
        kept = c.rope_theta ** (-2 * i / c.head_dim)
        scaling = c.rope_scaling
        if scaling is None:
            return kept
        if scaling.kind == 'linear':
            return kept / scaling.factor
        length = 2 * np.pi / kept
        if length < scaling.original_length / scaling.high_frequency:
            return kept
        if length > scaling.original_length / scaling.low_frequency:
            return kept / scaling.factor
        share = (scaling.original_length / length - scaling.low_frequency) / (
            scaling.high_frequency - scaling.low_frequency
        )
        return (1 - share) * kept / scaling.factor + share * kept

    def rope(vector, position, window):
        out = np.empty_like(vector)
        half = c.head_dim // 2
        for i in range(half):
            angle = position * frequency(i, window)
            a, b = vector[i], vector[i + half]
            out[i] = a * np.cos(angle) - b * np.sin(angle)
            out[i + half] = a * np.sin(angle) + b * np.cos(angle)
        return out

    x = at(W.embedding)[tokens] * (c.embed_dim**0.5 if c.scale_embeddings else 1)
    for i in range(c.num_layers):
        a, m, window = W.blocks.attention, W.blocks.mlp, c.windows[i % len(c.windows)]
        h = rms(x, at(W.blocks.attention_norm.scale, i))
        q, k, v = (np.einsum('td,dnh->tnh', h, at(w, i)) for w in (a.query, a.key, a.value))
        if c.qkv_bias:
            q, k, v = q + at(a.query_bias, i), k + at(a.key_bias, i), v + at(a.value_bias, i)
        if c.qk_norm:
            q, k = rms(q, at(a.query_norm.scale, i)), rms(k, at(a.key_norm.scale, i))
        heads = np.zeros_like(q)
        for n in range(c.num_heads):
            shared = n * c.num_kv_heads // c.num_heads
            for t in range(len(tokens)):
                query = rope(q[t, n], t, window) / (c.query_scale_dim or c.head_dim) ** 0.5
                seen = range(max(0, t + 1 - window) if window else 0, t + 1)
                scores = [query @ rope(k[s, shared], s, window) for s in seen]
                scores = cap(np.array(scores), c.attention_soft_cap)
                weights = np.exp(scores - np.max(scores))
                heads[t, n] = weights / weights.sum() @ v[seen, shared]
        update = np.einsum('tnh,nhd->td', heads, at(a.out, i))
        if c.post_norms:
            update = rms(update, at(W.blocks.attention_post_norm.scale, i))
        x = x + update
        h = rms(x, at(W.blocks.mlp_norm.scale, i))
        gate = h @ at(m.gate, i)
        if c.activation == 'silu':
            gate = gate / (1 + np.exp(-gate))
        else:
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        update = (gate * (h @ at(m.up, i))) @ at(m.down, i)
        x = x + (rms(update, at(W.blocks.mlp_post_norm.scale, i)) if c.post_norms else update)
    head = at(W.embedding).T if c.tie_embeddings else at(W.head)
    return cap(rms(x, at(W.final_norm.scale)) @ head, c.logits_soft_cap)


LINEAR = RopeScaling('linear', 4.0, 0.0, 0.0, 0)


@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        (tiny_model.CONFIG, {'num_kv_heads': 4, 'windows': (3,), 'rope_scaling': LINEAR}),
        (tiny_model.CONFIG, {'num_kv_heads': 1, 'qkv_bias': True}),
        (tiny_model.CONFIG, {'qk_norm': True, 'activation': 'gelu'}),
        (tiny_model.EVERYTHING, {}),
        (tiny_model.EVERYTHING, {'num_layers': 4, 'windows': (3, 6, 0), 'scan_layers': False}),
    ],
    ids=['windowed', 'one-kv-head-biases', 'qk-norm-gelu', 'everything', 'windows-unrolled'],
)
def test_logits_are_those_of_a_plain_float64_reference(config, changes):
    model = tiny_model.make_model(dataclasses.replace(config, **changes))
    tokens, positions, segments = random_tokens(1)
    logits = logits_of(model, tokens, positions, segments)
    expected = np.stack([reference_forward(model, row) for row in tokens])
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.fixture(scope='module')
def expected():
    """Value and gradients of the scanned model without recomputation."""
    return value_and_grads(tiny_model.make_model(tiny_model.EVERYTHING), *random_tokens(2))


@pytest.mark.parametrize(
    ('scan_layers', 'remat'),
    [
        (False, 'none'),
        pytest.param(True, 'dots', marks=pytest.mark.slow),
        pytest.param(True, 'full', marks=pytest.mark.slow),
    ],
)
def test_unrolling_and_rematerialisation_change_no_value_and_no_gradient(
    expected, scan_layers, remat
):
    config = dataclasses.replace(tiny_model.EVERYTHING, scan_layers=scan_layers, remat=remat)
    actual = value_and_grads(tiny_model.make_model(config), *random_tokens(2))
    tiny_model.assert_trees_close(actual, expected, relative=1e-6)


def test_future_tokens_do_not_matter():
    model = tiny_model.make_model(tiny_model.EVERYTHING)
    tokens, positions, segments = random_tokens(3)
    changed = tokens.copy()
    changed[:, 7:] = (changed[:, 7:] + 1) % tiny_model.CONFIG.vocab_size
    before = np.asarray(logits_of(model, tokens, positions, segments))
    after = np.asarray(logits_of(model, changed, positions, segments))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert np.abs(before[:, 7:] - after[:, 7:]).max(axis=-1).min() > 1e-3


def test_a_packed_row_gives_the_logits_and_gradients_of_its_sequences_alone():
    model = tiny_model.make_model(tiny_model.EVERYTHING)
    examples = tiny_model.random_examples(4, (5, 4, 3))
    packed = packing.pack(examples, rows=ROWS, length=LENGTH)
    alone = packing.pad(examples, length=LENGTH)
    assert not packed.segments[1:].any()
    together = logits_of(model, packed.tokens, packed.positions, packed.segments)[0]
    apart = logits_of(model, alone.tokens, alone.positions, alone.segments)
    cut = np.concatenate([apart[i, : len(e.tokens)] for i, e in enumerate(examples)])
    np.testing.assert_allclose(together[: len(cut)], cut, atol=2e-5)
    tiny_model.assert_trees_close(
        value_and_grads(model, packed.tokens, packed.positions, packed.segments),
        value_and_grads(model, alone.tokens, alone.positions, alone.segments),
        relative=1e-6,
    )


def test_padding_changes_no_logit():
    model = tiny_model.make_model(tiny_model.EVERYTHING)
    batch = tiny_model.random_batch(5, rows=ROWS, length=LENGTH)
    changed = tiny_model.with_padding(batch, np.random.default_rng(5))
    before, after = (
        np.asarray(logits_of(model, x.tokens, x.positions, x.segments)) for x in (batch, changed)
    )
    real = batch.segments > 0
    np.testing.assert_array_equal(before[real], after[real])
    assert np.isfinite(after).all()


def test_bfloat16_compute_keeps_float32_parameters_and_logits_and_is_close():
    config = dataclasses.replace(tiny_model.EVERYTHING, dtype='bfloat16')
    model = tiny_model.make_model(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype('float32')}
    inputs = random_tokens(6)
    logits = logits_of(model, *inputs)
    assert logits.dtype == jnp.float32
    exact = logits_of(tiny_model.make_model(tiny_model.EVERYTHING), *inputs)
    error = np.linalg.norm(logits - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03, error


def test_bfloat16_sums_the_gradient_of_a_frequent_token_in_float32():
    """A bfloat16 sum of equal numbers stops growing at 256 times one of them."""
    config = dataclasses.replace(tiny_model.EVERYTHING, dtype='bfloat16', num_layers=1)
    model = tiny_model.make_model(config)
    tokens = np.full((1024, 1), 7, np.int32)
    first = (np.arange(1024) < 1)[:, None].astype(np.int32)
    grads = [value_and_grads(model, tokens, 0 * tokens, rows)[1] for rows in (first, 0 * first + 1)]
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype('float32')}
    of_one, of_all = (np.asarray(g.embedding[...][7]) for g in grads)
    assert np.linalg.norm(of_all - 1024 * of_one) < 1e-3 * np.linalg.norm(of_all)


def test_unstacked_blocks_are_the_layers_in_order():
    model = tiny_model.make_model(tiny_model.CONFIG)
    blocks = model.unstacked().blocks
    assert len(blocks) == tiny_model.CONFIG.num_layers
    for i, block in enumerate(blocks):
        np.testing.assert_array_equal(block.mlp.up[...], model.blocks.mlp.up[...][i])


@pytest.fixture(scope='module')
def init_model():
    config = dataclasses.replace(
        tiny_model.CONFIG, embed_dim=64, mlp_dim=128, num_heads=8, head_dim=16
    )
    return tiny_model.jit(lambda key: transformer.init_model(config, key))


def test_the_same_key_makes_the_same_model_and_layers_differ(init_model):
    first, again, other = (init_model(jax.random.key(seed)) for seed in (3, 3, 4))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, again)))
    up = first.blocks.mlp.up[...]
    assert not np.array_equal(up, other.blocks.mlp.up[...])
    assert not np.array_equal(up[0], up[1])
    assert not np.array_equal(up, first.blocks.mlp.gate[...])


def test_initial_weights_have_variance_one_over_fan_in(init_model):
    model = init_model(jax.random.key(0))
    attention, mlp = model.blocks.attention, model.blocks.mlp
    for weight in (attention.query, attention.value, mlp.up, model.embedding):
        assert np.std(weight[...]) == pytest.approx(64**-0.5, rel=0.05)


def test_attention_starts_by_adding_nothing(init_model):
    model = init_model(jax.random.key(0))
    run = tiny_model.jit(lambda m, tokens, positions: m(tokens, positions)[0])
    tokens, positions = np.array([[5, 6, 7], [8, 9, 7]]), np.array([[0, 1, 2]] * 2)
    hidden = run(model, tokens, positions)
    np.testing.assert_array_equal(hidden[0, -1], hidden[1, -1])
    assert not np.array_equal(hidden[0, 0], hidden[1, 0])
