"""Reserves devices for rollouts: the last ones of the run's mesh, along its axis 'data'.

The trainer keeps the others, and the weights move once an iteration. On several shared devices
rollouts cannot overlap updates: two threads start programs in any order, so a device in a program
of the trainer and one in a program of the sampler could wait for each other forever.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from elenchus.model import lora, sharding
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer
from elenchus.sampling.model_pair import ModelPair
from elenchus.train.rl.iterations import PlayerTraining
from elenchus.train.rl.settings import Player, ReinforceSettings

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh


class Divided(NamedTuple):
    """Models on the trainer's devices, and where rollouts are sampled; None: on the same."""

    models: ModelPair
    teacher: Transformer | None
    sampler: Placement | None


@contextlib.contextmanager
def divided(
    models: ModelPair, teacher: Transformer | None, *, settings: ReinforceSettings
) -> Iterator[Divided]:
    """Makes the trainer's devices the current mesh in a block; see `check_overlap` for errors."""
    mesh = sharding.current_mesh()
    check_overlap(settings, mesh)
    if not settings.rollout_devices:
        yield Divided(models, teacher, None)
        return
    trainer, sampler = map(Placement, parts(mesh, settings.rollout_devices))
    with trainer.in_force():
        teacher = None if teacher is None else trainer.place(teacher)
        yield Divided(place_pair(models, trainer), teacher, sampler)


def parts(mesh: Mesh, num_devices: int) -> tuple[Mesh, Mesh]:
    """Returns the meshes of trainer and sampler; `num_devices` are those of the sampler.

    Both have the axes of `mesh`. Of an abstract mesh they are abstract.
    """
    sizes = tuple(mesh.shape.values())
    count = sizes[0] - num_devices // (mesh.size // sizes[0])
    options = {'axis_types': mesh.axis_types}
    if isinstance(mesh, jax.sharding.AbstractMesh):
        first, second = ((n, *sizes[1:]) for n in (count, sizes[0] - count))
    else:
        first, second = mesh.devices[:count], mesh.devices[count:]
    kind = type(mesh)
    return kind(first, mesh.axis_names, **options), kind(second, mesh.axis_names, **options)


def check_overlap(settings: ReinforceSettings, mesh: Mesh) -> None:
    """Raises ValueError if rollouts of these settings cannot overlap updates on the mesh.

    Overlap needs a run of one process and, on several devices, some for rollouts alone.
    """
    staleness, count = settings.staleness, settings.rollout_devices
    if count and (not staleness or settings.implicit.beta):
        raise ValueError(
            f'reinforce.rollout_devices={count} needs staleness above 0, not {staleness}, and no '
            f'scores of a copy (implicit.beta={settings.implicit.beta}); nearest: 0'
        )
    if staleness and jax.process_count() > 1:
        raise ValueError(
            f'reinforce.staleness={staleness} is for a run of one process, not of '
            f'{jax.process_count()}; nearest: 0'
        )
    row, data = mesh.size // mesh.shape['data'], mesh.shape['data']
    choices = [n * row for n in range(1, data)]
    if staleness and mesh.size > 1 and not count:
        hint = f'set reinforce.rollout_devices={choices[0]}' if choices else 'nearest: 0'
        raise ValueError(
            f'reinforce.staleness={staleness} on {mesh.size} devices needs some of them for '
            f'rollouts alone: {hint}'
        )
    if count and count not in choices:
        nearest = min([0, *choices], key=lambda n: abs(n - count))
        raise ValueError(
            f'reinforce.rollout_devices={count} must be a multiple of {row}, the devices that '
            f"share a row, below the mesh's {mesh.size}; nearest: {nearest}"
        )


def place_pair(models: ModelPair, place: Placement) -> ModelPair:
    """Returns the pair with both models placed; arrays that they share are moved once."""
    both = {'actor': models.actor, 'critic': models.critic}
    leaves, structure = jax.tree.flatten(both)
    shardings = jax.tree.leaves(place.shardings(both))
    once = {id(x): (x, where) for x, where in zip(leaves, shardings, strict=True)}
    moved = {key: jax.device_put(*pair) for key, pair in once.items()}
    placed = jax.tree.unflatten(structure, [moved[id(x)] for x in leaves])
    return dataclasses.replace(models, **placed)


def place_trainings(
    trainings: Mapping[Player, PlayerTraining], place: Placement
) -> dict[Player, PlayerTraining]:
    """Returns trainings whose rollouts run elsewhere: their models and frozen bases are there."""
    (models, *_) = (place_pair(t.setup.models, place) for t in [*trainings.values()][:1])
    changes: dict[Player, Any] = {
        player: {'frozen': lora.split(getattr(models, player))[1]} for player in trainings
    }
    return {
        player: t._replace(setup=t.setup._replace(models=models), **changes[player])
        for player, t in trainings.items()
    }
