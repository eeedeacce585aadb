"""Dry runs: the printed memory and traffic, and the configs that are refused."""

import dataclasses
import json

import pytest

from elenchus.configs import gsm8k, lab
from elenchus.configs.released import llama3_8b_mathcritique
from elenchus.model import memory_estimate, sharding
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, run_settings
from elenchus.train.planning import (
    compiled_table,
    dry_run,
    machines,
    memory_plan,
    plan_parts,
)


def settings_of(config, **changes):
    config.update_from_flattened_dict(changes)
    return build.build(run_settings.RunSettings, config)


def llama(**changes):
    return settings_of(llama3_8b_mathcritique.get_config(), **changes)


def test_every_phase_and_the_traffic_are_printed(capsys):
    s = settings_of(gsm8k.get_config('smoke'))
    dry_run.dry_run(s, 'v5e-8', compiled=False)
    output = capsys.readouterr().out
    assert 'These figures are estimates from shapes; --compile asks the compiler' in output
    assert 'v5e-8: 8 v5e of 16.0 GiB' in output
    assert "mesh {'data': 1, 'fsdp': 8, 'tensor': 1}" in output
    for name in (
        'base',
        'actor, critic',
        'reinforce',
        'prefill',
        'decode',
        'scoring',
        'fsdp all-gather',
    ):
        assert name in output


def test_a_plan_that_does_not_fit_is_refused_with_one_that_fits(capsys):
    few_slots = {'sampling.engine.num_slots': 64}
    s = llama(**few_slots)
    with pytest.raises(ValueError, match=r'v5e-32: \w+ needs .* GiB a device, of which') as error:
        dry_run.check_fits(*parts(s, 'v5e-32'))
    flags = str(error.value).partition('nearest that fits: ')[2]
    assert '--topology' not in flags and '--config.' in flags
    changed = llama(**few_slots, **config_changes(flags))
    plan, machine, phases = parts(changed, 'v5e-32')
    assert memory_plan.fits(phases, machine)
    dry_run.check_fits(plan, machine, phases)


def config_changes(flags):
    """Config fields set by command-line flags."""
    pairs = (flag.removeprefix('--config.').split('=') for flag in flags.split())
    read = lambda v: tuple(map(int, v[1:-1].split(','))) if v[0] == '(' else v  # noqa: E731
    return {name: int(v) if v.isdigit() else read(v) for name, v in pairs}


def parts(s, name):
    machine, plan = machines.topology(name), dry_run.plan_of(s)
    plan = dataclasses.replace(plan, mesh=sharding.fill_mesh(plan.mesh, machine.num_chips))
    return plan, machine, memory_plan.phases(plan, machine)


def test_a_larger_machine_is_named_where_none_of_this_size_fits():
    with pytest.raises(ValueError, match=r'nearest that fits: --topology=1?[0-9]+xh100'):
        dry_run.check_fits(*parts(llama(**{'sampling.engine.tensor_shards': 0}), '1xh100'))


def test_rows_that_do_not_divide_are_refused_by_name_before_a_table(capsys):
    s = llama(**{'train.num_microbatches': 3})
    with pytest.raises(ValueError, match=r'train.rows=256 does not divide .* = 768; nearest: 768'):
        dry_run.dry_run(s, 'v5e-256')
    assert not capsys.readouterr().out


def test_turns_that_no_row_has_room_for_are_refused_before_a_table(capsys):
    """Rows with a shared prompt had a negative length in the plan, and the run a traceback."""
    s = settings_of(lab.get_config('smoke'), **{'reinforce.turns.episode': 'critique'})
    with pytest.raises(ValueError, match=r'^reinforce\.length=\d+ must be at least \d+'):
        dry_run.dry_run(s, 'cpu')
    assert not capsys.readouterr().out


def test_adapters_of_a_question_are_planned_with_a_row_for_each_part_of_any_mesh():
    config, machine = gsm8k.get_config('smoke'), machines.topology('v5e-8')
    config.update(stages=('base', 'evaluate'), mesh=(2, -1, 1))
    names = [t.name for t in dry_run.plan_for(settings_of(config), machine).trainings]
    assert names == ['base']
    config.evaluate.adapt.make = 'elenchus.configs.methods.tt_si:similar'
    plan = dry_run.plan_for(settings_of(config), machine)
    load = plan.trainings[-1]
    assert (load.rows, load.length, load.lora.rank) == (8, config.sampling.score.lengths[-1], 8)
    phase = memory_plan.phases(plan, machine)[load.name]
    assert phase['frozen base'] == phase['frozen base beside it'] > phase['trained weights'] > 0
    varied = list(memory_plan.variations(plan, machine))
    assert {v.mesh for v in varied} >= {(2, 4, 1), (1, 4, 2)}
    for v in varied:
        assert v.trainings[-1].rows == v.mesh[0] * v.mesh[1]
        assert v.trainings[-1].num_microbatches == 1


def test_reinforcement_has_its_states_in_memory_while_it_samples():
    machine, values = machines.topology('v5e-8'), {
        'reinforce.advantage.outcome': 'gae', 'reinforce.advantage.step_coef': 0.0,
    }  # fmt: skip

    def planned(stages, **changes):
        config = gsm8k.get_config('smoke')
        config.update_from_flattened_dict({'stages': stages} | changes)
        plan = dry_run.plan_for(settings_of(config), machine)
        return memory_plan.phases(plan, machine)

    sft = ('base', 'actor', 'critique', 'critic')
    alone, part = planned(sft)['decode'], 'states of training beside it'
    phases = planned((*sft, 'reinforce'))
    update, decode = phases['reinforce'], phases['decode']
    assert part not in alone and decode.program == alone.program
    weights = update['trained weights']
    assert decode[part] == update['optimizer state'] + weights  # and the critic
    more = planned((*sft, 'reinforce'), **values)['decode'][part] - decode[part]
    assert more == 3 * weights  # the value model and its moments
    apart = {'reinforce.staleness': 1, 'reinforce.rollout_devices': 4, 'mesh': (2, 4, 1)}
    assert part not in planned((*sft, 'reinforce'), **apart)['decode']


def test_gpu_topologies_are_not_compiled_for():
    s = settings_of(gsm8k.get_config('smoke'))
    with pytest.raises(ValueError, match=r"TPU topologies and cpu, not '8xh100'; nearest: v5e-8"):
        compiled_table.compile_run(s, '8xh100')


def test_programs_that_are_no_regular_expression_are_refused():
    s = settings_of(gsm8k.get_config('smoke'))
    with pytest.raises(ValueError, match=r"--programs='decode \('.*; nearest: '.*\('$"):
        compiled_table.compile_run(s, 'cpu', only='decode (')


TEACHERS = {'improve.teacher': 'vanilla', 'reinforce.teacher': 'reinforce'}


def taught(field, path, *, stage):
    kl = {'reinforce.objective.kl': 'k2', 'reinforce.objective.kl_coef': 1.0}
    stages = ('base', 'actor', 'critique', 'critic', stage)
    return settings_of(gsm8k.get_config('smoke'), stages=stages, **{field: str(path)}, **kl)


def describe(folder, **changes):
    """Writes the description of a saved model of the size of Llama 3 70B, without weights."""
    config = gsm8k.get_config('smoke').model.to_dict()
    config |= {'num_layers': 80, 'embed_dim': 8192, 'mlp_dim': 28672, 'head_dim': 128}
    config |= {'num_heads': 64, 'num_kv_heads': 8, 'vocab_size': config['vocab_size'] + 64}
    folder.mkdir(parents=True)
    text = json.dumps({'model': config | changes, 'tokenizer': 'abc', 'fingerprint': 1})
    (folder / saved_models.DESCRIPTION).write_text(text)
    return folder


@pytest.mark.parametrize('field', TEACHERS)
def test_a_teacher_of_another_size_is_in_the_plan(tmp_path, field):
    s = taught(field, describe(tmp_path / 'model'), stage=TEACHERS[field])
    plain = taught(field, '', stage=TEACHERS[field])
    plan, machine, phases = parts(s, 'v5e-8')
    _, _, without = parts(plain, 'v5e-8')
    teacher = plan.sampling.teacher or plan.trainings[-1].teacher
    assert teacher.num_layers == 80 and teacher.vocab_size == s.model.vocab_size
    mesh = memory_estimate.abstract_mesh(plan.mesh)
    size = memory_estimate.array_bytes(plan_parts.abstract_model(teacher), mesh)
    assert size > 30 * 2**30  # float32, on eight chips
    added = {name: phase for name, phase in phases.items() if name not in without}
    if field == 'improve.teacher':
        assert {name.removeprefix('teacher: ') for name in added} <= set(without)
        assert any('decode' in name for name in added)
        assert all(without[name] == phases[name] for name in without if name != 'vanilla')
        fit = phases['vanilla']  # the pair that explored stays in memory
        assert fit.total - without['vanilla'].total == fit['weights of the teacher'] == size
    else:
        assert list(added) == ['reinforce: log-probabilities of the teacher']
        update = phases['reinforce']
        assert update.total - without['reinforce'].total == update['weights of the teacher'] == size
        assert update.program == without['reinforce'].program
        decode = next(name for name in phases if 'decode' in name)
        assert phases[decode].total - without[decode].total == size
    assert all(phase.total > size for phase in added.values())
    with pytest.raises(ValueError, match=r'v5e-8: .* needs .* GiB a device'):
        dry_run.check_fits(plan, machine, phases)


@pytest.mark.parametrize('field', TEACHERS)
def test_a_teacher_that_is_not_there_is_an_error_of_the_plan(tmp_path, field):
    with pytest.raises(ValueError, match=f'folder not found: {field}='):
        dry_run.plan_of(taught(field, tmp_path / 'none', stage=TEACHERS[field]))
    dry_run.plan_of(taught(field, tmp_path / 'none', stage='evaluate'))
