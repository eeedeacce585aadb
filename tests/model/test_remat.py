"""Arrays that the backward pass keeps by name, on the device or in the memory of the host."""

import collections
import dataclasses
import re

import jax
import numpy as np
import pytest

from elenchus.model import memory_estimate, placement, sharding
from elenchus.model.placement import pinned_jit
from tests.support import slow_cases, tiny_model

CONFIG = dataclasses.replace(
    tiny_model.EVERYTHING, num_heads=8, num_kv_heads=2, head_dim=6, mlp_dim=40, remat='full'
)
ROWS, LENGTH = 8, 12
WIDTHS = {
    'query': (8, 6),
    'key': (2, 6),
    'value': (2, 6),
    'attention': (8, 6),
    'residual': (16,),
    'gate': (40,),
    'up': (40,),
}
"""Name -> shape of the array of one token."""
SOME, OTHERS = ('attention', 'gate'), ('residual', 'up')


def loss(model):
    batch = tiny_model.random_batch(0, rows=ROWS, length=LENGTH)
    hidden, _ = model(batch.tokens, batch.positions, segments=batch.segments)
    return (hidden * np.cos(np.arange(hidden.shape[-1]))).sum()


def residuals(**changes):
    """Shapes [L, B, T, ...] that the forward pass leaves to the backward pass -> their number."""
    model = tiny_model.make_model(dataclasses.replace(CONFIG, **changes))
    shapes = jax.eval_shape(lambda model: jax.vjp(loss, model)[1], model)
    layers = (CONFIG.num_layers, ROWS, LENGTH)
    return collections.Counter(
        x.shape[3:] for x in jax.tree.leaves(shapes) if x.shape[:3] == layers
    )


@pytest.mark.slow
@slow_cases.combinations({('remat_saved',)}, field=['remat_saved', 'remat_offloaded'])
def test_exactly_the_named_arrays_are_kept_beside_the_input_of_each_layer(field):
    least = residuals()
    assert least == {(CONFIG.embed_dim,): 1}
    for name, width in WIDTHS.items():
        assert residuals(**{field: (name,)}) - least == {width: 1}, name
    assert residuals(**{field: tuple(WIDTHS)}) - least == collections.Counter(WIDTHS.values())


def test_offloaded_arrays_lie_in_the_memory_of_the_host():
    model = tiny_model.make_model(dataclasses.replace(CONFIG, **VARIANTS['both']))
    program = str(jax.make_jaxpr(jax.grad(loss))(model))
    shapes = set(re.findall(r'f32<host>\[([\d,]+)\]', program))
    # One layer's, as it leaves and comes back; and those of all layers between the passes.
    of_layer = {f'{ROWS},{LENGTH},{WIDTHS[name][0]}' for name in OTHERS}
    assert shapes == of_layer | {f'{CONFIG.num_layers},{shape}' for shape in of_layer}


@pytest.fixture(scope='module')
def expected():
    config = dataclasses.replace(CONFIG, remat='none')
    return jax.value_and_grad(loss)(tiny_model.make_model(config))


VARIANTS = {
    'saved': {'remat_saved': tuple(WIDTHS)},
    'offloaded': {'remat_offloaded': tuple(WIDTHS)},
    'both': {'remat_saved': SOME, 'remat_offloaded': OTHERS},
    'unrolled': {'remat_saved': SOME, 'remat_offloaded': OTHERS, 'scan_layers': False},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'shape'),
    [
        ('both', (2, 2, 2)),
        *((n, (1, 1, 1)) for n in VARIANTS),
        ('offloaded', (1, 8, 1)),
        ('unrolled', (2, 2, 2)),
    ],
    ids=str,
)
def test_what_is_kept_changes_no_value_and_no_gradient(expected, name, shape):
    model = tiny_model.make_model(dataclasses.replace(CONFIG, **VARIANTS[name]))
    with jax.set_mesh(sharding.make_mesh(shape, jax.devices()[: np.prod(shape)])):
        program = pinned_jit(lambda model: jax.value_and_grad(loss)(model))
        model = placement.current().place(model)
        actual = program(model)
    tiny_model.assert_trees_close(actual, expected, relative=4e-6)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'remat': 'dots', 'remat_saved': ('up',)}, "model.remat='dots'; nearest: 'full'"),
        ({'remat': 'none', 'remat_offloaded': ('up',)}, "model.remat='none'; nearest: 'full'"),
        ({'remat_saved': ('up', 'up')}, "name 'up' twice"),
        ({'remat_saved': ('up',), 'remat_offloaded': ('gate', 'up')}, "name 'up' twice"),
    ],
    ids=str,
)
def test_names_without_effect_are_refused(changes, words):
    with pytest.raises(ValueError, match='model.remat_') as error:
        dataclasses.replace(CONFIG, **changes)
    assert words in str(error.value)


def activations(**changes):
    mesh = memory_estimate.abstract_mesh((1, 1, 1))
    config = dataclasses.replace(CONFIG, **changes)
    size = {'rows': ROWS, 'length': LENGTH, 'mesh': mesh}
    return (
        memory_estimate.activation_bytes(config, **size)['kept'],
        memory_estimate.host_bytes(config, **size),
    )


def test_the_estimate_counts_named_arrays_where_they_lie():
    kept, _ = activations()
    for name, width in WIDTHS.items():
        size = 4 * CONFIG.num_layers * ROWS * LENGTH * int(np.prod(width))
        assert activations(remat_saved=(name,)) == (kept + size, 0)
        assert activations(remat_offloaded=(name,)) == (kept, size)
