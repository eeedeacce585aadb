"""Meshes over several TPU slices: `data` lies between the slices, the other axes within one."""

import importlib.util
import itertools
import types

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from elenchus.model import sharding
from elenchus.train.planning import compiled

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)


def fake_devices(slices, *, kind='TPU v5 lite', sides=(4, 4), platform='tpu'):
    """Stand-ins for the chips of slices whose coordinates repeat from slice to slice."""
    places = itertools.product(range(slices), range(sides[1]), range(sides[0]))
    return [
        types.SimpleNamespace(
            platform=platform,
            device_kind=kind,
            coords=(x, y, 0),
            core_on_chip=0,
            slice_index=index,
            process_index=index * sides[1] + y,
            id=number,
        )
        for number, (index, y, x) in enumerate(places)
    ]


def slices_along(layout):
    """Slice indices that each position of the data axis holds."""
    return [sorted({device.slice_index for device in row.flat}) for row in layout]


@pytest.mark.parametrize('slices', [2, 3, 4])
@pytest.mark.parametrize('within', [(1, 16, 1), (2, 4, 2), (1, 2, 8), (16, 1, 1)])
def test_every_position_of_data_is_within_one_slice(slices, within):
    devices = fake_devices(slices)
    shape = (within[0] * slices, *within[1:])
    layout = sharding.lay_out_slices(shape, devices[::-1])
    assert layout.shape == shape
    assert slices_along(layout) == [[i] for i in range(slices) for _ in range(within[0])]
    assert {device.id for device in layout.flat} == set(range(16 * slices))


@pytest.mark.parametrize(
    ('shape', 'nearest'),
    [((1, 32, 1), (2, 16, 1)), ((1, 4, 8), (2, 2, 8)), ((1, 1, 32), (2, 16, 1))],
)
def test_a_mesh_whose_data_is_no_multiple_of_the_slices_is_refused(shape, nearest):
    with pytest.raises(ValueError, match='must be a multiple of the 2 TPU slices') as error:
        sharding.lay_out_slices(shape, fake_devices(2))
    assert str(error.value).endswith(f'nearest: {nearest}')
    assert sharding.lay_out_slices(nearest, fake_devices(2)).shape == nearest


def test_hosts_with_gpus_are_no_slices():
    assert sharding.num_slices(fake_devices(2, platform='gpu', kind='NVIDIA H100')) == 1
    assert sharding.num_slices(fake_devices(2)) == 2
    assert sharding.num_slices(jax.devices()) == 1


@needs_libtpu
@pytest.mark.parametrize(('name', 'shape'), [('v5e:4x4', (2, -1, 1)), ('v5e:2x4', (-1, 2, 2))])
def test_a_program_compiles_for_two_slices_that_libtpu_describes(name, shape, monkeypatch):
    from jax.experimental import topologies

    for variable, value in compiled.LIBTPU_ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    with compiled.tpu_environment():
        devices = topologies.get_topology_desc(name, 'tpu', num_slices=2).devices
        mesh = sharding.make_mesh(shape, devices)
        assert slices_along(mesh.devices) == [
            [index] for index in (0, 1) for _ in range(mesh.shape['data'] // 2)
        ]
        rows = NamedSharding(mesh, P(('data', 'fsdp')))
        x = jax.ShapeDtypeStruct((32, 128), np.float32, sharding=rows)
        with jax.set_mesh(mesh):
            program = jax.jit(lambda x: x.sum(0)).lower(x).compile()
    assert 'all-reduce' in program.as_text()
