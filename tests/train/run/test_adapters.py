"""Adapters in a work directory: saved small, on one base, refused on another."""

import contextlib
import json
import types

import jax
import numpy as np
import pytest
from etils import epath

from elenchus.configs import lab
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import block_weights, lora, sharding, transformer
from elenchus.model.placement import Placement
from elenchus.scripts import merge
from elenchus.train.checkpoints import model_store, saved_models
from elenchus.train.config import build, checks, run_settings
from elenchus.train.run import runner, session
from elenchus.train.run.directory import RunDirectory
from elenchus.train.run.samplers import Samplers


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
    """A run on one device that can load and save its models, without data and checks."""
    settings, tokenizer = smoke(**changes), tokenizers.lab_tokenizer()
    mesh = jax.make_mesh(
        (1, 1, 1), sharding.AXES, devices=jax.devices()[:1],
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )  # fmt: skip
    store = model_store.ModelStore(
        settings.model,
        mesh,
        tokenizer_fingerprint=tokenizer.fingerprint,
        quantize=settings.base.quantize,
    )
    directory = RunDirectory(epath.Path(workdir), '{}', settings.stages, 1)
    return session.Run(settings, directory, None, Samplers(settings.sampling, None), store, mesh)


def save(run, stage, model):
    """Saves a model as that of a stage."""
    run.store.save(run.directory.stage(stage).path / 'model', model)


@pytest.fixture
def run(tmp_path):
    """A run whose base and two adapted players are saved."""
    one = opened(tmp_path, **ADAPTED)
    with jax.set_mesh(one.mesh):
        save(one, 'base', transformer.init_model(one.settings.model, jax.random.key(0)))
        base, settings = one.directory.model_folder('base'), one.settings.actor.lora
        for seed, stage in enumerate(('actor', 'critic')):
            trained, frozen = lora.split(one.store.load_to_train(base, settings, seed=seed))
            trained = jax.tree.map(lambda x: x + 0.1, trained)
            save(one, stage, lora.attach(frozen, trained))
        yield one


def buffers(tree):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


@pytest.mark.slow
def test_loaded_players_share_one_base_in_memory(run):
    again = opened(run.directory.path, **ADAPTED)
    actor, critic = (again.load_model(stage) for stage in ('actor', 'critic'))
    (ours, base), (theirs, same) = lora.split(actor), lora.split(critic)
    assert buffers(base) == buffers(same) and not buffers(ours) & buffers(theirs)
    assert buffers(again.load_model('base')) == buffers(base)
    assert {x.dtype for x in jax.tree.leaves(ours)} == {np.dtype('float32')}
    assert all(np.all(x[...] == np.float32(0.1)) for x in ours.b.values())
    trained_further = again.store.load_to_train(
        again.directory.model_folder('actor'), again.settings.reinforce.lora, seed=0
    )
    np.testing.assert_array_equal(
        lora.split(trained_further)[0].a['query'][...], ours.a['query'][...]
    )


def test_a_folder_has_adapters_alone_and_names_their_base(run):
    folder = run.directory.stage('actor').path / 'model'
    described = json.loads((folder / saved_models.DESCRIPTION).read_text())
    assert described['base']['folder'] == '../../00-base/model'
    assert described['lora'] == {'rank': 2, 'alpha': 32.0, 'targets': ['query', 'down']}
    shapes = [x.shape for x in jax.tree.leaves(lora.split(run.load_model('actor'))[0])]
    assert shapes == [(1, 24, 2), (1, 16, 2), (1, 2, 16), (1, 2, 2, 16)]
    with pytest.raises(ValueError, match='holds adapters, not a whole model'):
        saved_models.load_model(
            folder, run.settings.model, mesh=run.mesh,
            tokenizer_fingerprint=tokenizers.lab_tokenizer().fingerprint,
        )  # fmt: skip


def test_a_run_may_be_moved(run, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'run'
    run.directory.path.rename(moved)
    assert lora.adaptation_of(opened(moved, **ADAPTED).load_model('actor')).settings.rank == 2


def test_another_base_in_its_place_is_an_error(run):
    other = transformer.init_model(run.settings.model, jax.random.key(1))
    save(run, 'base', other)
    with pytest.raises(
        ValueError, match=r'belongs to a base .*00-base.* with fingerprint .* now has'
    ):
        opened(run.directory.path, **ADAPTED).load_model('actor')


def test_a_quantized_base_is_read_and_stored_once(run):
    again = opened(run.directory.path, **ADAPTED, **{'base.quantize': 'int8'})
    base = again.directory.model_folder('base')
    fresh = again.store.load_to_train(base, again.settings.actor.lora, seed=0)
    query = fresh.blocks.attention.query[...]
    assert query.base.qvalue.dtype == 'int8'
    assert lora.adaptation_of(fresh).quantize == 'int8'
    other = again.store.load_to_train(base, again.settings.critic.lora, seed=1)
    assert buffers(lora.split(fresh)[1]) == buffers(lora.split(other)[1])


def test_without_rank_all_weights_are_trained(run):
    folder, settings = run.directory.model_folder, smoke().actor.lora
    whole = run.store.load_to_train(folder('base'), settings, seed=0)
    assert lora.split(whole) == (whole, None)
    with pytest.raises(ValueError, match=r'actor.* holds adapters of .*rank=2.*merge'):
        run.store.load_to_train(folder('actor'), settings, seed=0)


def test_merging_exports_a_whole_model(run, tmp_path, monkeypatch):
    values = types.SimpleNamespace(stage='actor', out=str(tmp_path / 'out'))
    monkeypatch.setattr(merge, 'flags', types.SimpleNamespace(FLAGS=values))
    monkeypatch.setattr(runner, 'run_of_flags', lambda: contextlib.nullcontext(run))
    merge.main([])
    folder = tmp_path / 'out' / 'model'
    assert saved_models.saved_adaptation(folder) is None
    whole, adapted = run.store.load(folder), lora.merge(run.load_model('actor'))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(adapted), strict=True):
        np.testing.assert_array_equal(one, other)
    base = run.load_model('base').blocks.mlp.down[...]
    assert np.abs(whole.blocks.mlp.down[...] - base).max() > 0


def test_a_fingerprint_depends_on_the_values_and_not_on_their_devices(run):
    model = run.load_model('base')
    fingerprint = saved_models.fingerprint(model)
    mesh = sharding.make_mesh((2, 2, 2))
    config = smoke(**{'model.num_kv_heads': 2, 'model.num_heads': 2}).model
    two = transformer.init_model(config, jax.random.key(0))
    alone = saved_models.fingerprint(two)
    with jax.set_mesh(mesh):
        assert saved_models.fingerprint(Placement(mesh).place(two)) == alone
    swapped = block_weights.replace_weights(model, lambda _, p: p[...][:, ::-1], targets=('gate',))
    assert saved_models.fingerprint(swapped) != fingerprint


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
