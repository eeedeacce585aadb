"""What gcloud is told when a slice is requested."""

from __future__ import annotations

import math
import pathlib
import typing

from elenchus.scripts.launch import remote
from elenchus.scripts.launch.commands import Commands
from elenchus.scripts.launch.launched_run import ROOT
from elenchus.scripts.launch.ledger import Ledger

FLEX_START_SECONDS = 7 * 24 * 3600
"""Longest time of a slice of Flex-start: cloud.google.com/tpu/docs/request-using-flex-start."""

QUICK = 300.0
"""Seconds after which a short command counts as lost."""


def flags_of(flags: typing.Any, seconds: float) -> list[str]:
    """Returns flags of gcloud for those of tpu.sh; `seconds` is what the slice may be billed."""
    texts = ('service_account', 'network', 'subnetwork', 'labels', 'metadata')
    more = [
        f'--{name.replace("_", "-")}={getattr(flags, name)}'
        for name in (*texts, 'valid_until_duration')
        if getattr(flags, name)
    ]
    switches = ('spot', 'reserved', 'internal_ips')
    more += [f'--{name.replace("_", "-")}' for name in switches if getattr(flags, name)]
    if flags.valid_until_duration:
        # SDK 528, queued_resources/util.py, SetValidInterval: an end alone is dropped.
        more.append('--valid-after-duration=1s')
    if flags.flex_start:
        longest = min(math.ceil(seconds), FLEX_START_SECONDS)
        more += ['--provisioning-model=flex-start', f'--max-run-duration={longest}s']
    return more


def write_guard(path: pathlib.Path, *, settings: dict[str, str], budget: float) -> str:
    """Writes the startup script of the hosts (`guard.sh`); returns gcloud's flag for it."""
    words = [f'{name}={remote.quote([text])}' for name, text in settings.items()]
    text = (ROOT / 'scripts' / 'launch' / 'guard.sh').read_text(encoding='utf-8')
    head = f'#!/usr/bin/env bash\n{" ".join(words)} BUDGET={math.ceil(budget)}\n'
    path.write_text(head + text, encoding='utf-8')
    return f'--metadata-from-file=startup-script={path}'


def default_project(commands: Commands) -> str:
    """Returns the project of gcloud's configuration, '' if it has none."""
    words = ['gcloud', 'config', 'get', 'project']
    return commands.run(words, patience=QUICK).output.strip()


def project_of_ledger(flags: typing.Any, commands: Commands) -> str:
    """Returns the project under which the ledger has a launch, '' for one that began without.

    A launch that goes on has one ledger, and so one bill, whether a later command names its project
    or leaves it to gcloud's configuration.
    """
    own, unnamed = (Ledger('tpu', p, flags.zone, flags.name) for p in (flags.project, ''))
    if own.is_live() or not own.has_others():
        return flags.project
    if flags.project:
        return '' if unnamed.is_live() and unnamed.read().place == flags.project else flags.project
    project = default_project(commands)
    return project if Ledger('tpu', project, flags.zone, flags.name).is_live() else ''
