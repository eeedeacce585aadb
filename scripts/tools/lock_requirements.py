"""Writes the lock files: requirements.lock and one for each extra in scripts/locks/.

python -m scripts.tools.lock_requirements             pins that still fit stay as they are
python -m scripts.tools.lock_requirements --upgrade   takes the newest versions

Every pin has the SHA-256 of each of its files, and scripts/setup.sh installs nothing else
(`pip install --require-hashes`). requirements.lock is what a run needs; the lock of an extra has
only what it adds, at versions that agree. No file names a package index. Needs `uv`.
"""

import pathlib
import re
import subprocess
import tempfile

from absl import app, flags

from elenchus.train.config.build import ROOT

EXTRAS = ('tpu', 'cuda12', 'cuda13', 'gcs', 'test')
"""Extras of pyproject.toml that have a lock file."""

BUILD = {'build': 'setuptools>=77\n', 'uv': 'uv\n'}
"""Lock file -> its requirements: the build backend of the clone and of source packages, and uv."""

UPGRADE = flags.DEFINE_bool('upgrade', False, 'Take the newest versions instead of the pins.')


def main(argv):
    """Writes every lock file."""
    del argv
    folder = ROOT / 'scripts' / 'locks'
    folder.mkdir(exist_ok=True)
    core_file = ROOT / 'requirements.lock'
    core = compile_lock('pyproject.toml', keep=[core_file])
    core_file.write_text(''.join(core.values()), encoding='utf-8')
    for extra in EXTRAS:
        path = folder / f'{extra}.lock'
        pins = compile_lock('pyproject.toml', '--extra', extra, keep=[core_file, path])
        added = {name: text for name, text in pins.items() if name not in core}
        if any(_version(pins[name]) != _version(text) for name, text in core.items()):
            raise ValueError(f'extra {extra!r} needs other versions than requirements.lock has')
        path.write_text(''.join(added.values()), encoding='utf-8')
    for name, requirement in BUILD.items():
        path = folder / f'{name}.lock'
        with tempfile.NamedTemporaryFile('w', suffix='.in', encoding='utf-8') as file:
            file.write(requirement)
            file.flush()
            pins = compile_lock(file.name, keep=[path])
        path.write_text(''.join(pins.values()), encoding='utf-8')


def _version(pin: str) -> str:
    """Returns name==version of a pin; its platforms may differ from extra to extra."""
    return pin.split()[0]


def compile_lock(*source: str, keep: list[pathlib.Path]) -> dict[str, str]:
    """Returns pins by package name, each with its hashes, as `uv pip compile` resolves them.

    Pins of the files in `keep` that exist hold, unless --upgrade is set and uv finds newer ones;
    those of requirements.lock hold for every extra.
    """
    pins = [f for f in keep if f.exists() and not (UPGRADE.value and f == keep[-1])]
    with tempfile.TemporaryDirectory() as folder:
        constraints = pathlib.Path(folder) / 'constraints.txt'
        lines = [line for f in pins for line in read_pins(f.read_text(encoding='utf-8'))]
        constraints.write_text('\n'.join(lines), encoding='utf-8')
        command = [
            *('uv', 'pip', 'compile', *source, '--universal', '--python-version', '3.11'),
            *('--generate-hashes', '--no-annotate', '--no-header', '--no-emit-index-url'),
            *('--constraints', str(constraints)),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'uv failed: {done.stderr.strip()[-500:]}')
    return split_pins(done.stdout)


def split_pins(text: str) -> dict[str, str]:
    """Returns name -> its lines of a lock file, the continued lines with hashes included."""
    entries = re.findall(r'^(?=[A-Za-z0-9])(?:[^\n]*\\\n)*[^\n]*\n', text, re.MULTILINE)
    return {normal_name(entry.partition('==')[0]): entry for entry in entries}


def read_pins(text: str) -> list[str]:
    """Returns the lines `name==version`, with their markers and without hashes."""
    return [entry.partition('\\')[0].strip() for entry in split_pins(text).values()]


def normal_name(name: str) -> str:
    """Returns a package's name as indexes normalise it: lower case, with single hyphens."""
    return re.sub(r'[-_.]+', '-', name.strip().lower())


if __name__ == '__main__':
    app.run(main)
