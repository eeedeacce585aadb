"""Which model runs on which machine: the memory of the shipped configs, as the dry run plans it.

python -m scripts.tools.hardware_table                    # the tables of docs/hardware.md
"""

import dataclasses
import runpy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from elenchus.model.memory_estimate import GIB
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import dry_run, machines, memory_plan

MODELS = {
    'SmolLM2 135M': 'smollm2_135m',
    'Qwen3 0.6B': 'qwen3_0p6b_gsm8k',
    'Gemma 3 1B, adapters': 'gemma3_1b_lora',
    'Qwen2.5 1.5B': 'qwen2p5_math_1p5b_gsm8k',
    'Llama 3 8B': 'llama3_8b_mathcritique',
}
"""Name -> file of configs/released."""
MACHINES = (
    *('v5e-1', 'v5e-4', 'v5e-8', 'v5e-64', 'v5e-256', 'v6e-8', 'v5p-8', 'v5p-128'),
    *('1xa100', '1xh100', '8xh100'),
)


class Fit(NamedTuple):
    """Largest phase of a run on a machine, and what has to change if it does not fit."""

    phase: str
    gib: float | None
    flags: str  # empty: it fits as it is
    refused: str = ''  # why the config cannot be placed on that machine at all


def settings_of(name: str) -> RunSettings:
    """Returns the settings of a shipped config."""
    path = build.ROOT / 'configs' / 'released' / f'{name}.py'
    return build.build(RunSettings, runpy.run_path(str(path))['get_config']())


def fit(settings: RunSettings, topology: str) -> Fit:
    """Plans a run on a machine; the sampler's shards are at most the chips of the machine."""
    machine = machines.topology(topology)
    shards = min(settings.sampling.engine.tensor_shards, machine.num_chips)
    engine = dataclasses.replace(settings.sampling.engine, tensor_shards=shards)
    sampling = dataclasses.replace(settings.sampling, engine=engine)
    changed = shards != settings.sampling.engine.tensor_shards
    flags = [f'--config.sampling.engine.tensor_shards={shards}'] if changed else []
    try:
        plan = dry_run.checked_plan(dataclasses.replace(settings, sampling=sampling), machine)
        phases = memory_plan.phases(plan, machine)
    except ValueError as error:
        return Fit('', None, '', str(error))
    name = max(phases, key=lambda phase: phases[phase].total)
    if phases[name].total > machine.usable:
        nearest = memory_plan.nearest_fit(plan, machine)
        if nearest is None:
            return Fit(
                name,
                phases[name].total / GIB,
                '',
                'no machine of this kind fits these rows and slots',
            )
        flags.append(dry_run.overrides(plan, machine, fitting=nearest))
    return Fit(name, phases[name].total / GIB, ' '.join(flags))


def table(models: Sequence[str] = tuple(MODELS), topologies: Sequence[str] = MACHINES) -> list[str]:
    """Returns Markdown: GiB a device of the largest phase, and below it the changes that fit."""
    lines = [f'| machine, GiB a chip | {" | ".join(models)} |', '|---' * (len(models) + 1) + '|']
    settings = {model: settings_of(MODELS[model]) for model in models}
    notes: list[tuple[str, str, Fit]] = []
    for topology in topologies:
        fits = {model: fit(settings[model], topology) for model in models}
        machine = machines.topology(topology)
        cells = ' | '.join(map(_cell, fits.values()))
        lines.append(f'| {topology}, {machine.bytes / GIB:.0f} | {cells} |')
        notes += [(topology, model, plan) for model, plan in fits.items() if _needs_note(plan)]
    return [*lines, '', *_notes(notes)]


def _cell(fit: Fit) -> str:
    if fit.gib is None:
        return '-'
    text = f'{fit.gib:.1f} {fit.phase}'
    return f'{text} \\*' if _needs_note(fit) else text


def _needs_note(fit: Fit) -> bool:
    return bool(fit.flags or fit.refused)


def _notes(notes: Sequence[tuple[str, str, Fit]]) -> Iterator[str]:
    yield '| machine | model | fits with |'
    yield '|---|---|---|'
    for topology, model, plan in notes:
        yield f'| {topology} | {model} | {f"`{plan.flags}`" if plan.flags else plan.refused} |'
