"""Copies inputs to the bucket and results from it."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing

from elenchus.scripts.launch import options
from elenchus.scripts.launch.commands import Commands, show
from elenchus.scripts.launch.options import UsageError

HEAVY = {'checkpoints': r'checkpoints(/|$)', 'models': r'/model(/|$)', 'episodes': r'episodes(/|$)'}


FROM = '.fetched_from'
"""File in a folder of results: the work directory that they are of."""


def fetch(flags: typing.Any, commands: Commands) -> None:
    """Copies the results from the bucket.

    Raises:
        UsageError: The folder cannot be written, or has the results of another run.
    """
    options.require(flags, 'workdir')
    _check_bucket('workdir', flags.workdir, 'rsync copies from a disk that hosts share')
    workdir = flags.workdir.rstrip('/')
    if not commands.dry_run:
        try:
            pathlib.Path(flags.into).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=flags.into):
                pass
            _check_origin(pathlib.Path(flags.into), workdir)
        except (OSError, ValueError) as error:
            raise UsageError(
                f'--into={flags.into} must be a folder that can be written: {error}; '
                'default: runs/fetched'
            ) from None
    words = ['gcloud', 'storage', 'rsync', '--recursive']
    if not flags.everything:
        words.append(f'--exclude=.*({"|".join(HEAVY.values())}).*')
    commands.check([*words, flags.workdir, flags.into])
    if not commands.dry_run:
        (pathlib.Path(flags.into) / FROM).write_text(f'{workdir}\n', encoding='utf-8')


def _check_origin(into: pathlib.Path, workdir: str) -> None:
    """Checks that a folder has no results of another run: stages of both would be mixed."""
    mark = into / FROM
    before = mark.read_text(encoding='utf-8').strip() if mark.exists() else workdir
    if before != workdir:
        raise UsageError(
            f'--into={into} has the results of {before}; nearest: '
            f'{into.parent / pathlib.PurePosixPath(workdir).name}'
        )


def _check_bucket(flag: str, value: str, hint: str = '') -> None:
    if not value.startswith('gs://') or not value[len('gs://') :].strip('/'):
        raise UsageError(
            f'--{flag}={value} must be in a bucket: gs://BUCKET/FOLDER' + (hint and f'; {hint}')
        )


def push(flags: typing.Any, commands: Commands) -> None:
    """Copies local inputs to the bucket."""
    options.require(flags, 'inputs', 'to')
    path = pathlib.Path(flags.inputs)
    if not os.path.exists(path):  # False for a name that is too long, too
        raise UsageError(f'file not found: --inputs={flags.inputs}')
    _check_bucket('to', flags.to)
    to = flags.to.rstrip('/')
    if path.is_dir():
        commands.check(['gcloud', 'storage', 'rsync', '--recursive', str(path), to])
    else:
        commands.check(['gcloud', 'storage', 'cp', str(path), f'{to}/{path.name}'])
    show(f'{to}/{"" if path.is_dir() else path.name}')
