"""One stage of a run; the stages it reads must be complete in the same work directory.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage actor
"""

from elenchus.train.early_signals import end_at_signals

if __name__ == '__main__':  # all imports below take seconds
    end_at_signals()

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help, define_flags

if __name__ == '__main__':  # the imports behind it do
    define_flags(has_stage=True)
    answer_help(sys.argv)

from elenchus.train.config import build, cli
from elenchus.train.run import runner
from elenchus.train.stages import STAGES


def main(argv):
    """Runs the stage that --stage names."""
    name = build.one_of(tuple(STAGES), flags.FLAGS.stage, '--stage')
    with runner.run_of_flags() as run:
        summary = runner.run_stage(run, name)
        print({k: v for k, v in summary.items() if not isinstance(v, dict | list)})


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
