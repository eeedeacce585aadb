"""Shows a run in the terminal: stages, progress, time left, figures, warnings, who runs it.

python -m scripts.watch runs/lab                  # until the run ends; Ctrl-C leaves it running
python -m scripts.watch runs/lab --once           # as it is now
python -m scripts.watch gs://bucket/run --once
python -m scripts.watch runs/study --once         # a line for each run in the folder

It only reads, so it may be started and ended at any time, also on another machine that sees the
files. It knows that a run was killed because its lock is free. Where locks do not work, as in a
bucket, it calls a run silent after 90 s without a sign of life. When the run ends, the exit code
is 0 (done), 75 (stopped on request) or 1. Without a terminal it prints a line when something has
changed, at most every ten seconds.
"""

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    WORKDIR = flags.DEFINE_string('workdir', None, 'The same as WORKDIR without a flag.')
    ONCE = flags.DEFINE_bool('once', False, 'Print the run as it is now, and exit.')
    answer_help(sys.argv)

from etils import epath

from elenchus.train.config import cli
from elenchus.train.report import run_files, run_screen


def main(arguments: list[str]) -> None:
    """Shows the run that the command line names."""
    (workdir,) = cli.named_folders(arguments, WORKDIR.value)
    path = epath.Path(workdir)
    if not workdir.startswith('gs://'):  # a bucket has no folders before the first object
        run_files.check_workdir(path)
    if ONCE.value:
        run_screen.print_once(path, sys.stdout)
        return
    try:
        code = run_screen.follow(path, sys.stdout)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
