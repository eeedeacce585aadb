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


def fetch(flags: typing.Any, commands: Commands) -> None:
    """Copies the results from the bucket."""
    options.require(flags, 'workdir')
    if not commands.dry_run:
        try:
            pathlib.Path(flags.into).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=flags.into):
                pass
        except (OSError, ValueError) as error:
            raise UsageError(
                f'--into={flags.into} must be a folder that can be written: {error}; '
                'default: runs/fetched'
            ) from None
    words = ['gcloud', 'storage', 'rsync', '--recursive']
    if not flags.everything:
        words.append(f'--exclude=.*({"|".join(HEAVY.values())}).*')
    commands.check([*words, flags.workdir, flags.into])


def push(flags: typing.Any, commands: Commands) -> None:
    """Copies local inputs to the bucket."""
    options.require(flags, 'inputs', 'to')
    path = pathlib.Path(flags.inputs)
    if not os.path.exists(path):  # False for a name that is too long, too
        raise UsageError(f'file not found: --inputs={flags.inputs}')
    if not flags.to.startswith('gs://'):
        raise UsageError(f'--to={flags.to} must be in a bucket: gs://BUCKET/FOLDER')
    to = flags.to.rstrip('/')
    if path.is_dir():
        commands.check(['gcloud', 'storage', 'rsync', '--recursive', str(path), to])
    else:
        commands.check(['gcloud', 'storage', 'cp', str(path), f'{to}/{path.name}'])
    show(f'{to}/{"" if path.is_dir() else path.name}')
