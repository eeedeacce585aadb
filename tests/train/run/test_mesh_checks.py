"""What a run checks of its mesh when it opens, and key/value heads that are fewer than shards."""

import dataclasses

import jax
import pytest

from elenchus.configs import lab
from elenchus.data.grading import verify
from elenchus.model import sharding
from elenchus.model.placement import ROWS, Placement
from elenchus.train.run import session
from tests.support import tiny_model


def opened(folder, mesh, **model):
    config = lab.get_config('smoke')
    config.mesh = mesh
    config.model.update(model)
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
