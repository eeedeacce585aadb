"""Memory plans: exact counts equal what JAX allocates; a plan that fits is found."""

import dataclasses

import jax
import numpy as np
import pytest
import qwix

from elenchus.model import kv_cache as cache_lib
from elenchus.model import lora, memory_estimate, placement, projection, quantization, sharding
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.train import objective, step
from elenchus.train import optimizer as optimizers
from elenchus.train.planning import dry_run, machines, memory_plan
from elenchus.train.state import init_state
from tests.support import tiny_model

CONFIG = tiny_model.EVERYTHING
ADAMW = optimizers.OptimizerSettings(
    'adamw', 1e-3, 1e-3, 'constant', 0.0, 0.0, 0.9, 0.999, 1.0
)  # fmt: skip
WHOLE = lora.LoraSettings(0, 1.0, ())
ADAPTED = lora.LoraSettings(2, 4.0, ('query', 'out', 'up', 'down'))
ENGINE = EngineSettings(16, 64, 8, (32,), (8,), (), (), 0, 0)
LLAMA = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=128256, num_layers=32, embed_dim=4096, mlp_dim=14336,
    num_heads=32, num_kv_heads=8, head_dim=128, max_length=4096, rope_theta=5e5, norm_epsilon=1e-5,
    qkv_bias=False, qk_norm=False, tie_embeddings=False, activation='silu', dtype='bfloat16',
    param_dtype='float32', remat='full', scan_layers=True, logits_chunk=128,
)  # fmt: skip


def training(settings=WHOLE, *, rows=16, length=32, optimizer=ADAMW, **changes):
    return memory_plan.TrainingLoad(
        name='actor', optimizer=optimizer, lora=settings, objective=objective.SFT,
        transform=step.IDENTITY, rows=rows, length=length,
        **{'num_microbatches': 1, 'others': 0, **changes},
    )  # fmt: skip


def plan_of(*trainings, model=CONFIG, mesh=(2, 2, 2), quantize='none', engine=ENGINE):
    sampling = memory_plan.SamplingLoad(engine, trainings[0])
    return memory_plan.RunPlan(model, mesh, quantize, trainings, sampling)


def bytes_on_first_device(tree):
    """Bytes of a tree of arrays that the first device stores."""
    first = jax.devices()[0]
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == first
    )


@pytest.mark.parametrize('shape', [(2, 2, 2), (1, 8, 1)], ids=str)
@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_weights_and_optimizer_state_are_counted_as_jax_allocates_them(shape, name):
    mesh, optimizer = sharding.make_mesh(shape), dataclasses.replace(ADAMW, name=name)
    config = dataclasses.replace(CONFIG, num_heads=8, num_kv_heads=8, vocab_size=64)
    for settings, kind in ((WHOLE, 'none'), (ADAPTED, 'int8')):
        shapes, frozen = memory_plan.abstract_state(
            config, settings, optimizer=optimizer, quantize=kind
        )
        real = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (shapes, frozen))
        placed = [
            jax.device_put(x, sharding.shardings(x, mesh)) for x in real if x is not None
        ]  # fmt: skip
        trained_bytes, optimizer_bytes, base_bytes = memory_plan.state_bytes(
            plan_of(training(settings), model=config, mesh=shape, quantize=kind),
            training(settings, optimizer=optimizer),
            memory_estimate.abstract_mesh(shape),
        )
        assert trained_bytes == bytes_on_first_device(placed[0].model)
        assert trained_bytes + optimizer_bytes == bytes_on_first_device(placed[0])
        assert base_bytes == (bytes_on_first_device(placed[1]) if settings.rank else 0)


def test_the_abstract_state_is_the_real_one():
    model = tiny_model.make_model(CONFIG)
    real = init_state(model, optimizers.make_optimizer(ADAMW, num_steps=1))
    shapes, frozen = memory_plan.abstract_state(CONFIG, WHOLE, optimizer=ADAMW, quantize='none')
    assert jax.tree.structure(real) == jax.tree.structure(shapes) and frozen is None
    alike = jax.tree.map(lambda x, y: x.shape == y.shape and x.dtype == y.dtype, real, shapes)
    assert all(jax.tree.leaves(alike))


@pytest.mark.parametrize('dtype', ['model', 'int8'])
def test_a_cache_is_counted_as_jax_allocates_it(dtype):
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
        cache = jax.jit(lambda: cache_lib.init_cache(CONFIG, batch=8, length=5, dtype=dtype))()
    options = {'length': 5, 'dtype': dtype}
    assert memory_estimate.cache_bytes(
        CONFIG, batch=8, mesh=mesh, **options
    ) == bytes_on_first_device(cache)
    whole = memory_estimate.cache_bytes(
        CONFIG, batch=7, mesh=mesh, **options
    )  # rows that do not divide
    assert whole == cache_lib.cache_bytes(CONFIG, batch=7, **options) // 2


@pytest.mark.parametrize(
    ('settings', 'kind'), [(WHOLE, 'none'), (ADAPTED, 'none'), (ADAPTED, 'nf4')]
)
def test_matrices_quantized_by_the_engine_are_counted_once_beside_the_players(settings, kind):
    engine = dataclasses.replace(ENGINE, quantize='int8', cache_dtype='int8', prefill_chunk=16)
    compact, plain = (
        plan_of(training(settings), quantize=kind, engine=e, mesh=(1, 1, 1))
        for e in (engine, ENGINE)
    )
    mesh = memory_estimate.abstract_mesh((1, 1, 1))
    small, large = (
        memory_plan.sampling_phases(compact, mesh)['prefill'],
        memory_plan.sampling_phases(plain, mesh)['prefill'],
    )
    blocks = quantization.quantize(tiny_model.make_model(CONFIG), 'int8').blocks
    quantized = [x for x in jax.tree.leaves(blocks, is_leaf=is_quantized) if is_quantized(x)]
    assert len(quantized) == len(projection.NUM_INPUT_DIMS)
    assert small['weights in int8'] == (0 if kind == 'nf4' else bytes_on_first_device(quantized))
    assert large['weights in int8'] == 0
    for part in ('cache of the slots', 'cache of a prefill', 'layer of a prefill'):
        assert small[part] < large[part]


def test_prefix_caches_of_both_players_are_counted():
    engine = dataclasses.replace(ENGINE, prefix_cache_rows=8, prefix_cache_length=40)
    mesh = memory_estimate.abstract_mesh((2, 2, 2))
    phases = memory_plan.sampling_phases(plan_of(training(), engine=engine), mesh)
    # Two of the rows and one of the two key/value heads are on a device.
    size = 2 * CONFIG.num_layers * 2 * 1 * 40 * CONFIG.head_dim * 4
    assert phases.keys() == {'prefill', 'decode', 'weights of the sampler'}
    for phase in phases.values():
        assert phase.get('prefix cache', 0) + phase['prefix caches beside it'] == 2 * size
    assert phases['prefill']['prefix cache'] == size  # what the program reads
    without = memory_plan.sampling_phases(plan_of(training()), mesh)
    assert not any(phase['prefix caches beside it'] for phase in without.values())
    assert without['prefill']['cache of a prefill'] < phases['prefill']['cache of a prefill']


@pytest.mark.parametrize(('own', 'other'), [('float32', 'bfloat16'), ('bfloat16', 'float32')])
def test_the_sampler_is_planned_in_its_own_dtype(own, other):
    """As the sampler of a model with that dtype is; also where the trainer's has a kernel."""
    engine, fit = dataclasses.replace(ENGINE, dtype=other), training(length=64)
    model = dataclasses.replace(CONFIG, dtype=own, attention_soft_cap=0.0, head_dim=8)
    like = dataclasses.replace(model, dtype=other)
    mesh = memory_estimate.abstract_mesh((2, 2, 2))
    plan, expected = plan_of(fit, model=model, engine=engine), plan_of(fit, model=like)
    for name, phase in memory_plan.sampling_phases(expected, mesh).items():
        assert memory_plan.sampling_phases(plan, mesh)[name] == phase
    if own == 'bfloat16':
        on_gpu = dataclasses.replace(plan, model=dataclasses.replace(model, attention='cudnn'))
        assert memory_plan.phases(on_gpu, machines.topology('8xh100'))
        memory_plan.check_sampling(on_gpu)


def is_quantized(x):
    return isinstance(x, qwix.QArray)


def test_four_bits_count_as_half_a_byte():
    model = jax.eval_shape(lambda: quantization.quantize(tiny_model.make_model(CONFIG), 'nf4'))
    gate = model.blocks.mlp.gate.get_value().qvalue
    one = memory_estimate.abstract_mesh((1, 1, 1))
    assert memory_estimate.array_bytes({'gate': gate}, one) == gate.size // 2


def activations(mesh=(1, 1, 1), rows=8, length=32, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return memory_estimate.activation_bytes(
        config, rows=rows, length=length, mesh=memory_estimate.abstract_mesh(mesh)
    )


def test_recomputing_more_keeps_less():
    kept = [activations(remat=remat)['kept'] for remat in ('none', 'dots', 'full')]
    assert kept[0] > 2 * kept[1] > 4 * kept[2] > 0
    # Where the MLP is the largest part of a layer, its outputs are recomputed or unstacked.
    wide = {'mlp_dim': 256}
    unrolled = activations(remat='none', scan_layers=False, **wide)
    assert unrolled['layer or loss'] < activations(remat='full', **wide)['layer or loss']


def test_activations_grow_with_rows_and_shrink_with_devices():
    for name, value in activations().items():
        assert activations(rows=16)[name] == 2 * value
        assert activations(mesh=(2, 1, 1))[name] == activations(mesh=(1, 2, 1))[name] == value // 2
    assert activations(mesh=(1, 1, 2))['layer or loss'] < activations()['layer or loss']
    assert activations(mesh=(1, 1, 2))['kept'] < activations()['kept']  # of norms and residuals
    # A context splits what is kept of a sequence, but each part needs all keys and values.
    assert activations(mesh=(1, 1, 1, 2))['kept'] == activations()['kept'] // 2
    context = memory_estimate.abstract_mesh((1, 1, 1, 4))
    assert memory_estimate.gathered_keys(CONFIG, context) == 3 * 2 * 4 * (2 * 4)
    longer = activations(length=64)['layer or loss']
    assert longer > 2 * activations()['layer or loss']  # attention's square


@pytest.mark.parametrize(
    'remat', [*(pytest.param(r, marks=pytest.mark.slow) for r in ('none', 'full')), 'dots']
)
def test_a_compiled_step_needs_about_the_estimated_memory(remat):
    """Compares with XLA's count for a CPU, in float32: a CPU computes narrower types in wider ones.

    XLA fuses away a larger share of so small a model than of the models that plans are for.
    """
    config = dataclasses.replace(
        tiny_model.CONFIG, num_layers=4, embed_dim=96, mlp_dim=512, num_heads=4, num_kv_heads=2,
        head_dim=24, vocab_size=512, max_length=256, scan_layers=True, remat=remat,
    )  # fmt: skip
    fit = training(rows=4, length=256)
    plan, mesh = plan_of(fit, model=config, mesh=(1, 1, 1)), tiny_model.one_device()
    placed = lambda tree: jax.tree.map(  # noqa: E731
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        tree,
        sharding.shardings(tree, mesh),
    )
    with jax.set_mesh(mesh):
        state, _ = dry_run.abstract_state(plan, fit)
        batch = placement.Placement(mesh).abstract(dry_run.abstract_batch(fit), placement.ROWS)
        compiled = dry_run.make_step(fit).lower(placed(state), batch, None).compile()
    phase = memory_plan.training_phase(plan, fit, mesh)
    estimated = sum(phase[name] for name in ('gradients', 'kept', 'layer or loss'))
    compiled_bytes = compiled.memory_analysis().temp_size_in_bytes
    assert 0.75 < estimated / compiled_bytes < 1.4, (estimated, compiled_bytes)


def traffic(mesh, **changes):
    options = {'rows': 16, 'length': 32, 'num_microbatches': 1, 'trained_bytes': 1000}
    return memory_estimate.collective_bytes(
        CONFIG, mesh=memory_estimate.abstract_mesh(mesh), **options | changes
    )  # fmt: skip


def test_an_axis_of_one_device_sends_nothing():
    assert not any(traffic((1, 1, 1)).values())
    for axis, mesh in (('data', (8, 1, 1)), ('fsdp', (1, 8, 1)), ('tensor', (1, 1, 2))):
        sent = traffic(mesh)
        assert all(bool(sent[name]) == name.startswith(axis) for name in sent)


def test_traffic_is_counted_from_shapes():
    sent = traffic((1, 4, 1))
    matrices = 2 * (16 * 4 * 2 * (4 + 2) + 3 * 16 * 24)
    assert sent['fsdp all-gather'] == 2 * (matrices * 4 + 48 * 16 * 8) * 3 // 4
    assert sent['fsdp reduce-scatter'] == 1000 * 4 * 3 // 4
    assert traffic((1, 4, 1), num_microbatches=3)['fsdp all-gather'] == 3 * sent['fsdp all-gather']
    sums = 2 * 2 * 4 * (16 * 32 * 16 * 4) // 2
    halves = traffic((1, 1, 2))
    assert halves['tensor all-gather'] + halves['tensor reduce-scatter'] == sums
    # 33 positions do not divide: they are summed whole.
    assert traffic((1, 1, 2), length=33)['tensor all-reduce'] == sums // 32 * 33
    assert traffic((1, 1, 2), num_microbatches=3)['tensor all-gather'] == 3 * sums // 2
    assert traffic((8, 1, 1))['data all-reduce'] == 2 * 1000 * 7 // 8


def test_no_larger_machine_is_named_for_the_cpu():
    fit, machine = training(rows=2**30, length=64), machines.topology('cpu')
    assert machines.twice_as_large(machine) is None
    plan = plan_of(fit, mesh=(-1, 1, 1))
    phases = memory_plan.phases(plan, machine)
    with pytest.raises(ValueError, match='no mesh fits with these rows and slots'):
        dry_run.check_fits(plan, machine, phases)


def test_the_papers_model_does_not_fit_eight_chips_but_its_nearest_fit_does():
    fit = training(rows=256, length=4096)
    plan = plan_of(fit, model=LLAMA, mesh=(1, -1, 1), engine=EngineSettings(
        256, 4096, 8, (1024,), (256,), (), ()))  # fmt: skip
    machine = machines.topology('v6e-8')
    assert not memory_plan.fits(memory_plan.phases(plan, machine), machine)
    fitting, larger = memory_plan.nearest_fit(plan, machine)
    assert memory_plan.fits(memory_plan.phases(fitting, larger), larger)
    assert larger.num_chips > 8 and larger.chip == 'v6e'
    assert fitting.trainings[0].rows == 256 and fitting.model.vocab_size == 128256


@pytest.mark.parametrize('engine', [{'prefill_batch_sizes': (2, 8)}, {'num_slots': 18}], ids=str)
def test_the_nearest_fit_is_none_that_the_run_refuses(engine):
    machine, plan = machines.topology('v5e-8'), plan_of(training())
    assert memory_plan.nearest_fit(plan, machine)[0].mesh == plan.mesh
    plan = plan_of(training(), engine=dataclasses.replace(ENGINE, **engine))
    with pytest.raises(ValueError, match=r'sampling\.engine\.\w+=.* over the 4 shards of rows'):
        memory_plan.check_sampling(plan)
    nearest = memory_plan.nearest_fit(plan, machine)[0]
    assert nearest.mesh != plan.mesh
    memory_plan.check_sampling(nearest)


def test_adapters_need_less_than_all_weights_and_a_quantized_base_less_still():
    machine = machines.topology('1xh100')
    totals = []
    for settings, kind in ((WHOLE, 'none'), (ADAPTED, 'none'), (ADAPTED, 'int8'), (ADAPTED, 'nf4')):
        plan = plan_of(training(settings), model=LLAMA, mesh=(1, 1, 1), quantize=kind)
        phase = memory_plan.phases(plan, machine)['actor']
        totals.append(phase.total)
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == 4
    assert totals[0] > 4 * 4 * 8e9 + 4 * 8e9  # weights twice, moments, gradients


@pytest.mark.parametrize(('name', 'needed'), [('8xh100', 'gpu'), ('v5e-8', 'tpu')])
def test_attention_that_does_not_run_on_a_machine_is_refused_by_name(name, needed):
    kernels = {'tpu': {'attention': 'splash'}, 'gpu': {'attention': 'cudnn'}}
    machine = machines.topology(name)
    for hardware, changes in kernels.items():
        model = dataclasses.replace(LLAMA, **changes)
        plan = plan_of(training(), model=model, mesh=(1, 8, 1))
        if hardware == needed:
            assert memory_plan.phases(plan, machine)
        else:
            with pytest.raises(ValueError, match=rf'{changes["attention"]}.* runs on {hardware}'):
                memory_plan.phases(plan, machine)
