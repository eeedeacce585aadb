"""Compiled plans: costs are counted from programs, and the plan compiles what the run runs."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from elenchus.model import lora, sharding
from elenchus.sampling.engine import calls, engine
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.train import objective, step
from elenchus.train import optimizer as optimizers
from elenchus.train.planning import (
    compiled,
    compiled_table,
    least_work,
    machines,
    memory_plan,
    program_cost,
    programs,
)
from tests.support import tiny_model
from tests.support.compilations import count_compilations

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, num_heads=8, num_kv_heads=8, vocab_size=64, max_length=32
)
ADAMW = optimizers.OptimizerSettings(
    'adamw', 1e-3, 1e-3, 'constant', 0.0, 0.0, 0.9, 0.999, 1.0
)  # fmt: skip
WHOLE = lora.LoraSettings(0, 1.0, ())
ADAPTED = lora.LoraSettings(2, 4.0, ('query', 'out', 'up', 'down'))
ENGINE = EngineSettings(8, 32, 4, (16,), (8,), (), ())


def training(settings=WHOLE, **changes):
    load = memory_plan.TrainingLoad(
        name='actor', optimizer=ADAMW, lora=settings, objective=objective.SFT,
        transform=step.IDENTITY, rows=8, length=16, num_microbatches=1, others=0,
    )  # fmt: skip
    return dataclasses.replace(load, **changes)


def plan_of(fit, *, mesh=(1, 8, 1), quantize='none'):
    return memory_plan.RunPlan(CONFIG, mesh, quantize, (fit,), None)


def cost_of(function, *arrays):
    text = jax.jit(function).lower(*arrays).compile().as_text()
    return program_cost.program_cost(text)


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, 'float32')


# Counting


@pytest.mark.parametrize('steps', [1, 3, 7])
def test_a_loop_counts_as_often_as_it_runs(steps):
    def function(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    cost = cost_of(function, zeros(64, 32), zeros(steps, 32, 32))
    assert cost.once.flops == steps * 2 * 64 * 32 * 32 and cost.step is None
    weights = steps * 32 * 32 * 4
    # The layers' weights are read once each, not the whole stack in every step.
    assert weights <= cost.once.memory_bytes < 8 * weights + 20 * steps * 64 * 32 * 4


def test_a_loop_of_unknown_length_counts_one_step_apart():
    def function(x, w):
        before = x @ w
        run = lambda c: (c[0] + 1, jnp.tanh(c[1] @ w))  # noqa: E731
        return jax.lax.while_loop(lambda c: c[1].sum() > c[0], run, (0, before))[1]

    cost = cost_of(function, zeros(64, 64), zeros(64, 64))
    assert cost.once.flops == cost.step.flops == 2 * 64**3
    assert cost.step.memory_bytes >= 3 * 64 * 64 * 4


def test_an_update_in_place_counts_what_it_writes():
    def function(cache, new, at):
        return jax.lax.dynamic_update_slice(cache, new, (at, 0))

    big, small = zeros(4096, 64), zeros(1, 64)
    jitted = jax.jit(function, donate_argnums=0).lower(big, small, np.int32(3))
    cost = program_cost.program_cost(jitted.compile().as_text()).once
    assert 0 < cost.memory_bytes < 4096 * 64 * 4 / 8


def test_collectives_count_what_a_device_receives():
    mesh = sharding.make_mesh((1, 8, 1))
    rows, whole = (NamedSharding(mesh, spec) for spec in (P('fsdp'), P()))
    x = jax.ShapeDtypeStruct((64, 32), 'float32', sharding=rows)
    gathered = jax.jit(lambda x: x + 1, out_shardings=whole)
    summed = jax.jit(lambda x: x.sum(axis=0), out_shardings=whole)
    size = 64 * 32 * 4
    kinds = {}
    for function in (gathered, summed):
        kinds |= program_cost.program_cost(function.lower(x).compile().as_text()).once.collectives
    assert kinds['all-gather'].received_bytes == size * 7 // 8
    assert str(kinds['all-gather'].largest) == 'f32[64,32]'
    assert kinds['all-reduce'].received_bytes == pytest.approx(2 * 32 * 4 * 7 / 8)


def test_collectives_of_one_channel_are_all_counted():
    """JAX gives all collectives of `shard_map` the same channel."""
    mesh = sharding.make_mesh((1, 8, 1))

    def gather(*arrays):
        return [jnp.sin(jax.lax.all_gather(x, 'fsdp', axis=0, tiled=True)) for x in arrays]

    specs = (P('fsdp'),) * 2
    gathered = jax.shard_map(gather, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    arrays = [
        jax.ShapeDtypeStruct((64, width), 'float32', sharding=NamedSharding(mesh, P('fsdp')))
        for width in (32, 16)
    ]
    text = jax.jit(gathered).lower(*arrays).compile().as_text()
    counted = program_cost.program_cost(text).once.collectives['all-gather']
    assert counted.received_bytes == 64 * (32 + 16) * 4 * 7 // 8


PIECES = """\
HloModule jit_f, is_scheduled=true

%start (p.0: bf16[8,128]) -> bf16[64,128] {
  %p.0 = bf16[8,128]{1,0} parameter(0)
  ROOT %all-gather.0 = bf16[64,128]{1,0} all-gather(%p.0), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}

%async_collective_fusion.1 (p.1: bf16[8,128]) -> bf16[64,128] {
  %p.1 = bf16[8,128]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[64,128]{1,0} all-gather(%p.1), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}

%end (p.2: bf16[8,128]) -> bf16[64,128] {
  %p.2 = bf16[8,128]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[64,128]{1,0} all-gather(%p.2), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}

ENTRY %main (a: bf16[8,128], b: bf16[8,128]) -> bf16[64,128] {
  %a = bf16[8,128]{1,0} parameter(0)
  %b = bf16[8,128]{1,0} parameter(1)
  %async-collective-start = bf16[64,128]{1,0} fusion(%a), kind=kCustom, calls=%start
  %fusion.1 = bf16[64,128]{1,0} fusion(%a), kind=kOutput, calls=%async_collective_fusion.1
  %async-collective-done = bf16[64,128]{1,0} fusion(%a), kind=kCustom, calls=%end
  ROOT %all-gather.3 = bf16[64,128]{1,0} all-gather(%b), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}
"""  # noqa: E501


def test_pieces_of_an_asynchronous_collective_count_once():
    counted = program_cost.program_cost(PIECES).once.collectives['all-gather']
    assert counted.count == 2
    assert counted.received_bytes == 2 * (64 - 8) * 128 * 2


PRODUCT = """\
HloModule jit_f, is_scheduled=true

%inner (p.0: f32[]) -> f32[] {
  ROOT %p.0 = f32[] parameter(0)
}

ENTRY %main (a: bf16[8,64,128], b: bf16[8,32,128]) -> f32[8,64,32] {
  %a = bf16[8,64,128]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %b = bf16[8,32,128]{2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %c = f32[8,64,32]{2,1,0} convolution(%a, %b), window={size=8 stride=7 lhs_dilate=8}, \
dim_labels=0bf_0oi->0bf
}
"""


def test_a_batched_product_as_tpus_spell_it_counts_its_products_only():
    cost = program_cost.program_cost(PRODUCT).once
    assert cost.flops == 2 * 8 * 64 * 32 * 128
    # The first operand lies on the chip, S(1): it costs no traffic of the main memory.
    assert cost.memory_bytes == 2 * 8 * 32 * 128 + 4 * 8 * 64 * 32


# Compiling


@pytest.mark.parametrize('settings', [WHOLE, ADAPTED], ids=['whole', 'adapters'])
def test_the_programs_of_a_training_are_compiled_for_its_real_arrays(settings):
    fit, machine = training(settings, logprobs=True), machines.topology('cpu')
    plan, compiler = plan_of(fit), compiled.Compiler()
    with compiled.mesh_of(machine, plan.mesh) as mesh:
        programs.call_training(plan, fit, compiler, mesh=mesh)
    by_name = {p.name.partition(': ')[2]: p for p in compiler.programs}
    assert list(by_name) == ['first state', 'train step', 'log-probabilities']
    first, update = by_name['first state'], by_name['train step']
    batch = 8 * 16 * 4 * 9 // 8  # nine fields, one row of eight a device
    _, _, frozen = memory_plan.state_bytes(plan, fit, mesh)
    # XLA drops fields of the batch that the loss does not read.
    state = first.outputs + frozen
    assert state < update.arguments <= state + batch
    assert update.cost.once.flops >= 0.9 * least_work.least_work(plan, machine, update.name).flops
    assert by_name['log-probabilities'].total < update.total


@pytest.mark.parametrize('quantize', ['none', 'int8'])
def test_warming_up_through_a_call_compiles_all_that_sampling_runs(quantize):
    """The plan compiles the calls of `warm_up`; so these must be all that `generate` makes."""
    model = tiny_model.make_model(CONFIG)
    names, sampler = [], engine.Engine(
        dataclasses.replace(ENGINE, quantize=quantize), stop_ids=(1,)
    )  # fmt: skip

    def call(name, function, /, *args, **kwargs):
        names.append(name)
        return calls.execute(name, function, *args, **kwargs)

    with jax.set_mesh(tiny_model.one_device()):
        sampler.warm_up(model, method=Greedy(()), call=call)
        with count_compilations() as compilations:
            sampler.generate(model, [Request(0, (3, 4), 5)], method=Greedy(()), seed=0)
    assert not compilations
    expected = ['slots', 'prefill 8 x 16', 'decode 8 x 32', 'read slots']
    assert [name for name in names if name not in ('quantize', 'decoding layout')] == expected


OUT_OF_MEMORY = (
    'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory '
    'required for HLO temporaries (59.95G) exceeds available HBM (15.75G). See https://x for more'
)


def test_a_program_that_the_compiler_refuses_is_an_error_with_its_size():
    plan = plan_of(training(), mesh=(1, 8, 1))
    machine = dataclasses.replace(machines.topology('v5e-8'), bytes=1000)
    program = compiled.refused_program('actor: train step', OUT_OF_MEMORY, (), seconds=1.0)
    assert program.temporaries == int(59.95 * 2**30) and program.refused.endswith('(15.75G).')
    lines = compiled_table.program_lines(program, plan, machine, phase=None)
    assert 'XLA refuses it' in list(lines)[-1]
    with pytest.raises(ValueError, match=r'train step needs 60\.0 GiB a device by the compiler'):
        compiled_table.check_compiled(
            plan,
            machine,
            [program],
            phases=memory_plan.phases(plan, machines.topology('v5e-8')),
        )


def test_a_program_that_cannot_be_printed_has_unknown_costs(monkeypatch):
    program = jax.jit(jnp.sin).lower(1.0).compile()

    def refuse(self):
        raise jax.errors.JaxRuntimeError('INTERNAL: RET_CHECK failure: async-update')

    monkeypatch.setattr(type(program), 'as_text', refuse)
    measured = compiled.measured('actor: train step', program, 1.0)
    assert measured.cost is None and measured.arguments
    plan, machine = plan_of(training()), machines.topology('v5e-8')
    *_, last = compiled_table.program_lines(measured, plan, machine, phase=None)
    assert 'unknown' in last


def test_results_that_lie_elsewhere_mean_a_second_program():
    mesh = sharding.make_mesh((1, 8, 1))
    place = lambda spec: {  # noqa: E731
        'x': jax.ShapeDtypeStruct((8, 4), 'float32', sharding=NamedSharding(mesh, spec))
    }
    assert compiled.returns_elsewhere((place(P('fsdp')), ()), (place(P()),))
    assert not compiled.returns_elsewhere((place(P('fsdp')), ()), (place(P('fsdp')),))


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
def test_a_decoding_step_is_compiled_for_a_tpu_that_is_not_here():
    plan = plan_of(training(), mesh=(8, 1, 1))
    plan = dataclasses.replace(
        plan, sampling=memory_plan.SamplingLoad(ENGINE, plan.trainings[0])
    )  # fmt: skip
    compiler = compiled.Compiler(
        selected=lambda name: not programs.is_large(name) or name.startswith('decode ')
    )
    with compiled.mesh_of(machines.topology('v5e-8'), plan.mesh) as mesh:
        model = programs.player(plan, plan.trainings[0], mesh=mesh, call=compiler)
        engine.Engine(ENGINE, stop_ids=(1,)).warm_up(model, method=Greedy(()), call=compiler)
    slots, decoding = compiler.programs[-2:]
    assert decoding.arguments > slots.outputs > 0 and decoding.aliased >= slots.outputs * 0.9
    # Rows are split over all devices and weights copied: a step needs no other device.
    assert decoding.cost.step.memory_bytes > 0 and not decoding.cost.step.collectives


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
@pytest.mark.parametrize(
    ('changes', 'mesh'),
    [
        ({'num_kv_heads': 2}, (1, 4, 2)),
        ({'windows': (128, 0), 'attention_soft_cap': 30.0}, (1, 8, 1)),
    ],
    ids=['llama', 'gemma'],
)  # fmt: skip
def test_auto_attention_is_the_splash_kernel_on_a_tpu(changes, mesh):
    """Grouped queries split over `tensor`; and two windows in one scan, with soft caps."""
    model = dataclasses.replace(
        tiny_model.CONFIG, num_heads=4, head_dim=128, embed_dim=64, vocab_size=64, mlp_dim=128,
        max_length=256, dtype='bfloat16', remat='full', attention='auto', **changes,
    )  # fmt: skip
    fit, compiler = training(length=256), compiled.Compiler()
    plan = dataclasses.replace(plan_of(fit, mesh=mesh), model=model)
    with compiled.mesh_of(machines.topology('v5e-8'), mesh) as devices:
        programs.call_training(plan, fit, compiler, mesh=devices)
    update = compiler.programs[-1]
    # Forward, recomputed, of queries, of keys; in each of two layers.
    assert update.cost.once.kernels >= 2 * 3 and not update.recompiles
