"""Finds and reads the files of a run, also while it is running, and in a bucket."""

import itertools
from typing import Any

from etils import epath

from elenchus.data.files import jsonl
from elenchus.data.text.printable import printable_json
from elenchus.train.config.build import nearest
from elenchus.train.metrics import writers

Stages = dict[str, dict[str, Any]]
"""Stage -> its summary."""


def check_workdir(workdir: epath.Path) -> None:
    """Raises ValueError, naming the nearest one, if the folder of a run does not exist."""
    if not workdir.is_dir():
        beside = workdir.parent.iterdir() if workdir.parent.is_dir() else ()
        folders = [str(path) for path in beside if path.is_dir()]
        close = nearest(str(workdir), folders) if folders else workdir.parent
        raise ValueError(f'--workdir={workdir}: folder not found; nearest: {close}')


def load_stages(workdir: epath.Path) -> Stages:
    """Summaries of all stages in order; that of an unfinished stage is empty."""
    stages = {path.name: {} for path in workdir.glob('stages/*') if path.is_dir()}
    for path in workdir.glob('stages/*/summary.json'):
        stages[path.parent.name] = jsonl.read_object(path)
    if (workdir / 'summary.json').exists():
        stages |= jsonl.read_object(workdir / 'summary.json').get('stages', {})
    return dict(sorted(printable_json(stages).items()))


def metrics_files(stage: epath.Path) -> list[epath.Path]:
    """Returns the files of metrics of a stage; one with several fits has some in its folders."""
    files = (stage.glob(depth + writers.METRICS) for depth in ('', '*/', '*/*/'))
    return sorted(itertools.chain(*files))
