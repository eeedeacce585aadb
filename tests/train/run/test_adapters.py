"""Adapters in a work directory: saved small, on one base, refused on another."""

import json

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import block_weights, lora, sharding, transformer
from elenchus.scripts import merge
from elenchus.train.checkpoints import model_store, saved_models
from elenchus.train.config import build, checks, run_settings
from elenchus.train.run import workspace


def smoke(**changes):
    config = lab.get_config('smoke')
    flat = {'model.num_layers': 1, 'model.embed_dim': 16, 'model.mlp_dim': 24, **changes}
    config.update_from_flattened_dict(flat)
    return build.build(run_settings.RunSettings, config)


ADAPTED = {
    f'{stage}.lora.{name}': value
    for stage in ('actor', 'critic', 'improve', 'reinforce')
    for name, value in (('rank', 2), ('targets', ('query', 'down')))
}


def opened(workdir, **changes):
    """A workspace on one device that has its models alone, without data and its checks."""
    made = object.__new__(workspace.Workspace)
    made.settings, made.workdir = smoke(**changes), workdir
    made.mesh = jax.make_mesh(
        (1, 1, 1), sharding.AXES, devices=jax.devices()[:1],
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )  # fmt: skip
    made.tokenizer = tokenizers.lab_tokenizer()
    made.models = model_store.ModelStore(
        made.settings.model,
        made.mesh,
        tokenizer_fingerprint=made.tokenizer.fingerprint,
        quantize=made.settings.base.quantize,
    )
    return made


@pytest.fixture
def run(tmp_path):
    """A run whose base and two adapted players are saved."""
    one = opened(tmp_path, **ADAPTED)
    with jax.set_mesh(one.mesh):
        model = transformer.init_model(one.settings.model, jax.random.key(0))
        one.save_model(one.stage_folder('base'), model)
        for seed, stage in enumerate(('actor', 'critic')):
            player = one.models.load_to_train(
                one.model_folder('base'), one.settings.actor.lora, seed=seed
            )
            trained, frozen = lora.split(player)
            trained = jax.tree.map(lambda x: x + 0.1, trained)
            one.save_model(one.stage_folder(stage), lora.attach(frozen, trained))
        yield one


def buffers(tree):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


def test_players_come_back_on_one_base_held_once(run):
    again = opened(run.workdir, **ADAPTED)
    actor, critic = (again.load_model(stage) for stage in ('actor', 'critic'))
    (ours, base), (theirs, same) = lora.split(actor), lora.split(critic)
    assert buffers(base) == buffers(same) and not buffers(ours) & buffers(theirs)
    assert buffers(again.load_model('base')) == buffers(base)
    assert {x.dtype for x in jax.tree.leaves(ours)} == {np.dtype('float32')}
    assert all(np.all(x[...] == np.float32(0.1)) for x in ours.b.values())
    trained_on = again.load_to_train(
        again.model_folder('actor'), again.settings.reinforce.lora, stage='reinforce'
    )
    np.testing.assert_array_equal(lora.split(trained_on)[0].a['query'][...], ours.a['query'][...])


def test_a_folder_holds_adapters_alone_and_says_of_which_base(run):
    folder = run.stage_folder('actor') / 'model'
    described = json.loads((folder / saved_models.DESCRIPTION).read_text())
    assert described['base']['folder'] == '../../00-base/model'
    assert described['lora'] == {'rank': 2, 'alpha': 32.0, 'targets': ['query', 'down']}
    shapes = [x.shape for x in jax.tree.leaves(lora.split(run.load_model('actor'))[0])]
    assert shapes == [(1, 24, 2), (1, 16, 2), (1, 2, 16), (1, 2, 2, 16)]
    with pytest.raises(ValueError, match='holds adapters, not a whole model'):
        saved_models.load_model(
            folder, run.settings.model, mesh=run.mesh,
            tokenizer_fingerprint=run.tokenizer.fingerprint,
        )  # fmt: skip


def test_a_run_may_be_moved(run, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'run'
    run.workdir.rename(moved)
    assert lora.adaptation_of(opened(moved, **ADAPTED).load_model('actor')).settings.rank == 2


def test_another_base_in_its_place_is_an_error(run):
    other = transformer.init_model(run.settings.model, jax.random.key(1))
    run.save_model(run.stage_folder('base'), other)
    with pytest.raises(
        ValueError, match=r'belongs to a base .*00-base.* with fingerprint .* now has'
    ):
        opened(run.workdir, **ADAPTED).load_model('actor')


def test_a_quantized_base_is_read_and_held_once(run):
    again = opened(run.workdir, **ADAPTED, **{'base.quantize': 'int8'})
    fresh = again.load_to_train(
        again.model_folder('base'), again.settings.actor.lora, stage='actor'
    )
    query = fresh.blocks.attention.query[...]
    assert query.base.qvalue.dtype == 'int8'
    assert lora.adaptation_of(fresh).quantize == 'int8'
    other = again.load_to_train(
        again.model_folder('base'), again.settings.critic.lora, stage='critic'
    )
    assert buffers(lora.split(fresh)[1]) == buffers(lora.split(other)[1])


def test_without_rank_all_weights_are_trained(run):
    whole = run.load_to_train(run.model_folder('base'), smoke().actor.lora, stage='actor')
    assert lora.split(whole) == (whole, None)
    with pytest.raises(ValueError, match=r'actor.* holds adapters of .*rank=2.*merge'):
        run.load_to_train(run.model_folder('actor'), smoke().actor.lora, stage='actor')


def test_merging_exports_a_whole_model(run, tmp_path):
    folder = merge.merge(run, 'actor', tmp_path / 'out')
    assert saved_models.saved_adaptation(folder) is None
    whole, adapted = run.load_checkpoint(folder), lora.merge(run.load_model('actor'))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(adapted), strict=True):
        np.testing.assert_array_equal(one, other)
    base = run.load_model('base').blocks.mlp.down[...]
    assert np.abs(whole.blocks.mlp.down[...] - base).max() > 0


def test_a_fingerprint_is_of_the_values_and_not_of_where_they_lie(run):
    model = run.load_model('base')
    told = saved_models.fingerprint(model)
    mesh = sharding.make_mesh((2, 2, 2))
    config = smoke(**{'model.num_kv_heads': 2, 'model.num_heads': 2}).model
    two = transformer.init_model(config, jax.random.key(0))
    alone = saved_models.fingerprint(two)
    with jax.set_mesh(mesh):
        assert saved_models.fingerprint(saved_models.place(two, mesh)) == alone
    swapped = block_weights.replace_weights(model, lambda _, p: p[...][:, ::-1], targets=('gate',))
    assert saved_models.fingerprint(swapped) != told


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'reinforce.lora.rank': 4}, r'reinforce\.lora=.*rank=4.*actor\.lora=.*rank=2'),
        ({'base.quantize': 'int8', 'critic.lora.rank': 0}, r"base\.quantize='int8' .*'critic'"),
    ],
)
def test_adapters_that_contradict_each_other_are_refused_by_name(changes, message):
    checks.check_lora(smoke(**ADAPTED))
    with pytest.raises(ValueError, match=message):
        checks.check_lora(smoke(**(ADAPTED | changes)))
