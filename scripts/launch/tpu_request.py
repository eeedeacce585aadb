"""What gcloud is told when a slice is requested."""

from __future__ import annotations

import math
import pathlib
import typing

from elenchus.scripts.launch import remote
from elenchus.scripts.launch.launched_run import ROOT

FLEX_START_SECONDS = 7 * 24 * 3600
"""Longest time of a slice of Flex-start: cloud.google.com/tpu/docs/request-using-flex-start."""


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
