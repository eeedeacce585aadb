"""The table of published systems, from docs/methods/systems.tsv and the files of the methods."""

import ast
import csv
import importlib
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from elenchus.data.files import atomic
from elenchus.train.config import build
from elenchus.train.config.functions import functions_of
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.report import method_effects

ROOT = pathlib.Path(__file__).parents[2]
SYSTEMS = ROOT / 'docs/methods/systems.tsv'
INDEX = ROOT / 'docs/methods/index.md'
KINDS = {
    'method': ('Methods', 'methods'),
    'evaluation': ('Evaluations', 'evaluations'),
    'critique': ('Critique and its training', 'methods'),
    'neighbour': ('Neighbouring vision and agent systems, text cores', 'methods'),
    'algorithm': ('Algorithms of reinforcement learning beside the presets', 'methods'),
}
"""Kind of a system -> its heading, and its folder in configs/."""


class System(NamedTuple):
    """A published system, and its file here: '' if there is none yet."""

    kind: str
    name: str
    file: str

    @property
    def module(self) -> str:
        """The file as a module below `elenchus`."""
        return f'configs.{KINDS[self.kind][1]}.{self.file}'


def systems() -> list[System]:
    """Returns all systems that this project is to express. Raises ValueError for a wrong row."""
    with SYSTEMS.open(encoding='utf-8', newline='') as file:
        header, *rows = csv.reader(file, delimiter='\t')
    if header != list(System._fields):
        raise ValueError(f'{SYSTEMS}: the columns must be {System._fields}, not {header}')
    return [System(*row) for row in rows]


def write_index(path: pathlib.Path) -> pathlib.Path:
    """Writes the table, and returns its path."""
    atomic.write_text(path, index(systems()))
    return path


def index(rows: Sequence[System]) -> str:
    """Returns the table as Markdown."""
    lines = [
        '# Published systems',
        '',
        'Written by `python -m scripts.methods`. Each file runs by itself: `python -m scripts.run',
        '--config configs/methods/empo.py --workdir runs/empo`, also as `:smoke`, or on another',
        'config (`:gsm8k`, `:qwen3_0p6b_gsm8k`). Each has a case in tests/methods: a worked',
        'example of the formula, and what the method must and must not change. Its effect is its',
        'arm less its control on the lab, with a 95 % interval over seeds from three on:',
        '`configs/studies/methods.py` has the arms; `effects.json` beside this file, once they',
        'ran, the seeds, p-values, commands and commits.',
    ]
    effects = method_effects.read_effects(method_effects.EFFECTS)
    for kind, (heading, _) in KINDS.items():
        of_kind = [row for row in rows if row.kind == kind]
        lines += ['', *_section(heading, of_kind, None if kind == 'evaluation' else effects)]
    return '\n'.join(lines) + '\n'


def _section(
    heading: str, rows: Sequence[System], effects: Sequence[method_effects.Row] | None
) -> Iterator[str]:
    """Lines of the systems of a kind; with `effects` also a column of them."""
    done = [row for row in rows if row.file]
    yield f'## {heading}: {len(done)} of {len(rows)}'
    names = ('system', 'file', 'functions', 'differs', 'source')
    if effects is not None:
        names = (*names, 'effect')
    if done:
        yield from ('', f'| {" | ".join(names)} |', '|---' * len(names) + '|')
    for row in done:
        cells = (row.name, _link(row), _functions(row), *_parts(row))
        if effects is not None:
            cells = (*cells, method_effects.describe(effects, row.file))
        yield f'| {" | ".join(cell.replace("|", "&#124;") for cell in cells)} |'
    missing = [row.name for row in rows if not row.file]
    if missing:
        yield from ('', f'Not yet: {"; ".join(missing)}.')


def _link(row: System) -> str:
    path = row.module.replace('.', '/') + '.py'
    return f'[{row.file}](../../{path})'


def _functions(row: System) -> str:
    """The fields that name functions of the file; '-' if it is settings alone."""
    config = importlib.import_module(f'elenchus.{row.module}').get_config('default')
    named = functions_of(build.build(RunSettings, config))
    return ', '.join(f'`{f.field}`: {f.function.__name__}' for f in named) or '-'


def _parts(row: System) -> tuple[str, str]:
    """What the file's docstring says after 'Differs:' and 'Source:'."""
    text = (ROOT / f'{row.module.replace(".", "/")}.py').read_text(encoding='utf-8')
    docstring = ast.get_docstring(ast.parse(text)) or ''
    parts = dict(
        re.findall(r'^(Differs|Source): (.*?)(?=\n\n|\n[A-Z]\w+: |\Z)', docstring, re.M | re.S)
    )
    return tuple(' '.join(parts.get(name, '').split()) for name in ('Differs', 'Source'))
