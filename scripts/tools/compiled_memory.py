"""Prints the tables of docs/scale.md: compiled programs beside their estimates, and what they move.

python -m scripts.tools.compiled_memory --rows=runs/compiled
python -m scripts.tools.compiled_memory --rows=runs/compiled --topologies=v5e-8 --programs=sampling

Compiles for TPUs that need not be present (libtpu), the largest shapes of each kind of program.
A program takes minutes; each is a JSON file of the folder --rows, and the same command continues.
With --short the sampler's programs, which unroll the layers, are compiled with few layers twice and
the figures of all layers follow from the difference.
"""

import itertools
import json
import pathlib
import re
import runpy
from typing import Any

import jax
from absl import app, flags

from elenchus.model import platforms
from elenchus.train.config import build, cli
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import (
    compiled,
    compiled_rows,
    compiled_table,
    dry_run,
    machines,
    programs,
)
from elenchus.train.planning.compiled_rows import Row, gib

CONFIGS = [
    'qwen3_0p6b_gsm8k',
    'qwen2p5_math_1p5b_gsm8k',
    'gemma3_1b_lora',
    'llama3_8b_mathcritique',
]
TOPOLOGIES = ['v5e-8', 'v5e-64', 'v5e-256', 'v5p-128']

SMALL_ON_64 = {'sampling.engine.prefill_batch_sizes': (64,), 'sampling.score.rows': 64}
SMALL_ON_256 = {
    'sampling.engine.prefill_batch_sizes': (256,),
    'sampling.engine.decode_batch_sizes': (),
    'sampling.score.rows': 256,
    'train.rows': 256,
    'reinforce.num_problems': 256,
}


def changes_for(name: str, topology: str) -> dict[str, Any]:
    """Fields that must change for a config to divide over a machine."""
    if name == 'llama3_8b_mathcritique':
        # Refused in any case: the state of training alone takes all memory of 8 chips.
        return {'sampling.engine.tensor_shards': 8} if topology == 'v5e-8' else {}
    changes = {'v5e-8': {}, 'v5e-256': SMALL_ON_256}.get(topology, SMALL_ON_64)
    if name == 'gemma3_1b_lora' and topology == 'v5e-256':
        changes = changes | {'mesh': (2, 128, 1)}  # its width of 1152 is 9 times 128
    return changes


def settings_of(name: str, topology: str) -> RunSettings:
    """The settings of a released config, changed to divide over a machine."""
    config = runpy.run_path(str(build.ROOT / 'configs' / 'released' / f'{name}.py'))['get_config']()
    for field, value in changes_for(name, topology).items():
        config.update_from_flattened_dict({field: value})
    return compiled_rows.at_largest(build.build(RunSettings, config))


def row_path(folder: pathlib.Path, labels: Row) -> pathlib.Path:
    """The file of one row."""
    names = (labels['config'], labels['topology'], labels['kind'], str(labels['layers']))
    return folder / f'{".".join(names).replace(" ", "_")}.json'


def compile_group(folder: pathlib.Path, labels: Row, group: str) -> None:
    """Compiles a group of programs and writes the row of each; those that exist are not redone.

    `labels` are the config, the topology and the number of layers.
    """
    whole = settings_of(labels['config'], labels['topology'])
    machine = machines.topology(labels['topology'])
    s = compiled_rows.with_layers(whole, labels['layers'])
    plan, whole_plan = dry_run.plan_for(s, machine), dry_run.plan_for(whole, machine)
    missing = missing_kinds(folder, labels, group)

    def report(program) -> None:
        head = f'{labels["config"]} {labels["topology"]} {program.name} ({labels["layers"]} layers)'
        size, seconds = gib(program.total), program.seconds
        print(f'{head}: {size} GiB, {seconds:.0f} s {program.refused}', flush=True)
        kind = kind_of(program.name)
        if kind in missing:
            of_kind = {**labels, 'kind': kind, 'all_layers': whole.model.num_layers}
            row = compiled_rows.row_of(program, whole_plan, machine, **of_kind)
            text = json.dumps(row, indent=1) + '\n'
            row_path(folder, of_kind).write_text(text, encoding='utf-8')

    def selected(name: str) -> bool:
        return kind_of(name) in missing or not programs.is_large(name)

    compiler = compiled.Compiler(selected=selected, report=report)
    value = platforms.product_precision(s.model.dtype, s.matmul_precision)
    precision = jax.default_matmul_precision(value)
    with precision, compiled.mesh_of(machine, plan.mesh) as mesh:
        try:
            compiled_rows.call_group(group, s, plan, call=compiler, mesh=mesh)
        except compiled.ProgramRefused as refused:
            print(f'{labels["config"]} {labels["topology"]}: {refused} does not fit')


def kind_of(name: str) -> str | None:
    """Kind of a program by its name."""
    kinds = compiled_rows.KINDS.items()
    return next((kind for kind, pattern in kinds if re.search(pattern, name)), None)


def missing_kinds(folder: pathlib.Path, labels: Row, group: str) -> set[str]:
    """Kinds of a group that have no row yet."""
    kinds = compiled_rows.GROUPS[group]
    return {k for k in kinds if not row_path(folder, {**labels, 'kind': k}).exists()}


def read_rows(folder: pathlib.Path) -> list[Row]:
    """Reads the rows of compiled programs."""
    return [json.loads(path.read_text(encoding='utf-8')) for path in sorted(folder.glob('*.json'))]


def with_estimates(rows: list[Row]) -> list[Row]:
    """The rows with the estimates of this code, whenever they were compiled."""
    plans = {}
    for row in rows:
        name, topology = row['config'], row['topology']
        if (name, topology) not in plans:
            machine = machines.topology(topology)
            plans[name, topology] = dry_run.plan_for(settings_of(name, topology), machine)
        phase = compiled_table.phase_of(row['program'], plans[name, topology])
        row['estimate'] = None if phase is None else phase.program
    return rows


def memory_table(rows: list[Row]) -> list[str]:
    """Markdown lines: GiB of each program by the compiler, and the estimate over it."""
    kinds = list(compiled_rows.KINDS)
    lines = [f'| config, machine | {" | ".join(kinds)} |', '|---' * (1 + len(kinds)) + '|']
    by_run: dict[str, dict[str, str]] = {}
    for row in rows:
        star = '\\*' * row.get('is_extrapolated', False)
        size = 'refused' if row['refused'] else gib(row['compiled']) + star
        ratio = compiled_rows.ratio(row)
        of_run = by_run.setdefault(f'{row["config"]}, {row["topology"]}', {})
        of_run[row['kind']] = size + (f' ({ratio:.2f})' if ratio else '')
    for name, cells in by_run.items():
        lines.append(f'| {name} | {" | ".join(cells.get(kind, "") for kind in kinds)} |')
    return lines


def traffic_table(rows: list[Row]) -> list[str]:
    """Markdown lines: GB that a device receives, and over the model's weights in bf16.

    Of decoding, in one step of its loop. The last columns are the traffic of the main memory, of
    programs that were compiled with all layers: with few, XLA keeps more on the chip. The least of
    a decoding step is a device's weights and caches.
    """
    columns = ('config, machine', 'program', *COLLECTIVES, 'largest sum', 'traffic', 'over least')
    lines = [f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
    for row in rows:
        cost = compiled_rows.cost_of(row)
        if cost is None:
            continue
        moved, whole = cost['collectives'], not row.get('is_extrapolated', False)
        cells = [cell(moved.get(kind), row['bf16_weights']) for kind in COLLECTIVES]
        largest = moved.get('all-reduce', {'largest': ''})['largest']
        least = row['least_memory_bytes']
        traffic = f'{cost["memory_bytes"] / 1e9:.3g}' if whole else ''
        share = f'{cost["memory_bytes"] / least:.2f}' if whole and row['kind'] == 'decode' else ''
        name = f'{row["config"]}, {row["topology"]}'
        lines.append(f'| {" | ".join([name, row["kind"], *cells, largest, traffic, share])} |')
    return lines


COLLECTIVES = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all')


def cell(collective: Row | None, weights: int) -> str:
    """GB that a device receives, and how many times the bf16 weights that is."""
    if collective is None:
        return ''
    return f'{collective["bytes"] / 1e9:.3g} ({collective["bytes"] / weights:.2f})'


if __name__ == '__main__':
    CONFIG_NAMES = flags.DEFINE_list('configs', CONFIGS, 'Configs of configs/released.')
    MACHINES = flags.DEFINE_list('topologies', TOPOLOGIES, 'TPUs.')
    PROGRAMS = flags.DEFINE_list('programs', list(compiled_rows.GROUPS), 'Groups of programs.')
    SHORT = flags.DEFINE_bool('short', False, 'Few layers of the sampler, and their difference.')
    ROWS = flags.DEFINE_string('rows', None, 'Folder of compiled programs.', required=True)

    def main(_):
        """Compiles what the folder of rows lacks, then prints the tables."""
        folder = pathlib.Path(ROWS.value)
        folder.mkdir(parents=True, exist_ok=True)
        for topology, name, group in itertools.product(
            MACHINES.value, CONFIG_NAMES.value, PROGRAMS.value
        ):
            model, depths = settings_of(name, topology).model, ()
            if SHORT.value and group == 'sampling':
                depths = compiled_rows.short_depths(model)
            for layers in depths or (model.num_layers,):
                labels = {'config': name, 'topology': topology, 'layers': layers}
                if missing_kinds(folder, labels, group):
                    compile_group(folder, labels, group)
        rows = with_estimates(list(compiled_rows.merged(read_rows(folder))))
        print('\n'.join([*memory_table(rows), '', *traffic_table(rows)]))

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
