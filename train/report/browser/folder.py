"""Writes the folder of the episode browser of a run, or of two runs to compare."""

import itertools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from elenchus.data.files import atomic, jsonl
from elenchus.data.text.printable import printable, printable_json
from elenchus.train.config import build
from elenchus.train.report import html_page, run_files
from elenchus.train.report.browser import chunks, health, index
from elenchus.train.report.browser.chunks import ChunkWriter
from elenchus.train.run import provenance

PAGE = pathlib.Path(__file__).with_name('page')
FIRST_FILE = 'index.html'
SUMMARY = 'summary.html'
COSTS = ('seconds', 'tokens_sampled', 'tokens_trained')


def write_browser(
    workdir: str | os.PathLike, out: str | os.PathLike, *, other: str | os.PathLike | None = None
) -> epath.Path:
    """Writes the browser of a run into a folder and returns the page's path.

    workdir: of the run; it is only read. out: a new folder, or one of an earlier call. other: the
    work directory of a run to compare it with.

    Raises ValueError if a work directory does not exist, or if `out` has files of another kind.
    """
    out = epath.Path(out)
    runs = {'a': epath.Path(workdir)} | ({'b': epath.Path(other)} if other else {})
    for path in runs.values():
        run_files.check_workdir(path)
    check_out(out)
    names, configs = set(), {}
    for key, path in runs.items():
        writer = ChunkWriter(out / 'data', key=key)
        configs[key] = read_config(path)
        episodes = index.write_episodes(path, writer, configs[key])
        writer.write('run', describe_run(path, configs[key]) | episodes)
        names |= writer.names
    shared = ChunkWriter(out / 'data', key='all')
    shared.write('setup', {'runs': list(runs), 'differences': differences(configs)})
    chunks.delete_others(out / 'data', names | shared.names)
    atomic.write_text(out / SUMMARY, html_page.make_page(runs['a'])[0])
    for path in sorted(PAGE.iterdir()):  # index.html is not the first: a page needs its scripts
        if path.name != FIRST_FILE:
            atomic.write_bytes(out / path.name, path.read_bytes())
    atomic.write_bytes(out / FIRST_FILE, (PAGE / FIRST_FILE).read_bytes())
    return out / FIRST_FILE


def check_out(out: epath.Path) -> None:
    """Raises ValueError if a folder has files and none of them is of an earlier browser."""
    if out.is_file():
        raise ValueError(f'--out={out} is a file; use a folder')
    ours = itertools.chain(out.glob('data/a-index.js'), out.glob('data/a-text-0000.js'))
    if out.exists() and any(out.iterdir()) and not any(ours):
        raise ValueError(f'--out={out} has other files; use a new folder such as {out / "browser"}')


def describe_run(workdir: epath.Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where a run came from, what it cost, and how healthy it was."""
    stages = run_files.load_stages(workdir)
    return {
        'name': printable(workdir.resolve().name),
        'config': printable_json(config),
        'config_hash': build.config_hash(config) if config else None,
        'seed': config.get('seed'),
        'starts': _starts(workdir),
        'costs': [{'stage': n} | {c: s.get(c) for c in COSTS} for n, s in stages.items()],
        'accuracy': {n: _accuracy(s) for n, s in stages.items() if s.get('accuracy')},
        'checks': health.describe_checks(),
        'series': health.read_series(workdir),
        'verifier': health.read_verifier(workdir),
    }


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    """Returns (field, value of the first run, value of the second) of every setting that differs.

    A field that one of the two lacks is None there.
    """
    if len(configs) < 2:
        return []
    first, second = (printable_json(build.flat(config)) for config in configs.values())
    names = sorted(first.keys() | second.keys())
    return [[n, first.get(n), second.get(n)] for n in names if first.get(n) != second.get(n)]


def read_config(workdir: epath.Path) -> dict[str, Any]:
    """Returns the config of a run as plain JSON; {} if none is stored."""
    path = workdir / 'config.json'
    return jsonl.read_object(path) if path.exists() else {}


def _starts(workdir: epath.Path) -> list[dict[str, Any]]:
    """Where each stage was started: commit, versions, devices and, where stored, the command."""
    return [
        {'stage': printable(path.parent.name)} | printable_json(start)
        for path in sorted(workdir.glob(f'stages/*/{provenance.PROVENANCE}'))
        for start in jsonl.read_object(path).get('starts', [])
    ]


def _accuracy(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {arm: levels.get('all') for arm, levels in summary['accuracy'].items()}
