"""Placement, on the arrays and programs themselves: never on shardings that a test assumes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import placement, sharding
from elenchus.train import state as state_lib
from tests.support import compilations, tiny_model

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
CONFIG = dataclasses.replace(
    tiny_model.CONFIG, num_heads=8, num_kv_heads=4, head_dim=2, logits_chunk=6
)
OPTIMIZER = optax.adamw(1e-2)


def placement_of(shape):
    return placement.Placement(sharding.make_mesh(shape))


def device_bytes(tree):
    """Bytes on the first device and bytes of the whole tree."""
    first = jax.devices()[0]
    leaves = jax.tree.leaves(tree)
    local = [s.data.nbytes for x in leaves for s in x.addressable_shards if s.device == first]
    return sum(local), sum(x.nbytes for x in leaves)


def init_state(model):
    return state_lib.init_state(jax.tree.map(jnp.copy, model), OPTIMIZER)


@pytest.mark.parametrize('shape', MESHES, ids=str)
def test_optimizer_moments_are_created_where_their_weights_lie(shape):
    here = placement_of(shape)
    model = here.place(tiny_model.make_model(CONFIG))
    state = here.init(init_state, model)
    assert all(x is not y for x, y in zip(*map(jax.tree.leaves, (model, state.model)), strict=True))
    local, whole = device_bytes(model)
    for moments in (state.opt_state[0].mu, state.opt_state[0].nu):
        assert device_bytes(moments) == (local, whole)
        jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(), moments, model)
    assert placement_errors(state, here) == []


def placement_errors(tree, here, axes=None):
    pairs = jax.tree.map(lambda x, y: x.sharding == y, tree, here.shardings(tree, axes))
    return [path for path, same in jax.tree_util.tree_leaves_with_path(pairs) if not same]


@pytest.mark.parametrize('shape', MESHES, ids=str)
def test_a_pinned_program_compiles_once_and_reuses_the_donated_buffers(shape):
    here = placement_of(shape)

    @placement.pinned_jit(donate_argnames='state', axes={'rows': placement.ROWS})
    def step(state, rows):
        shift = rows.mean()
        model = jax.tree.map(lambda x: x + shift, state.model)
        return dataclasses.replace(state, model=model, step=state.step + 1), {'shift': shift}

    with jax.set_mesh(here.mesh):
        state = here.init(init_state, here.place(tiny_model.make_model(CONFIG)))
        rows = here.place(np.arange(16.0, dtype='float32'), placement.ROWS)
        assert rows.sharding.shard_shape(rows.shape) == (16 // (shape[0] * shape[1]),)
        before = state
        state, _ = step(state, rows)
        assert all(x.is_deleted() for x in jax.tree.leaves(before))
        with compilations.count_compilations() as events:
            for _ in range(3):
                state, metrics = step(state, rows)
        assert not events and len(step.programs) == 1
        assert (
            step.lower(state, rows).compile().memory_analysis().alias_size_in_bytes
            >= (device_bytes(state)[0])
        )
    assert placement_errors(state, here) == [] and placement_errors(metrics, here) == []


def test_arguments_of_an_equal_sharding_by_another_name_share_the_program():
    here = placement_of((1, 8, 1))
    double = here.jit(lambda x: 2 * x, axes={'x': placement.ROWS}, out_axes=placement.ROWS)
    spellings = [P('fsdp'), P('fsdp', 'tensor'), P(('data', 'fsdp'), None)]
    arrays = [
        jax.device_put(jnp.ones((8, 2)), jax.sharding.NamedSharding(here.mesh, spec))
        for spec in spellings
    ]
    results = [double(arrays[0])]
    with compilations.count_compilations() as events:
        results += [double(x) for x in arrays[1:]]
    assert not events and len(double.programs) == 1
    assert len({x.sharding for x in results}) == 1


def test_a_pinned_program_traces_once():
    traces = []
    add = placement.pinned_jit(lambda x, n: traces.append(0) or x + n, static_argnames='n')
    assert add(np.float32(1), n=2) == 3
    assert add(np.float32(2), 2) == 4
    assert len(traces) == 1
    assert add(np.float32(2), n=3) == 5
    assert len(traces) == 2 and len(add.programs) == 2


@pytest.mark.parametrize('axes', [None, placement.ROWS], ids=['other devices', 'split'])
def test_an_argument_that_lies_elsewhere_is_refused_by_name_and_not_moved_silently(axes):
    here, other = placement_of((1, 8, 1)), placement.Placement(tiny_model.one_device())
    double = here.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree))
    tree = {'a': np.ones(8), 'b': (here if axes else other).place(jnp.ones(8), axes)}
    with pytest.raises(ValueError, match=r"\['tree'\]\['b'\] lies at .*, not at .*Placement.place"):
        double(tree)
    double(here.place(tree))


def test_a_program_has_the_mesh_of_its_placement_whatever_is_in_force():
    here = placement_of((1, 8, 1))
    constrained = here.jit(
        lambda x: sharding.constrain(x, ('batch', None)), out_axes=placement.ROWS
    )
    with jax.set_mesh(tiny_model.one_device()):
        x = constrained(np.ones((8, 2)))
    assert x.sharding.shard_shape(x.shape) == (1, 2)


def test_inside_another_program_a_pinned_function_is_a_part_of_it():
    double = placement.pinned_jit(lambda x: 2 * x)
    assert jax.jit(lambda x: double(x) + 1)(3.0) == 7
    assert jax.eval_shape(double, 3.0).shape == ()
    assert not double.programs


def test_place_moves_arrays_between_meshes_and_shares_those_in_place():
    model = tiny_model.make_model(CONFIG)
    here, there = placement_of((1, 8, 1)), placement_of((2, 2, 2))
    placed = here.place(model)
    moved = there.place(placed)
    assert placement_errors(moved, there) == []
    tiny_model.assert_trees_close((moved,), (model,), relative=0)
    pointers = lambda x: [s.data.unsafe_buffer_pointer() for s in x.addressable_shards]  # noqa: E731
    again = here.place(placed)
    assert pointers(again.embedding[...]) == pointers(placed.embedding[...])


@pytest.mark.parametrize('axes', [placement.ROWS, {'x': placement.ROWS}], ids=['all', 'by name'])
def test_rows_that_do_not_divide_are_refused_by_name(axes):
    with pytest.raises(ValueError, match=r"\['x'\] \(6, 2\): batch=6 .* nearest multiple: 8"):
        placement_of((1, 8, 1)).place({'x': np.ones((6, 2))}, axes)


def test_abstract_arrays_have_the_shardings_of_real_ones():
    here = placement_of((2, 2, 2))
    model = tiny_model.make_model(CONFIG)
    abstract = here.abstract(jax.eval_shape(lambda: model))
    assert [x.sharding for x in jax.tree.leaves(abstract)] == [
        x.sharding for x in jax.tree.leaves(here.place(model))
    ]


def test_other_rules_give_another_placement():
    rules = sharding.RULES | {'embed': None}
    here = placement.Placement(sharding.make_mesh((2, 2, 2)), rules)
    embedding = here.shardings(tiny_model.make_model(CONFIG)).embedding
    assert jax.tree.leaves(embedding)[0].spec == P('tensor', None)
    assert hash(here) == hash(placement_of((2, 2, 2))) and here != placement_of((2, 2, 2))


def test_without_a_mesh_programs_run_on_the_first_device():
    x = placement.pinned_jit(lambda x: x + 1)(jnp.ones(3))
    assert x.devices() == {jax.devices()[0]}


def test_without_a_mesh_in_force_a_program_is_placed_as_its_arguments_are():
    here = placement_of((1, 8, 1))
    double = placement.pinned_jit(lambda model: jax.tree.map(lambda x: 2 * x, model))
    doubled = double(here.place(tiny_model.make_model(CONFIG)))
    assert placement_errors(doubled, here) == []
