"""Records the code, packages and devices that ran a stage, in provenance.json in its folder.

A new entry is added whenever the run continues under others. These may change results although the
config is the same, so the change is printed on stderr.
"""

import functools
import hashlib
import importlib.metadata
import platform
import shlex
import socket
import subprocess
import sys
import time
from typing import Any

import jax

from elenchus.train import distributed
from elenchus.train.config.build import ROOT
from elenchus.train.run.directory import StageFolder, read_json

PROVENANCE = 'provenance.json'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
WITHOUT_WARNING = {'time', 'host', 'command'}  # a run may move to another host


def describe() -> dict[str, Any]:
    """Returns commit, hashes of code and lock file, versions, devices, host and command.

    What is unknown is None: a copy without git, or an installed package, has no commit.
    """
    commit, dirty = _commit()
    devices = jax.devices()
    return {
        'time': time.strftime('%Y-%m-%d %H:%M:%S'),
        'commit': commit,
        'dirty': dirty,
        'code': code_hash(),
        'lock': _hash_of('requirements.lock'),
        'python': platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        'devices': f'{len(devices)} x {devices[0].device_kind}',
        'processes': jax.process_count(),
        'host': socket.gethostname(),
        'command': shlex.join(sys.argv),
    }


def record(stage: StageFolder) -> None:
    """Adds what runs now to the provenance of a stage, and warns of what has changed."""

    def write() -> None:
        path, now = stage.path / PROVENANCE, describe()
        starts = read_json(path)['starts'] if path.exists() else []
        changed = changes(starts[-1], now) if starts else ''
        if changed:
            print(f'warning: stage {stage.name!r} continues with {changed}', file=sys.stderr)
        if not starts or changed:
            stage.write_json(PROVENANCE, {'starts': [*starts, now]})

    distributed.run_on_first(write)


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Returns 'jax 0.10.2, before 0.10.1; ...'; empty if nothing that matters differs."""
    names = [name for name in now if name not in WITHOUT_WARNING]
    return '; '.join(
        f'{name} {now[name]}, before {before.get(name)}'
        for name in names
        if now[name] != before.get(name)
    )


@functools.cache
def code_hash() -> str:
    """Returns sixteen hexadecimal digits that change with any line of the packages' code."""
    digest = hashlib.sha256()
    for package in ('configs', 'data', 'model', 'sampling', 'scripts', 'train'):
        for path in sorted((ROOT / package).rglob('*.py')):
            digest.update(f'{path.relative_to(ROOT)}\0'.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _commit() -> tuple[str | None, bool | None]:
    """Returns (commit, whether files differ from it) of the clone, or of an archive of one."""
    if (ROOT / '.git').exists():
        head, status = _git('rev-parse', 'HEAD'), _git('status', '--porcelain')
        return head, None if status is None else bool(status)
    # `git archive`, which the launchers use, writes the commit into this file.
    file = ROOT / 'COMMIT'
    text = file.read_text().strip() if file.exists() else '$'
    return (None, None) if text.startswith('$') else (text, None)


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ['git', '-C', str(ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _hash_of(name: str) -> str | None:
    path = ROOT / name
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
