"""Compiles one train step in several variants of a config for a TPU and prints them side by side.

python -m scripts.tools.compare_steps --config=configs/released/qwen3_0p6b_gsm8k.py --layers=2 \\
    --topology=v5e-8 --vary="model.remat='dots'" --vary="model.remat='full'; train.rows=16"

The TPU need not be present (libtpu). Each --vary is a list of fields with Python values, separated
by semicolons; --set changes all variants.
"""

import ast
import re
import runpy
from typing import Any

import jax
from absl import app, flags

from elenchus.model import memory_estimate, platforms
from elenchus.model.memory_estimate import GIB
from elenchus.train.config import build, cli
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import compiled, compiled_rows, dry_run, machines, memory_plan
from elenchus.train.planning.compiled import CompiledProgram

COLLECTIVES = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')
GROUPS = {'train': r': train step$', 'logprobs': r': log-probabilities$'}


def parse_changes(text: str) -> dict[str, Any]:
    """Returns {field: value} of 'field=value; field=value', values as in Python.

    Raises ValueError for a part that is not so.
    """
    changes = {}
    for part in filter(str.strip, text.split(';')):
        name, _, value = (text.strip() for text in part.partition('='))
        try:
            changes[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            raise ValueError(
                f'--vary: {part.strip()!r} is no FIELD=VALUE with a value of Python, such as '
                "train.rows=16 or model.remat='full'"
            ) from None
    return changes


def settings_of(path: str, changes: dict[str, Any], *, layers: int) -> RunSettings:
    """Settings of a config with changed fields and, if not 0, another number of layers."""
    config = runpy.run_path(path)['get_config']()
    for field, value in changes.items():
        config.update_from_flattened_dict({field: value})
    settings = build.build(RunSettings, config)
    return compiled_rows.with_layers(settings, layers) if layers else settings


def compile_program(
    settings: RunSettings, topology: str, group: str
) -> tuple[CompiledProgram, int]:
    """Returns (the program of a group by the compiler, its estimated bytes)."""
    machine = machines.topology(topology)
    plan = dry_run.plan_for(settings, machine)
    compiler = compiled.Compiler(
        selected=lambda name: re.search(GROUPS[group], name) or 'first state' in name
    )
    value = platforms.product_precision(settings.model.dtype, settings.matmul_precision)
    precision = jax.default_matmul_precision(value)
    with precision, compiled.mesh_of(machine, plan.mesh) as mesh:
        compiled_rows.call_group(group, settings, plan, call=compiler, mesh=mesh)
    abstract = memory_estimate.abstract_mesh(plan.mesh)
    phase = (
        memory_plan.training_phase(plan, plan.trainings[0], abstract)
        if group == 'train'
        else memory_plan.logprob_phase(plan, plan.trainings[-1], abstract)
    )
    return compiler.programs[-1], phase.program


def row(name: str, program: CompiledProgram, estimate: int) -> str:
    """A line of the table."""
    cost = program.cost and program.cost.once
    moved = cost.collectives if cost else {}
    figures = [
        f'{program.temporaries / GIB:.3f}' + (' refused' if program.refused else ''),
        f'{program.host / GIB:.3f}',
        f'{program.total / GIB:.3f} ({estimate / program.total:.2f})',
        f'{cost.flops / 1e12:.3f}' if cost else '',
        f'{cost.kernels}' if cost else '',
        f'{cost.memory_bytes / 1e9:.2f}' if cost else '',
        *(f'{moved[k].received_bytes / 1e9:.3f}' if k in moved else '' for k in COLLECTIVES),
        f'{program.seconds:.0f}',
    ]
    return f'| {" | ".join([name, *figures])} |'


HEADER = (
    'variant', 'temporaries, GiB', 'host, GiB', 'all (estimate)', 'TFLOP', 'kernels', 'traffic, GB',
    *COLLECTIVES, 's',
)  # fmt: skip

if __name__ == '__main__':
    CONFIG = flags.DEFINE_string('config', None, 'A file of configs.', required=True)
    TOPOLOGY = flags.DEFINE_string('topology', 'v5e-8', 'The TPU.')
    LAYERS = flags.DEFINE_integer('layers', 0, 'Layers of the model; 0: those of the config.')
    GROUP = flags.DEFINE_enum('program', 'train', list(GROUPS), 'Which program.')
    SET = flags.DEFINE_string('set', '', 'Fields of all variants.')
    VARY = flags.DEFINE_multi_string('vary', [''], 'Fields of one variant.')

    def main(_):
        """Compiles the variants in order and prints a row of each as it is known."""
        variants = {text: parse_changes(SET.value) | parse_changes(text) for text in VARY.value}
        print(f'| {" | ".join(HEADER)} |\n{"|---" * len(HEADER)}|', flush=True)
        for text, changes in variants.items():
            settings = settings_of(CONFIG.value, changes, layers=LAYERS.value)
            program, estimate = compile_program(settings, TOPOLOGY.value, GROUP.value)
            print(row(text or 'as configured', program, estimate), flush=True)

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
