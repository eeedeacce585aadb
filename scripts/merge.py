"""Exports a stage's model as full weights: its adapters summed into their base, nothing quantized.

python -m scripts.merge --config configs/lab.py --workdir runs/lab --stage actor --out runs/actor
"""

import pathlib

from absl import flags

from model import lora
from scripts import command, run
from scripts.workspace import Workspace
from train import settings


def merge(workspace: Workspace, stage: str, out: pathlib.Path) -> pathlib.Path:
    """The folder `out`/model, which holds a whole model; of one without adapters a copy."""
    workspace.save_model(out, lora.merge(workspace.load_model(stage)))
    return out / 'model'


if __name__ == '__main__':
    command.define_flags(stages=run.STAGES)
    flags.DEFINE_string('out', None, 'Folder that model/ is written into.', required=True)

    def main(argv):
        with command.open_workspace() as workspace:
            print(merge(workspace, flags.FLAGS.stage, pathlib.Path(flags.FLAGS.out)))

    settings.run_main(main)
