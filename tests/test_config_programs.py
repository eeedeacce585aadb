"""Every shipped config: its model has shardings, its steps and sampling trace, without an array."""

import dataclasses
import functools

import jax
import pytest

from elenchus.data.records import Batch
from elenchus.model import config as model_config
from elenchus.model import memory_estimate, sharding
from elenchus.sampling.engine import decode, sampling_methods
from elenchus.train import loop, objective, optimizer, state, step
from elenchus.train.checkpoints import saved_models
from elenchus.train.planning import dry_run, machines, memory_plan
from tests.support import slow_cases, tiny_model
from tests.support.shipped_configs import ALL, RELEASED, Naming, settings_of

MESHES = {
    'one device': (1, 1, 1),
    'data': (8, 1, 1),
    'fsdp': (1, 8, 1),
    'data and fsdp': (2, 4, 1),
}


LENGTH = 64  # a longer row changes a number in the program, which is not run
BIG = 'gsm8k:default'
OURS = [name for name in ALL if name not in RELEASED]


def mesh_of(shape):
    """A mesh on the first devices; the shipped meshes take all there are."""
    size = shape[0] * shape[1] * shape[2]
    axis_types = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh(shape, sharding.AXES, axis_types=axis_types, devices=jax.devices()[:size])


def abstract_batch(rows, length, mesh):
    place = tiny_model.batch_sharding(mesh)
    floats = ('loss_mask', 'weights', 'old_logprobs', 'ref_logprobs')
    return Batch(
        **{
            field: jax.ShapeDtypeStruct(
                (rows, length), 'float32' if field in floats else 'int32', sharding=place
            )
            for field in Batch._fields
        }
    )


@slow_cases.combinations({('one device',), ('data and fsdp',)}, mesh=list(MESHES))
def test_its_model_has_shardings(mesh):
    for name in ALL:
        with Naming(name):
            check_shardings(settings_of(name).model, MESHES[mesh])


@functools.cache  # many configs have the same model
def check_shardings(config, shape):
    mesh = mesh_of(shape)
    leaves = jax.tree.leaves(saved_models.abstract_model(config, mesh))
    assert sum(leaf.size for leaf in leaves) == model_config.num_parameters(config)
    assert all(leaf.sharding.mesh == mesh for leaf in leaves)


@pytest.mark.parametrize('shape', [(1, 8, 1), (1, 4, 2), (1, 2, 4)])
def test_the_big_model_of_a_hundred_million_parameters_is_stored_in_shares(shape):
    s, mesh = settings_of(BIG), mesh_of(shape)
    assert 9e7 < model_config.num_parameters(s.model) < 1.2e8
    leaves = jax.tree.leaves(saved_models.abstract_model(s.model, mesh))
    stored = sum(
        leaf.dtype.itemsize * functools.reduce(int.__mul__, leaf.sharding.shard_shape(leaf.shape))
        for leaf in leaves
    )
    assert stored < 1.02 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 8


@functools.cache  # many configs have the same programs
def trace_step(
    model, num_microbatches, nonfinite, *, optimizer_settings, objective, method, rows, length
):
    """Shapes of the state before and after a train step on one device, and of its metrics."""
    mesh = mesh_of((1, 1, 1))
    # Configs that differ only in the number of steps share a trace.
    optimizer_of_step = optimizer.make_optimizer(optimizer_settings, num_steps=100)
    with jax.set_mesh(mesh):
        abstract = saved_models.abstract_model(model, mesh)
        before = jax.eval_shape(lambda m: state.init_state(m, optimizer_of_step), abstract)
        train_step = step.make_train_step(
            objective=objective,
            optimizer=optimizer_of_step,
            transform=method.transform if method else step.IDENTITY,
            num_microbatches=num_microbatches,
            skip_nonfinite=nonfinite == 'skip',
        )
        after, metrics = jax.eval_shape(train_step, before, abstract_batch(rows, length, mesh))
    return shapes(before), shapes(after), metrics


def shallow(model):
    """The model with few layers: more only repeat their part of the program."""
    return dataclasses.replace(model, num_layers=min(model.num_layers, max(2, len(model.windows))))


def same_program(settings):
    """An optimizer with rates that many configs share: in the program they are only numbers."""
    return dataclasses.replace(settings, learning_rate=0.001, adam_learning_rate=0.001)


def shapes(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_its_supervised_step_traces():
    for name in OURS:
        with Naming(name):
            s = settings_of(name)
            loop.check_rows(s.train, mesh_of((1, 1, 1)))
            optimizer.make_optimizer(s.base.fit.optimizer, num_steps=s.base.fit.num_steps)
            before, after, metrics = trace_step(
                shallow(s.model),
                s.train.num_microbatches,
                s.train.nonfinite,
                optimizer_settings=same_program(s.base.fit.optimizer),
                objective=objective.SFT,
                method=None,
                rows=s.train.rows,
                length=min(s.train.length, LENGTH),
            )
            assert after == before
            assert metrics['loss/total'].shape == ()


@pytest.mark.slow
def test_its_reinforcement_step_traces():
    """Of one player: the programs of the two differ in the length alone."""
    for name in OURS:
        with Naming(name):
            s = settings_of(name)
            r = s.reinforce
            optimizer.make_optimizer(r.optimizer, num_steps=r.num_steps)
            before, after, _ = trace_step(
                shallow(s.model),
                s.train.num_microbatches,
                s.train.nonfinite,
                optimizer_settings=same_program(r.optimizer),
                objective=r.objective,
                method=method_of(s),
                rows=r.rows // r.num_minibatches,
                length=min(r.row_length('actor'), LENGTH),
            )
            assert after == before


@pytest.mark.parametrize('name', RELEASED)
def test_a_released_model_has_its_published_size(name):
    s = settings_of(name)
    assert model_config.num_parameters(s.model) == RELEASED[name]
    run = dry_run.plan_of(s)
    untrained = (
        {'critique', 'evaluate'} if s.base.fit.num_steps else {'base', 'critique', 'evaluate'}
    )
    assert {t.name for t in run.trainings} == set(s.stages) - untrained
    assert all(bool(t.lora.rank) == ('lora' in name) for t in run.trainings)
    machine = machines.topology('v5e-128')
    run = dataclasses.replace(run, mesh=sharding.fill_mesh(run.mesh, machine.num_chips))
    assert memory_plan.phases(run, machine).keys() > {'actor', 'prefill', 'decode'}


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'released.llama3_8b_mathcritique:default',
        'released.qwen2p5_math_1p5b_gsm8k:default',
        'released.qwen3_0p6b_gsm8k:default',
        'released.gemma3_1b_lora:nf4',
    ],
)
def test_all_programs_of_a_released_model_trace(name):
    """Every training step and a chunk of decoding, on a mesh of eight chips."""
    run = dataclasses.replace(dry_run.plan_of(settings_of(name)), mesh=(1, 8, 1))
    with jax.sharding.use_abstract_mesh(memory_estimate.abstract_mesh(run.mesh)):
        dry_run.trace_programs(settings_of(name), run)


def method_of(s):
    sampling = s.sampling
    return sampling_methods.TemperatureSampling(
        sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, banned=(0,)
    )


@functools.cache
def trace_decoding(model, method, engine):
    """Shapes of the slots before and after a chunk of decoding on one device, and of the flags."""
    mesh = mesh_of((1, 1, 1))
    with jax.set_mesh(mesh):
        abstract = saved_models.abstract_model(model, mesh)
        slots = jax.eval_shape(
            lambda: decode.init_state(model, batch=engine.num_slots, length=engine.max_length)
        )
        decode_chunk = functools.partial(
            decode.decode_chunk,
            method=method,
            seed=0,
            num_steps=engine.chunk_steps,
            stop_ids=(1,),
            length=engine.max_length,
        )
        after, flags = jax.eval_shape(
            lambda model, slots: decode_chunk(model, slots, None), abstract, slots
        )
    return shapes(slots), shapes(after), flags


def test_its_sampling_traces():
    for name in OURS:
        with Naming(name):
            s = settings_of(name)
            engine = s.sampling.engine
            before, after, flags = trace_decoding(shallow(s.model), method_of(s), engine)
            assert after == before
            assert flags.shape == (2, engine.num_slots)
