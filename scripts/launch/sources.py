"""Packs the sources for machines without this file system."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import pathlib
import re
import subprocess
import tarfile
from collections.abc import Iterator

from elenchus.scripts.launch.options import UsageError, nearest

HEAD, DIRTY = 'head', 'dirty'


@dataclasses.dataclass(frozen=True)
class Sources:
    """An archive of the sources.

    Attributes:
        path: The archive, .tar.gz.
        version: The commit; for a dirty tree COMMIT+HASH, with a hash of its files.
        names: Names of the files in the archive.
        warning: Which files are not shipped; empty if all are.
    """

    path: pathlib.Path
    version: str
    names: frozenset[str]
    warning: str


def _git(root: pathlib.Path, *words: str) -> str:
    try:
        process = subprocess.run(
            ['git', '-C', str(root), *words], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UsageError(f'cannot pack the sources: git cannot be run: {error.strerror}') from None
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ['git failed'])[-1]
        raise UsageError(
            f'cannot pack the sources: {reason}; launch from a clone of the repository'
        )
    return process.stdout


def _lines(text: str) -> list[str]:
    return [name for name in text.split('\0') if name]


def changed_files(root: pathlib.Path) -> list[str]:
    """Returns the files that differ from HEAD: changed, removed and new ones."""
    changed = _lines(_git(root, 'diff', '--name-only', '-z', '--no-renames', 'HEAD'))
    return sorted({*changed, *_lines(_git(root, 'ls-files', '-z', '-o', '--exclude-standard'))})


def read_version(root: pathlib.Path, *, tree: str) -> str:
    """Returns the version that `pack` would ship; '' if `root` is no clone."""
    try:
        commit = _git(root, 'rev-parse', 'HEAD').strip()[:12]
        if tree == DIRTY and changed_files(root):
            return f'{commit}+{_digest_files(root, _list_files(root))}'
    except (UsageError, OSError):
        return ''
    return commit


def pack_commit(root: pathlib.Path, folder: pathlib.Path, commit: str) -> Sources | None:
    """Writes the archive of a commit into a folder; returns None if the clone lacks the commit."""
    if not re.fullmatch('[0-9a-f]{7,40}', commit):
        return None  # the version of a dirty tree, or a word that git might read as an option
    try:
        return _archive(root, folder, commit)
    except UsageError:
        return None


def _archive(root: pathlib.Path, folder: pathlib.Path, commit: str) -> Sources:
    path = folder / f'elenchus-{commit}.tar.gz'
    _git(root, 'archive', '--format=tar.gz', f'--output={path}', commit, '--')
    names = _lines(_git(root, 'ls-tree', '-r', '-z', '--name-only', commit))
    return Sources(path, commit, frozenset(names), '')


def _list_files(root: pathlib.Path) -> list[str]:
    names = _lines(_git(root, 'ls-files', '-z', '-c', '-o', '--exclude-standard'))
    return sorted({name for name in names if os.path.lexists(root / name)})


def _digest_files(root: pathlib.Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b'\0' + _content(root / name) + b'\0')
    return digest.hexdigest()[:12]


def pack(root: pathlib.Path, folder: pathlib.Path, *, tree: str) -> Sources:
    """Writes the archive `elenchus-VERSION.tar.gz` into a folder.

    Args:
        root: The clone.
        folder: Where the archive goes.
        tree: 'head' for the last commit, 'dirty' for the files as they are, without ignored ones.

    Raises:
        UsageError: `root` is no clone, or a file cannot be read.
    """
    commit = _git(root, 'rev-parse', 'HEAD').strip()
    changed = changed_files(root)
    if tree == DIRTY and changed:
        names = _list_files(root)
        version = f'{commit[:12]}+{_digest_files(root, names)}'
        path = folder / f'elenchus-{version}.tar.gz'
        try:
            with gzip.open(path, 'wb') as file, tarfile.open(fileobj=file, mode='w') as archive:
                for name in names:
                    archive.add(root / name, arcname=name, recursive=False)
        except OSError as error:
            raise UsageError(f'cannot pack the sources into {path}: {error}') from None
        return Sources(path, version, frozenset(names), '')
    packed = _archive(root, folder, commit[:12])
    warning = ''
    if changed:
        few = ', '.join(changed[:3]) + (', ...' if len(changed) > 3 else '')
        warning = f'{len(changed)} changed or new files are not shipped ({few}); --tree=dirty does'
    return dataclasses.replace(packed, warning=warning)


def _content(path: pathlib.Path) -> bytes:
    return os.readlink(path).encode() if path.is_symlink() else path.read_bytes()


def check_config(run: tuple[str, ...], root: pathlib.Path, sources: Sources) -> None:
    """Checks that the config file of a run is shipped, before machines are paid for.

    An absolute path outside the clone is accepted: the hosts may share it.

    Raises:
        UsageError: There is none, or the archive lacks it; the text names the nearest.
    """
    values = list(_config_values(run))
    if not values:
        raise UsageError('--config=... is required among the arguments after --')
    for value in values:
        path = value.partition(':')[0]
        name = _name_of(path, root)
        if os.path.isabs(name) or name in sources.names:
            if os.path.isabs(path) and not os.path.isabs(name):
                raise UsageError(f'--config={value} is a path of this machine; nearest: {name}')
            continue
        configs = [n for n in sources.names if n.startswith('configs/')] or sources.names
        advice = f'; nearest: {nearest(name, sorted(configs))}'
        if (root / name).exists():
            advice = ' (it is not committed: commit it, or use --tree=dirty)'
        raise UsageError(f'--config={value} is not among the shipped files{advice}')


def _config_values(run: tuple[str, ...]) -> Iterator[str]:
    """Yields the values of --config or -config, also if the value is a separate word."""
    for i, word in enumerate(run):
        name, equals, value = word.partition('=')
        if name in ('--config', '-config') and (equals or i + 1 < len(run)):
            yield value if equals else run[i + 1]


def _name_of(path: str, root: pathlib.Path) -> str:
    """Returns the shipped name of a config, given by its path or module (`config_paths.py`)."""
    if not path.endswith('.py'):
        parts = path.removeprefix('elenchus.').removeprefix('configs.').split('.')
        path = f'configs/{"/".join(parts)}.py'
    path = os.path.normpath(path)
    for place in (root, root.resolve()):
        if path.startswith(f'{place}{os.sep}'):
            return os.path.relpath(path, place)
    return path
