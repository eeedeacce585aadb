"""A tiny real run of every training stage on meshes: where arrays lie, how often it compiles."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.model import lora, placement, quantization, sharding
from elenchus.sampling.model_pair import ModelPair
from elenchus.train import sft as sft_lib
from elenchus.train.rl import trainer
from elenchus.train.sft import FitSettings
from elenchus.train.stages.sft import sft
from tests.support import slow_cases, tiny_model
from tests.train.rl import test_trainer as tiny_rl

MESHES = [(1, 8, 1), (2, 2, 2), (8, 1, 1), (1, 2, 4)]
SUPERVISED = {((1, 8, 1), 'muon', 'none')}
REINFORCED = {((2, 2, 2), 'whole', 'actor')}
"""The fast tests: supervised on adapters, GRPO of one player on all weights; the slow ones are
all combinations. Single steps on meshes are those of test_placed_training.py.
"""
CONFIG = dataclasses.replace(tiny_rl.CONFIG, num_heads=8, num_kv_heads=4)
ADAPTERS = lora.LoraSettings(2, 4.0, ('query', 'out', 'up', 'down'))


class StepRecorder:
    """Wraps `make_train_step`: checks the arrays of each step and keeps the compiled steps."""

    def __init__(self, monkeypatch):
        self.steps, self.num_calls = [], 0
        for module in (sft_lib, trainer):
            monkeypatch.setattr(module, 'make_train_step', self.wrap(module.make_train_step))

    def wrap(self, make_train_step):
        def make(**options):
            step = make_train_step(**options)
            self.steps.append(step)

            def call(state, batch, frozen):
                check(state, batch, frozen)
                state, metrics = step(state, batch, frozen)
                check(state, batch, frozen)
                self.num_calls += 1
                return state, metrics

            return call

        return make


def check(state, batch, frozen):
    """Asserts that every leaf lies where its placement says, and that each weight is split."""
    here = placement.current()
    trees = ((state, None), (batch, placement.ROWS), (frozen, None))
    for tree, axes in trees:
        wanted = jax.tree.leaves(here.shardings(tree, axes))
        for (path, x), place in zip(jax.tree_util.tree_leaves_with_path(tree), wanted, strict=True):
            assert x.sharding == place, path
            assert x.addressable_shards[0].data.shape == place.shard_shape(x.shape), path
    ways = here.mesh.shape['fsdp'] * here.mesh.shape['tensor']
    for tree in (state.model, *moments_of(state)):
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            if x.shape[1:] == (CONFIG.embed_dim, CONFIG.mlp_dim):  # not a masked or low-rank one
                assert x.addressable_shards[0].data.size * ways == x.size, path


def moments_of(state):
    is_moment = lambda x: isinstance(x, type(state.model))  # noqa: E731
    return filter(is_moment, jax.tree.leaves(state.opt_state, is_leaf=is_moment))


def make_model(kind, seed):
    model = placement.current().place(tiny_model.make_model(CONFIG, seed))
    if kind == 'whole':
        return model
    adaptation = lora.Adaptation(ADAPTERS, '/base', 0, kind)
    adapters = lora.init_adapters(CONFIG, adaptation, jax.random.key(seed))
    return lora.attach(quantization.quantize(model, kind), adapters)


@pytest.fixture
def mesh(shape):
    with jax.set_mesh(sharding.make_mesh(shape)) as mesh:
        yield mesh


@pytest.mark.slow
@slow_cases.combinations(
    SUPERVISED, shape=MESHES, name=['adamw', 'muon'], kind=['whole', 'none', 'int8']
)
def test_a_supervised_stage_keeps_every_array_in_place_and_compiles_once(
    mesh, monkeypatch, kind, name
):
    recorder = StepRecorder(monkeypatch)
    optimizer = dataclasses.replace(tiny_rl.settings_of().optimizer, name=name)
    model, _ = sft(
        make_model(kind, 0),
        tiny_model.random_examples(0, [20] * 40),
        settings=FitSettings(num_steps=3, optimizer=optimizer, reweigh='none', read='same'),
        loop=dataclasses.replace(tiny_rl.LOOP, rows=16, length=24, num_microbatches=2),
        seed=0,
    )
    assert recorder.num_calls == 3
    assert [len(step.programs) for step in recorder.steps] == [1]
    here = placement.current()
    wanted = jax.tree.leaves(here.shardings(model))
    assert [x.sharding for x in jax.tree.leaves(model)] == wanted
    assert all(np.isfinite(x.astype('float32')).all() for x in jax.tree.leaves(model))


@slow_cases.combinations(
    REINFORCED, shape=MESHES, kind=['whole', 'none'], players=['actor', 'actor critic']
)
def test_reinforcement_keeps_every_array_in_place(mesh, monkeypatch, tmp_path, kind, players):
    recorder = StepRecorder(monkeypatch)
    models = tiny_rl.tiny_models()
    actor, critic = (make_model(kind, seed) for seed in (1, 2))
    pair = ModelPair(models.sampler, actor, critic, models.judge, models.grammar)
    with tiny_rl.writers.Writer(tmp_path, tensorboard=tmp_path / 'board') as writer:
        trained, _ = trainer.reinforce(
            pair,
            tiny_rl.PROBLEMS,
            trained=tuple(players.split()),
            settings=tiny_rl.settings_of(num_steps=2, drop_zero_advantage_rows=False),
            loop=tiny_rl.LOOP,
            scorer=tiny_rl.SCORER,
            method=tiny_rl.METHOD,
            folder=tmp_path,
            writer=writer,
            seed=3,
        )
    assert recorder.num_calls == 2 * len(trained) == 2 * len(players.split())
    assert {len(step.programs) for step in recorder.steps} == {1}
    for model in trained.values():
        wanted = jax.tree.leaves(placement.current().shardings(model))
        assert [x.sharding for x in jax.tree.leaves(model)] == wanted
