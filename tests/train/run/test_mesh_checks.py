"""What a run checks of its mesh when it opens, and key/value heads that are fewer than shards."""

import dataclasses

import jax
import pytest

from elenchus.configs import lab
from elenchus.data.grading import verify
from elenchus.model import memory_estimate, sharding
from elenchus.model.placement import ROWS, Placement
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import dry_run
from elenchus.train.run import checks, session
from tests.support import tiny_model


def opened(folder, mesh, **model):
    config = lab.get_config('smoke')
    config.mesh = mesh
    config.model.update(model)
    config.reinforce.samples_per_row = 2  # four rows
    config.data.data_dir = str(folder / 'data')
    with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
        return session.open_run(config, folder / 'run', verifier=verifier)


@pytest.mark.parametrize(
    ('mesh', 'model', 'words'),
    [
        ((8, 1, 1), {}, r'reinforce\.num_problems \* num_samples .* = 4 does not divide'),
        ((1, 1, 8), {}, r'model\.num_heads=2 does not divide over tensor=8; nearest tensor: 2'),
        ((1, 8, 1), {'embed_dim': 36}, r'model\.embed_dim=36 .* fsdp=8; nearest fsdp: 6'),
        ((2, 2, 2), {'mlp_dim': 63}, r'model\.mlp_dim=63 .* tensor=2; nearest tensor: 1'),
        ((4, 1, 1), {}, r'mesh=\(4, 1, 1\) must cover the 8 devices exactly'),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_when_the_run_opens(tmp_path, mesh, model, words):
    with pytest.raises(ValueError, match=words) as error:
        opened(tmp_path, mesh, **model)
    assert '\n' not in str(error.value) and not (tmp_path / 'run').exists()


DIVIDED = {
    'train.length': 64,
    'reinforce.length': 64,
    'reinforce.critic_length': 64,
    'reinforce.samples_per_row': 1,
    'sampling.score.lengths': (64,),
    'model.embed_dim': 32,
}
"""Sizes that divide over a context of 4."""


def settings_with(**changes):
    config = lab.get_config('smoke')
    config.update_from_flattened_dict(DIVIDED | changes)
    return build.build(RunSettings, config)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'train.length': 66}, r'train\.length=66 .* context=4; nearest: 64'),
        ({'reinforce.length': 67}, r'reinforce\.length=67 .* context=4; nearest: 68'),
        ({'reinforce.critic_length': 1}, r'reinforce\.critic_length=1 .* nearest: 4'),
        ({'sampling.score.lengths': (64, 70)}, r'sampling\.score\.lengths\[1\]=70 .* nearest: 72'),
        (
            {'reinforce.samples_per_row': 2},
            r'reinforce\.samples_per_row=2; nearest: 1',
        ),
        ({'model.embed_dim': 34}, r'model\.embed_dim=34 .* fsdp \* context = 4; nearest multiple'),
    ],
    ids=str,
)
def test_what_does_not_divide_over_a_context_is_refused(changes, words):
    mesh = memory_estimate.abstract_mesh((1, 1, 1, 4))
    checks.check_context(settings_with(), mesh)
    checks.check_context(settings_with(**changes), memory_estimate.abstract_mesh((4, 1, 1)))
    with pytest.raises(ValueError, match=words) as error:
        checks.check_context(settings_with(**changes), mesh)
    assert '\n' not in str(error.value)


def test_the_context_of_a_config_is_the_fourth_axis_of_its_plan():
    plan = dry_run.plan_of(settings_with(context=4, mesh=(1, -1, 2)))
    assert sharding.fill_mesh(plan.mesh, 16) == (1, 2, 2, 4)
    assert dry_run.plan_of(settings_with(mesh=(1, -1, 2))).mesh == (1, -1, 2)


@pytest.mark.slow
@pytest.mark.parametrize('num_kv_heads', [1, 2])
def test_fewer_key_value_heads_than_tensor_shards_are_whole_on_each_device(num_kv_heads):
    config = dataclasses.replace(
        tiny_model.EVERYTHING, num_heads=8, num_kv_heads=num_kv_heads, logits_chunk=6
    )
    model, batch = tiny_model.make_model(config), tiny_model.random_batch(0, rows=8)

    def value_and_grads(model, tokens, positions, segments):
        def total(model):
            hidden, _ = model(tokens, positions, segments=segments)
            return (model.logits(hidden) ** 2).mean()

        return jax.value_and_grad(total)(model)

    results = []
    for mesh in (tiny_model.one_device(), sharding.make_mesh((1, 2, 4))):
        here = Placement(mesh)
        rows = dict.fromkeys(('tokens', 'positions', 'segments'), ROWS)
        program = here.jit(value_and_grads, axes=rows)
        arrays = (here.place(getattr(batch, name), ROWS) for name in rows)
        results.append(program(here.place(model), *arrays))
    tiny_model.assert_trees_close(results[1], results[0], relative=4e-6)
    key = results[1][1].blocks.attention.key[...]
    assert key.sharding.shard_shape(key.shape)[2] == num_kv_heads
