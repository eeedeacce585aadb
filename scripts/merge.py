"""Exports a stage's model with full weights: adapters are merged into an unquantized base.

python -m scripts.merge --config configs/lab.py --workdir runs/lab --stage actor --out runs/actor
"""

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help, define_flags

if __name__ == '__main__':  # the imports below take seconds
    define_flags(has_stage=True)
    flags.DEFINE_string('out', None, 'Folder for model/, the merged model.', required=True)
    answer_help(sys.argv)

from etils import epath

from elenchus.model import lora
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, cli
from elenchus.train.run import runner
from elenchus.train.stages import STAGES


def main(_):
    """Writes the merged model of --stage to OUT/model; a model without adapters is copied.

    Raises ValueError if OUT/model has files.
    """
    out = saved_models.empty_folder(epath.Path(flags.FLAGS.out) / 'model')
    name = build.one_of(tuple(STAGES), flags.FLAGS.stage, '--stage')
    with runner.run_of_flags() as run:
        run.store.save(out, lora.merge(run.load_model(name)))
    print(out)


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
