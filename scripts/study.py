"""A study: runs that differ in some settings, each for several seeds, side by side.

python -m scripts.study --config configs/critics.py --workdir runs/critics

The stages named `shared` are run once a seed. A study that was stopped continues with the same
command. Writes study.json, study.md and study.png: each arm's critic, and what refinement wins.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from data import json_files, verify
from data.json_files import write_text
from sampling import curves
from scripts import command, plots
from scripts import run as whole
from scripts.workspace import Workspace, write_json
from train import settings

Figures = dict[str, dict[str, dict[str, Any]]]
"""Arm -> seed -> summary of its stage `evaluate`."""


def study(config: ml_collections.ConfigDict, workdir: pathlib.Path, verifier: verify.Verifier):
    """Runs every arm of every seed and writes the comparison after each."""
    figures: Figures = {arm: {} for arm in config.arms}
    for seed in config.seeds:
        home = workdir / f'seed{seed}'
        shared = arm_config(config, seed, {'stages': config.shared})
        with Workspace(shared, home / 'shared', verifier=verifier) as workspace:
            whole.run(workspace)
        for arm, changes in config.arms.items():
            print(f'=== seed {seed}, {arm}')
            folder = home / arm.replace(' ', '_')
            config_of_arm = arm_config(config, seed, changes)
            with Workspace(config_of_arm, folder, verifier=verifier) as workspace:
                for stage in config.shared:
                    link_stage(home / 'shared', workspace.stage_folder(stage))
                whole.run(workspace)
            told = (workspace.stage_folder('evaluate') / 'summary.json').read_text()
            figures[arm][str(seed)] = json.loads(told)
            compare(figures, workdir)


def arm_config(config, seed: int, changes) -> ml_collections.ConfigDict:
    """The run's config with an arm's changes. Raises ValueError where a change names no field."""
    made = config.run.copy_and_resolve_references().lock()
    try:
        made.update(changes)
    except (KeyError, AttributeError) as error:
        raise ValueError(f'config.arms: {error.args[0]}') from error
    made.seed = seed
    return made


def link_stage(source: pathlib.Path, folder: pathlib.Path) -> None:
    """A complete stage of another run, as hard links, whole or not at all; without its config."""
    if folder.exists() or not json_files.may_write():
        return
    beside = folder.with_name(f'{folder.name}.{os.getpid()}.writing')
    shutil.copytree(
        source / 'stages' / folder.name,
        beside,
        copy_function=os.link,
        ignore=shutil.ignore_patterns('config.json'),
    )
    beside.rename(folder)


ROWS = {
    'critic right, %': lambda s: 100 * s['critic']['discriminability'][0],
    'wrong found, %': lambda s: 100 * s['critic']['found'],
    'right passed, %': lambda s: 100 * s['critic']['passed'],
    'first error F1': lambda s: 100 * s['critic']['first_error_f1'],
    'attempt, %': lambda s: 100 * s['accuracy']['attempt']['all'][0],
    'refined, %': lambda s: 100 * s['accuracy']['refined']['all'][0],
    'gain': lambda s: 100 * s['difference']['refined-attempt']['all'][0],
    'oracle gain': lambda s: 100 * oracle_gain(s),
}


def oracle_gain(summary: dict) -> float:
    """What refinement wins where only wrong attempts are criticised."""
    best = summary['curves'][curves.ORACLE][0]['accuracy']['all'][0]
    return best - summary['accuracy']['attempt']['all'][0]


def compare(figures: Figures, workdir: pathlib.Path) -> None:
    """Writes the arms side by side: the mean over seeds, and their range in brackets."""
    table = {
        arm: {name: [read(s) for s in seeds.values()] for name, read in ROWS.items()}
        for arm, seeds in figures.items()
        if seeds
    }
    lines = [f'| arm | {" | ".join(ROWS)} |', '|---' * (1 + len(ROWS)) + '|']
    for arm, columns in table.items():
        cells = (
            f'{np.mean(v):.1f} [{min(v):.1f}, {max(v):.1f}]' if len(v) > 1 else f'{v[0]:.1f}'
            for v in columns.values()
        )
        lines.append(f'| {arm} | {" | ".join(cells)} |')
    write_json(workdir / 'study.json', {'arms': table, 'evaluate': figures})
    write_text(workdir / 'study.md', '\n'.join(lines) + '\n')
    plots.save_png(lambda: plots.gain_by_critic(table), workdir / 'study.png')
    print('\n'.join(lines))


if __name__ == '__main__':
    command.define_flags(stages=None)

    def main(argv):
        values = flags.FLAGS
        command.join_processes()
        with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
            study(values.config, pathlib.Path(values.workdir), verifier)

    settings.run_main(main)
