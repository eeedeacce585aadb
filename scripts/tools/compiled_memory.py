"""Prints the table of docs/scale.md: memory of compiled programs beside its estimate.

python -m scripts.tools.compiled_memory --rows=compiled.jsonl
python -m scripts.tools.compiled_memory --rows=compiled.jsonl --topologies=v5e-8,v5e-256

Compiles for TPUs that need not be present (libtpu). Each program takes minutes; finished ones are
kept in --rows, and the same command continues. Only the first training and the largest shapes of
sampling and scoring are compiled, unless --programs is another regular expression.
"""

import json
import pathlib
import runpy

from absl import app, flags

from elenchus.model.memory_estimate import GIB
from elenchus.train.config import build, cli
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import compiled_table, dry_run, machines

CONFIGS = (
    'qwen3_0p6b_gsm8k',
    'qwen2p5_math_1p5b_gsm8k',
    'gemma3_1b_lora',
    'llama3_8b_mathcritique',
)


def largest_programs(s: RunSettings) -> str:
    """Regular expression of a step of the actor's fit, and of the largest sampling and scoring."""
    e, score = s.sampling.engine, s.sampling.score
    shapes = (
        f'prefill {e.prefill_batch_sizes[-1]} x {e.prompt_buckets[-1]}',
        f'decode {e.num_slots} x {e.max_length}',
        f'scoring {score.rows} x {score.lengths[-1]}',
    )
    return '|'.join(['^actor.*train step', *(f'^{shape}$' for shape in shapes)])


def compile_rows(name: str, topology: str, *, only: str, path: pathlib.Path) -> None:
    """Appends a row for each compiled program of a config, unless the file has rows of it."""
    config = runpy.run_path(str(build.ROOT / 'configs' / 'released' / f'{name}.py'))
    s = build.build(RunSettings, config['get_config']())
    plan = dry_run.plan_for(s, machines.topology(topology))

    def keep(program) -> None:
        phase = compiled_table.phase_of(program.name, plan)
        row = {
            'config': name,
            'topology': topology,
            'program': program.name,
            'compiled': program.total,
            'estimate': phase and phase.program,
            'refused': program.refused,
            'seconds': program.seconds,
        }
        with open(path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')

    try:
        only = only or largest_programs(s)
        compiled_table.compile_run(s, topology, only=only, on_program=keep)
    except ValueError as error:  # a program that does not fit is a row as well
        print(f'{name} on {topology}: {error}')


def read_rows(path: pathlib.Path) -> list[dict]:
    """Reads the rows of compiled programs; [] if there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def table(rows: list[dict]) -> list[str]:
    """Markdown lines: memory of each program by the compiler, and the estimate."""
    lines = ['| config | machine | program | compiled, GiB | estimate | ratio |', '|---' * 6 + '|']
    for row in rows:
        if row['estimate'] is None:
            continue
        size = f'{row["compiled"] / GIB:.2f}' + (' (refused)' if row['refused'] else '')
        ratio = row['estimate'] / row['compiled']
        program = row['program'].split(',')[0] + ('…: train step' if ',' in row['program'] else '')
        cells = (row['config'], row['topology'], program, size)
        lines.append(
            f'| {" | ".join(cells)} | {row["estimate"] / GIB:.2f} | {ratio:.2f} |'
        )  # fmt: skip
    return lines


if __name__ == '__main__':
    CONFIG_NAMES = flags.DEFINE_list('configs', CONFIGS, 'Configs of configs/released.')
    TOPOLOGIES = flags.DEFINE_list('topologies', ['v5e-8', 'v5e-64', 'v5e-256', 'v5p-128'], 'TPUs.')
    PROGRAMS = flags.DEFINE_string('programs', '', "Regular expression; '': the largest programs.")
    ROWS = flags.DEFINE_string('rows', None, 'JSONL file of compiled programs.', required=True)

    def main(_):
        """Compiles what the file of rows lacks, then prints the table."""
        path = pathlib.Path(ROWS.value)
        finished = {(row['config'], row['topology']) for row in read_rows(path)}
        for name in CONFIG_NAMES.value:
            for topology in TOPOLOGIES.value:
                if (name, topology) not in finished:
                    compile_rows(name, topology, only=PROGRAMS.value, path=path)
        print('\n'.join(table(read_rows(path))))

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
