"""Makes the rows of the table of compiled programs: what XLA says a released config needs.

A row is one program of one config on one machine. Programs whose layers are scanned are compiled
whole. Those of the sampler, whose layers are unrolled, may be compiled with few layers twice:
everything that grows with the depth grows by equal amounts, so two depths give the third.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from elenchus.model import config as model_config
from elenchus.model import memory_estimate
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine import engine
from elenchus.sampling.engine.calls import Call
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import (
    compiled_table,
    dry_run,
    least_work,
    machines,
    programs,
)
from elenchus.train.planning.compiled import CompiledProgram
from elenchus.train.planning.memory_plan import RunPlan
from elenchus.train.planning.program_cost import Cost

KINDS = {
    'train step': r': train step$',
    'log-probabilities': r': log-probabilities$',
    'weights of the sampler': r'^weights of the sampler$',
    'prefill': r'^prefill ',
    'decode': r'^decode ',
    'scoring': r'^scoring ',
}
"""Kind of program -> regular expression of its name."""
GROUPS = {
    'train': ('train step',),
    'logprobs': ('log-probabilities',),
    'sampling': ('weights of the sampler', 'prefill', 'decode'),
    'scoring': ('scoring',),
}
"""Programs that are compiled together, as one makes the arguments of another."""

Row = dict[str, Any]


def at_largest(s: RunSettings) -> RunSettings:
    """Settings of a run whose sampler and scorer have their largest shapes only."""
    e, score = s.sampling.engine, s.sampling.score
    shapes = dataclasses.replace(
        e,
        prompt_buckets=e.prompt_buckets[-1:],
        prefill_batch_sizes=e.prefill_batch_sizes[-1:],
        decode_batch_sizes=(),
        decode_cache_lengths=(),
    )
    score = dataclasses.replace(score, lengths=score.lengths[-1:])
    sampling = dataclasses.replace(s.sampling, engine=shapes, score=score)
    return dataclasses.replace(s, sampling=sampling)


def with_layers(s: RunSettings, num_layers: int) -> RunSettings:
    """Settings of the same run with a model of so many layers."""
    return dataclasses.replace(s, model=dataclasses.replace(s.model, num_layers=num_layers))


def short_depths(config: ModelConfig) -> tuple[int, int]:
    """Two small numbers of layers that differ from each other and from all by whole periods."""
    period = len(config.windows)
    first = config.num_layers % period + (period if config.num_layers % period < 2 else 0)
    return (first, first + period) if period > 1 else (2, 4)


def call_group(
    group: str, s: RunSettings, plan: RunPlan, *, call: Call, mesh: jax.sharding.Mesh
) -> None:
    """Calls the programs of a group, and those that make their arguments.

    The update is that of the first training; log-probabilities are those of reinforcement, which a
    run leaves out where its objective does not read them.
    """
    if group == 'train':
        first = dataclasses.replace(plan.trainings[0], logprobs=False)
        programs.call_training(plan, first, call, mesh=mesh)
    elif group == 'logprobs':
        training = plan.trainings[-1]
        model = programs.player(plan, training, mesh=mesh, call=call)
        programs.call_logprobs(training, model, call, mesh=mesh)
    else:
        model = programs.player(plan, plan.sampling.players, mesh=mesh, call=call)
        if group == 'scoring':
            programs.call_scoring(s, model, call=call)
            return
        sampler = engine.Engine(plan.sampling.engine, stop_ids=(1,))
        sampler.warm_up(model, method=dry_run.sampling_method(s), call=call)


def row_of(program: CompiledProgram, plan: RunPlan, machine: machines.Topology, **labels) -> Row:
    """A row of the table, in bytes on one device; `plan` is that of all layers.

    `labels` are added: the config, the kind of program, the number of layers compiled.
    """
    phase = compiled_table.phase_of(program.name, plan)
    least = least_work.least_work(plan, machine, program.name)
    parts = {
        name: getattr(program, name)
        for name in ('arguments', 'outputs', 'temporaries', 'aliased', 'refused', 'seconds')
    }
    cost = program.cost
    return {
        **labels,
        'topology': machine.name,
        'program': program.name,
        'mesh': plan.mesh,
        **parts,
        'compiled': program.total,
        'estimate': None if phase is None else phase.program,
        'least_memory_bytes': least and least.memory_bytes,
        'bf16_weights': 2 * model_config.num_parameters(plan.model),
        'once': None if cost is None else _cost(cost.once),
        'step': None if cost is None or cost.step is None else _cost(cost.step),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    collectives = {
        kind: {'count': c.count, 'bytes': c.received_bytes, 'largest': str(c.largest)}
        for kind, c in sorted(cost.collectives.items())
    }
    return {
        'flops': cost.flops,
        'memory_bytes': cost.memory_bytes,
        'collectives': collectives,
    }


def merged(rows: Sequence[Row]) -> Iterator[Row]:
    """One row a program: that of all layers, or what two short ones give by their difference."""
    groups: dict[tuple, dict[int, Row]] = {}
    for row in rows:
        key = row['config'], row['topology'], row['kind']
        groups.setdefault(key, {})[row['layers']] = row
    for by_depth in groups.values():
        total = next(iter(by_depth.values()))['all_layers']
        if total in by_depth:
            yield by_depth[total]
        elif len(by_depth) > 1:
            low, high = sorted(by_depth)[:2]
            share = (total - low) / (high - low)
            yield extrapolated(by_depth[low], by_depth[high], share)


def extrapolated(low: Row, high: Row, share: float) -> Row:
    """The row at low + share * (high - low) layers; figures that both lack stay unknown."""
    return {
        **high,
        **_between(low, high, share),
        **{name: high[name] for name in ('estimate', 'least_memory_bytes', 'bf16_weights')},
        'layers': high['all_layers'],
        'is_extrapolated': True,
        'refused': low['refused'] or high['refused'],
    }


def _between(low: Any, high: Any, share: float) -> Any:
    if isinstance(high, Mapping):
        return {name: _between((low or {}).get(name, 0), high[name], share) for name in high}
    if isinstance(high, float | int) and not isinstance(high, bool):
        return low + share * (high - low)
    return high


def ratio(row: Row) -> float | None:
    """Estimated over compiled memory; None without an estimate."""
    return row['estimate'] and row['estimate'] / row['compiled']


def cost_of(row: Row) -> Row | None:
    """Returns the cost of a program; for decoding that of one step of its loop.

    Only the device knows how many decode steps run. The loop of a prefill, of unknown length too,
    only copies prompts.
    """
    return row['step'] if row['kind'] == 'decode' else row['once']


def gib(size: float) -> str:
    """A size in GiB with two digits."""
    return f'{size / memory_estimate.GIB:.2f}'
