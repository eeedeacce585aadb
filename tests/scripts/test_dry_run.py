"""Dry runs: what is told of a machine, and what is refused."""

import dataclasses

import pytest

from elenchus.configs import gsm8k
from elenchus.configs.released import llama3_8b_mathcritique
from elenchus.train.config import build, run_settings
from elenchus.train.planning import dry_run, memory_plan


def settings_of(config, **changes):
    config.update_from_flattened_dict(changes)
    return build.build(run_settings.RunSettings, config)


def llama(**changes):
    return settings_of(llama3_8b_mathcritique.get_config(), **changes)


def test_every_phase_and_the_traffic_are_told(capsys):
    s = settings_of(gsm8k.get_config('smoke'))
    dry_run.dry_run(s, 'v5e-8', compiled=False)
    told = capsys.readouterr().out
    assert 'v5e-8: 8 v5e of 16.0 GiB' in told
    assert "mesh {'data': 1, 'fsdp': 8, 'tensor': 1}" in told
    for name in ('base', 'actor, critic', 'reinforce', 'sampling', 'fsdp all-gather'):
        assert name in told


def test_what_cannot_fit_is_refused_with_what_does(capsys):
    s = llama()
    with pytest.raises(ValueError, match=r'v5e-128: \w+ takes .* GiB a device, of which') as error:
        dry_run.refuse_unless_fitting(*parts(s, 'v5e-128'))
    told = str(error.value).partition('nearest that fits: ')[2]
    assert '--topology' not in told and '--config.' in told
    changed = llama(**overrides(told))
    run, machine, found = parts(changed, 'v5e-128')
    assert memory_plan.fits(found, machine)
    dry_run.refuse_unless_fitting(run, machine, found)


def overrides(told):
    """The flags of a told command line, as config fields."""
    pairs = (flag.removeprefix('--config.').split('=') for flag in told.split())
    read = lambda v: tuple(map(int, v[1:-1].split(','))) if v[0] == '(' else v  # noqa: E731
    return {name: int(v) if v.isdigit() else read(v) for name, v in pairs}


def parts(s, name):
    machine, run = memory_plan.topology(name), dry_run.described(s)
    run = dataclasses.replace(run, mesh=memory_plan.fill_mesh(run.mesh, machine.num_chips))
    return run, machine, memory_plan.phases(run, machine)


def test_too_small_a_machine_is_told_a_larger_one():
    with pytest.raises(ValueError, match=r'nearest that fits: --topology=1?[0-9]+xh100'):
        dry_run.refuse_unless_fitting(*parts(llama(), '1xh100'))


def test_rows_that_do_not_divide_are_refused_by_name():
    s = llama(**{'train.num_microbatches': 3})
    run, _, _ = parts(s, 'v5e-256')
    with pytest.raises(ValueError, match=r'256 rows do not divide .* = 768; nearest: '):
        dry_run.trace(s, run)


def test_only_tpus_can_be_described_to_the_compiler():
    run, machine, _ = parts(settings_of(gsm8k.get_config('smoke')), '8xh100')
    with pytest.raises(ValueError, match='only TPUs'):
        dry_run.compile_step(run, machine)
