"""The loss head and the embedding on meshes: values, gradients, and the compiled collectives."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import embedding, logprobs, placement, sharding, weight_gather
from elenchus.model.placement import ROWS, Placement
from elenchus.sampling.engine.sampling_methods import TemperatureSampling
from elenchus.train.planning import compiled, machines, program_cost
from tests.support import hlo, slow_cases, tiny_model

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
CONFIG = dataclasses.replace(tiny_model.EVERYTHING, num_heads=8, num_kv_heads=4)
D, V, B, T = CONFIG.embed_dim, CONFIG.vocab_size, 16, 11
SLOW = pytest.mark.slow
SAMPLING = TemperatureSampling(0.7, 5, 0.9, 0.01, (3,))


def inputs():
    rng = np.random.default_rng(0)
    return rng.standard_normal((B, T, D)).astype('float32'), rng.integers(4, V, (B, T))


def value_and_grads(config, transform, *, mesh=None, with_entropy=True):
    """(value, gradients) of a weighted sum of scores, and the text of its program."""
    here = Placement(mesh or tiny_model.one_device())
    model, (hidden, tokens) = tiny_model.make_model(config), inputs()

    def total(model, hidden, tokens):
        values = logprobs.token_logprobs(
            model, hidden.astype(config.dtype), tokens, transform=transform
        )
        wave = jnp.cos(jnp.arange(B * T, dtype='float32').reshape(B, T))
        finite = [jnp.where(jnp.isfinite(x), x, 0.0) for x in values]
        return (wave * finite[0]).sum() + (0.3 * finite[1].sum() if with_entropy else 0.0)

    @functools.partial(
        here.jit, axes={'hidden': ROWS, 'tokens': ROWS}, out_axes=(None, (None, ROWS))
    )
    def program(model, hidden, tokens):
        return jax.value_and_grad(total, argnums=(0, 1))(model, hidden, tokens)

    arguments = here.place(model), here.place(hidden, ROWS), here.place(tokens, ROWS)
    value, (grads, hidden_grads) = program(*arguments)
    head = grads.embedding if config.tie_embeddings else grads.head
    text = program.lower(*arguments).compile().as_text()
    return (value, head[...], hidden_grads), text


@slow_cases.combinations(
    {((2, 2, 2), 'tied', 6)},
    shape=MESHES,
    tied=['tied', 'untied'],
    chunk=[6, 10_000],
)
def test_the_head_is_gathered_once_and_its_gradient_scattered_once(shape, tied, chunk):
    mesh = sharding.make_mesh(shape)
    config = dataclasses.replace(CONFIG, tie_embeddings=tied == 'tied', logits_chunk=chunk)
    expected, _ = value_and_grads(config, SAMPLING.transform)
    actual, text = value_and_grads(config, SAMPLING.transform, mesh=mesh)
    tiny_model.assert_trees_close(actual, expected, relative=2e-6)
    # The transform of the sampler may gather logits; the plain likelihood does not.
    _, text = value_and_grads(config, tiny_model.untouched, mesh=mesh)
    moved = hlo.collectives(text)
    whole, is_split = D * V // shape[2], shape[1] > 1
    tables = [c for c in moved if np.prod(c.shape) >= whole // shape[1] and c.kind != 'all-reduce']
    assert [c.kind for c in tables] == ['all-gather', 'reduce-scatter'] * is_split
    assert not any(c.in_loop for c in tables)
    assert all(np.prod(c.shape) == whole for c in tables if c.kind == 'all-gather')
    # The rest: sums over 'data' of a shard; over 'tensor' of tokens and of their hidden states.
    sums = [c for c in moved if c.kind == 'all-reduce' and V // shape[2] in c.shape]
    assert [np.prod(c.shape) for c in sums] == [whole // shape[1]] * (shape[0] > 1)
    for c in moved:
        if c.in_loop:
            assert shape[2] > 1 and np.prod(c.shape) <= max(6, chunk) * D


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
@pytest.mark.parametrize(
    'machine, shape, width, vocabulary',
    [
        ('v5e-8', (1, 8, 1), 256, 1187 * 128),
        pytest.param('v5e-256', (1, 256, 1), 4096, 128_256, marks=SLOW),
        pytest.param('v5e-64', (1, 64, 1), 1536, 151_936, marks=SLOW),
        pytest.param('v5e-64', (1, 16, 4), 1536, 151_936, marks=SLOW),
        pytest.param('v5e-64', (2, 32, 1), 1024, 262_144, marks=SLOW),
        pytest.param('v5p-128', (1, 64, 1), 4096, 128_256, marks=SLOW),
    ],
    ids=str,
)
def test_xla_for_tpus_scatters_the_gradient_of_a_head(machine, shape, width, vocabulary):
    """Whatever its number of memory tiles."""
    machine = machines.topology(machine)
    axes = ('embed', 'vocab')
    with compiled.mesh_of(machine, shape) as mesh, placement.current().in_force():

        def total(head, hidden):
            def columns(heads, hidden):
                logits = sharding.constrain(hidden @ heads[0], (None, 'vocab'))
                return jnp.tanh(logits).sum(axis=-1)

            copies = weight_gather.copy_to_rows(head.astype('bfloat16'), axes)
            rows = ('batch', None)
            return sharding.map_rows(columns, (copies, hidden), ((*rows, 'vocab'), rows)).sum()

        place = lambda spec: jax.sharding.NamedSharding(mesh, spec)  # noqa: E731
        head = jax.ShapeDtypeStruct(
            (width, vocabulary), 'float32', sharding=place(P('fsdp', 'tensor'))
        )
        rows = 8 * shape[0] * shape[1]
        hidden = jax.ShapeDtypeStruct(
            (rows, width), 'bfloat16', sharding=place(P(('data', 'fsdp')))
        )
        program = jax.jit(jax.grad(total), out_shardings=head.sharding)
        moved = program_cost.program_cost(program.lower(head, hidden).compile().as_text()).once
    table = 2 * width * vocabulary / shape[2]
    assert moved.collectives['reduce-scatter'].received_bytes < 1.1 * table
    # Left: sums over 'data' of a shard.
    summed = moved.collectives.get('all-reduce', program_cost.Collective()).received_bytes
    assert summed <= 2.2 * table / shape[1] * (shape[0] > 1)


def test_many_chunks_in_bfloat16_add_up_the_gradient_of_the_head_in_float32():
    config = dataclasses.replace(CONFIG, dtype='bfloat16', logits_chunk=B * T)
    whole, _ = value_and_grads(dataclasses.replace(config, dtype='float32'), tiny_model.untouched)
    errors = []
    for chunk in (B * T, 2):
        config = dataclasses.replace(config, logits_chunk=chunk)
        (_, head, _), _ = value_and_grads(config, tiny_model.untouched)
        errors.append(np.linalg.norm(np.float64(head) - whole[1]) / np.linalg.norm(whole[1]))
    assert errors[1] < 1.2 * errors[0], errors


def test_a_frozen_head_and_an_unused_entropy_cost_nothing_in_the_backward_pass():
    config = dataclasses.replace(CONFIG, logits_chunk=16)
    model, (hidden, tokens) = tiny_model.make_model(config), inputs()

    def total(head, hidden, index):
        changed = jax.tree.map(lambda x: x, model)
        changed.head[...] = head
        scores = logprobs.token_logprobs(changed, hidden, tokens, transform=tiny_model.untouched)
        return sum(x.sum() for x in scores[:index])

    def flops(argnums, index):
        grad = jax.jit(jax.grad(total, argnums=argnums), static_argnums=2)
        compiled = grad.lower(model.head[...], hidden, index).compile()
        text = compiled.as_text()
        return text.count(' dot('), text.count('exponential')

    both, frozen = flops((0, 1), 1), flops(1, 1)
    assert frozen[0] < both[0]
    assert flops(1, 1)[1] <= flops(1, 2)[1]


@slow_cases.combinations(
    {
        ((8, 1, 1), 'float32'),
        ((1, 8, 1), 'bfloat16'),
        ((2, 2, 2), 'float32'),
        ((1, 2, 4), 'bfloat16'),
        ((2, 1, 4), 'float32'),
    },
    shape=[*MESHES, (2, 1, 4)],
    dtype=['float32', 'bfloat16'],
)
def test_embeddings_are_looked_up_where_their_table_lies(shape, dtype):
    rng = np.random.default_rng(1)
    table = rng.standard_normal((V, D)).astype('float32')
    weights = rng.standard_normal((B, T, D)).astype('float32')
    _, tokens = inputs()
    tokens[0] = 4  # repeated

    def total(table, tokens, weights):
        vectors = embedding.look_up(table, tokens, dtype=dtype)
        return (vectors.astype('float32') * weights).sum(), vectors

    grad = jax.value_and_grad(total, has_aux=True)
    (_, expected), expected_grads = grad(table, tokens, weights)
    here = Placement(sharding.make_mesh(shape))
    axes = {'table': P('vocab', 'embed'), 'tokens': ROWS, 'weights': ROWS}
    program = here.jit(
        lambda table, tokens, weights: grad(table, tokens, weights),
        axes=axes,
        out_axes=((None, ROWS), axes['table']),
    )
    arguments = [
        here.place(x, y) for x, y in zip((table, tokens, weights), axes.values(), strict=True)
    ]
    (_, actual), grads = program(*arguments)
    np.testing.assert_array_equal(np.float32(actual), np.float32(expected))
    np.testing.assert_allclose(grads, expected_grads, atol=2e-5)
    moved = hlo.collectives(program.lower(*arguments).compile().as_text())
    shard = V * D // (shape[1] * shape[2])
    assert not [c for c in moved if c.kind in ('all-gather', 'reduce-scatter') and c.dtype != 's32']
    for c in moved:  # beside rows, only the sum over 'data' of a device's part of the gradient
        assert np.prod(c.shape) <= B * T * D // shape[0] or np.prod(c.shape) == shard


def test_rows_that_do_not_divide_still_get_their_embeddings():
    table, tokens = np.arange(V * D, dtype='float32').reshape(V, D), np.arange(15).reshape(3, 5)
    with jax.set_mesh(sharding.make_mesh((1, 4, 2))):
        actual = jax.jit(functools.partial(embedding.look_up, dtype='float32'))(table, tokens)
    np.testing.assert_array_equal(actual, table[tokens])
