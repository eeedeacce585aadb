"""Machines by name, and meshes over their devices: known, or refused with the nearest."""

import ast
import math
import re

import jax
import pytest

from elenchus.model import memory_estimate, sharding
from elenchus.train.planning import machines


@pytest.mark.parametrize(
    ('name', 'chips', 'gib', 'slice_name'),
    [
        ('v5e-256', 256, 16, 'v5e:16x16'),
        ('v5p-128', 64, 95, 'v5p:4x4x4'),
        ('v6e-8', 8, 32, 'v6e:2x4'),
        ('v4-16', 8, 32, 'v4:2x2x2'),
        ('8xh100', 8, 80, None),
        ('1xh100', 1, 80, None),
    ],
)
def test_machines_are_known_by_name(name, chips, gib, slice_name):
    machine = machines.topology(name)
    assert (machine.num_chips, machine.bytes) == (chips, gib * memory_estimate.GIB)
    assert slice_name in (None, machines.slice_name(machine))
    assert machines.twice_as_large(machine) == machines.topology(
        machines.twice_as_large(machine).name
    )


@pytest.mark.parametrize('name', ['v5p-9', 'v4-3'])
def test_half_a_chip_is_refused(name):
    with pytest.raises(
        ValueError, match=rf"topology='{name}' counts 2 cores .*; nearest: "
    ) as error:
        machines.topology(name)
    assert machines.topology(str(error.value).split(': ')[-1]).num_chips == int(name[-1]) // 2


@pytest.mark.parametrize(('name', 'nearest'), [('v5p-24', 'v5p-32'), ('v6e-6', 'v6e-8')])
def test_a_slice_that_cannot_be_described_is_refused(name, nearest):
    with pytest.raises(ValueError, match=f'{name} has .*; nearest: {nearest}'):
        machines.slice_name(machines.topology(name))


@pytest.mark.parametrize('name', ['v5e', 'v7x-8', 'h100', '8xh1000', 'v5p-1', '8xv5p', ''])
def test_an_unknown_machine_is_refused_with_the_nearest(name):
    with pytest.raises(ValueError, match=rf'unknown topology={name!r}; .*; nearest: '):
        machines.topology(name)


def test_cpu_names_this_machine():
    machine = machines.topology('cpu')
    assert machine.num_chips == jax.device_count() and machine.bytes > 2**27


def test_a_mesh_that_does_not_cover_the_chips_is_refused():
    assert sharding.fill_mesh((2, -1, 2), 8) == (2, 2, 2)
    assert sharding.fill_mesh((1, -1, 1, 4), 8) == (1, 2, 1, 4)
    with pytest.raises(ValueError, match=r'mesh=\(3, 1, 1\) must cover the 8 devices exactly'):
        sharding.fill_mesh((3, 1, 1), 8)
    with pytest.raises(ValueError, match=r'mesh=\(-1, -1, 1\) .* at most one of them -1'):
        sharding.fill_mesh((-1, -1, 1), 8)


@pytest.mark.parametrize(
    ('mesh', 'context', 'words'),
    [
        (
            (3, 1, 1),
            4,
            r'mesh=\(3, 1, 1\) must cover the 2 devices .* context=4 exactly; nearest: (.*), or',
        ),
        ((1, -1, 1), 3, r'context=3 must divide the 8 devices; nearest: (.*)'),
        ((1, -1, 1), 16, r'context=16 must divide the 8 devices; nearest: (.*)'),
    ],
)
def test_the_nearest_mesh_of_a_context_is_one(mesh, context, words):
    with pytest.raises(ValueError, match=words) as error:
        sharding.fill_mesh((*mesh, context), 8)
    nearest = ast.literal_eval(re.search(words, str(error.value))[1])
    changed = (*nearest, context) if isinstance(nearest, tuple) else (*mesh, nearest)
    assert math.prod(sharding.fill_mesh(changed, 8)) == 8
