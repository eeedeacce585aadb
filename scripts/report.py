"""Writes the report of a run, also of an unfinished one, and a browser of its episodes.

python -m scripts.report runs/lab                                  # report.html and browser/
python -m scripts.report runs/lab runs/other --out=runs/compared   # two runs, paired by question
"""

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    WORKDIR = flags.DEFINE_string('workdir', None, 'The same as WORKDIR without a flag.')
    OUT = flags.DEFINE_string(
        'out',
        None,
        'Folder of the browser, which may be moved and opens from disk; default: WORKDIR/browser. '
        'With --out nothing is written into the folders of the runs.',
    )
    answer_help(sys.argv)

from etils import epath

from elenchus.train.config import cli
from elenchus.train.report.browser.folder import write_browser
from elenchus.train.report.html_page import write_report

NUM_RUNS = 2


def main(arguments: list[str]) -> None:
    """Writes what the flags ask for and prints where it is."""
    workdir, *others = cli.named_folders(arguments, WORKDIR.value, most=NUM_RUNS)
    if not OUT.value:
        print(write_report(workdir))
    out = OUT.value or epath.Path(workdir) / 'browser'
    print(write_browser(workdir, out, other=others[0] if others else None))


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
