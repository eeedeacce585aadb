"""Exports a stage's model as full weights: its adapters summed into their base, nothing quantized.

python -m scripts.merge --config configs/lab.py --workdir runs/lab --stage actor --out runs/actor
"""

import pathlib

from absl import flags

from elenchus.model import lora
from elenchus.train.config import cli
from elenchus.train.run import runner
from elenchus.train.run.session import Run
from elenchus.train.stages import STAGES


def merge(run: Run, stage: str, out: pathlib.Path) -> pathlib.Path:
    """The folder `out`/model, which holds a whole model; of one without adapters a copy."""
    run.store.save(out / 'model', lora.merge(run.load_model(stage)))
    return out / 'model'


if __name__ == '__main__':
    cli.define_flags(stages=STAGES)
    flags.DEFINE_string('out', None, 'Folder that model/ is written into.', required=True)

    def main(argv):
        with runner.run_of_flags() as run:
            print(merge(run, flags.FLAGS.stage, pathlib.Path(flags.FLAGS.out)))

    cli.run_main(main)
