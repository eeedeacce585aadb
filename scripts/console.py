"""The command `elenchus`: `elenchus run ...` is `python -m elenchus.scripts.run ...`.

`elenchus --help` lists the commands, `elenchus COMMAND --help` explains one.
"""

import ast
import difflib
import importlib.metadata
import pathlib
import runpy
import signal
import sys
from collections.abc import Sequence

FOLDER = pathlib.Path(__file__).parent
FIRST = ('run', 'evaluate', 'judge', 'chat', 'report', 'convert')
"""Commands that are listed first."""
NO_COMMANDS = ('__init__', 'console', 'methods')
"""Files of the folder that are none; `methods` writes into the documents of a clone."""
USAGE = """usage: elenchus COMMAND [--flag=value ...]

{commands}

tools, as `elenchus tools NAME`:
{tools}

`elenchus COMMAND --help` explains one. Configs are named by path or module: --config=lab:smoke."""
HELP = ('--help', '-help', '-h')


def commands() -> dict[str, pathlib.Path]:
    """Returns the source of each command; those of `tools` are named `tools NAME`."""
    files = {path.stem: path for path in sorted(FOLDER.glob('*.py'))}
    files |= {path.parent.name: path for path in sorted(FOLDER.glob('*/__main__.py'))}
    del files['launch']  # its launchers are shell scripts of a clone
    named = [n for n in FIRST if n in files] + [n for n in files if n not in FIRST]
    tools = {f'tools {p.stem}': p for p in sorted(FOLDER.glob('tools/*.py')) if p.stem[0] != '_'}
    return {name: files[name] for name in named if name not in NO_COMMANDS} | tools


def main() -> int:
    """Runs the command that the arguments name; returns the exit code."""
    words = sys.argv[1:]
    if not words or words[0] in HELP:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` reads a part of it
        print(usage())
        return 0 if words else 2
    if words[0] == '--version':
        print('elenchus', importlib.metadata.version('elenchus'))
        return 0
    count = 2 if words[0] == 'tools' else 1
    name, rest = ' '.join(words[:count]), words[count:]
    path = commands().get(name)
    if path is None:
        near = difflib.get_close_matches(name, commands(), n=1, cutoff=0.0)[0]
        print(f'error: unknown command {name!r}; did you mean {near!r}?', file=sys.stderr)
        return 2
    run(path, rest)
    return 0


def usage() -> str:
    """Returns the list of commands, each with the first sentence of its docstring."""
    rows = {name: summary(path) for name, path in commands().items()}
    tools = {n.removeprefix('tools '): text for n, text in rows.items() if n.startswith('tools ')}
    own = {n: text for n, text in rows.items() if not n.startswith('tools ')}
    return USAGE.format(commands=_table(own), tools=_table(tools))


def summary(path: pathlib.Path) -> str:
    """Returns the first sentence of a file's docstring, without importing it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    first = ' '.join(text.partition('\n\n')[0].split())
    return first.partition(': ')[0].removesuffix('.')


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return '\n'.join(f'  {name:{width}}  {text}' for name, text in rows.items())


def run(path: pathlib.Path, arguments: Sequence[str]) -> None:
    """Runs a command as `python -m` does."""
    parts = path.relative_to(FOLDER).with_suffix('').parts
    sys.argv[1:] = arguments
    module = '.'.join(('elenchus', 'scripts', *parts)).removesuffix('.__main__')
    runpy.run_module(module, run_name='__main__', alter_sys=True)


if __name__ == '__main__':
    sys.exit(main())
