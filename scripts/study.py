"""Runs a study: several runs that differ in some settings, each for several seeds, side by side.

python -m scripts.study --config configs/studies/critics.py --workdir runs/critics

Checks all arms first, then runs them in the order of the config. The stages in `shared` run once a
seed. The same command continues a stopped study. The config's `comparison` selects the columns and
panels of the comparison, which is written to study.json, study.md and study.png.
"""

from elenchus.train.early_signals import end_at_signals

if __name__ == '__main__':  # all imports below take seconds
    end_at_signals()

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help, define_flags

if __name__ == '__main__':  # the imports behind it do
    define_flags()
    answer_help(sys.argv)

from elenchus.data.grading import verify
from elenchus.train.config import cli
from elenchus.train.failures import FailuresReachAll
from elenchus.train.run.study_runner import run_study

if __name__ == '__main__':

    def main(_):
        """Runs the study that the flags name."""
        values = flags.FLAGS
        workdir = cli.checked_workdir(values.workdir, of='study')
        cli.join_processes()
        with FailuresReachAll(), verify.Verifier() as verifier:
            run_study(values.config, workdir, verifier)

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
