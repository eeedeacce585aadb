"""Entry of all launchers; needs Python 3.9 or newer, and nothing installed.

python3 scripts/launch/__main__.py codes           prints the table of exit codes
python3 scripts/launch/__main__.py run WORKDIR     prints what a run says of itself
python3 scripts/launch/__main__.py tpu ...         what scripts/launch/tpu.sh runs
"""

from __future__ import annotations

import importlib
import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLOUDS = ('tpu', 'gke', 'ssh')


def find_own_package() -> None:
    """Lets `elenchus` mean this clone: before an installation there is no package of that name."""
    package = types.ModuleType('elenchus')
    package.__path__ = [str(ROOT)]
    sys.modules['elenchus'] = package


def main(arguments: list[str]) -> int:
    """Runs a launcher; returns its exit code."""
    find_own_package()
    commands = importlib.import_module('elenchus.scripts.launch.commands')
    try:
        return run(arguments, commands)
    except commands.CloudError as error:
        commands.complain(str(error))
        return 1


def run(arguments: list[str], commands: types.ModuleType) -> int:
    """Runs what the command line names."""
    name, rest = (arguments or [''])[0], arguments[1:]
    if name == 'codes':
        table = importlib.import_module('elenchus.scripts.launch.exit_codes').print_table()
        commands.show(table)
        return 0
    if name == 'run' and len(rest) == 1:
        return importlib.import_module('elenchus.scripts.launch.run_status').main(rest[0])
    if name not in CLOUDS:
        commands.complain(f'unknown launcher {name!r}; use one of {", ".join(CLOUDS)}')
        return 2
    return importlib.import_module(f'elenchus.scripts.launch.{name}').main(rest)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
