"""Writes every chart of a run's report, or of a study, as SVG and PNG, with its data as CSV.

python -m scripts.plots runs/lab                     # into runs/lab/plots
python -m scripts.plots runs/lab --out=paper/plots
python -m scripts.plots runs/critics                 # a study: its panels

All charts have one style: black on white, texts of the SVG as outlines, 300 dots an inch in the
PNG. The CSV has the numbers in the chart; shares are in [0, 1], and a cell that is empty is not
known. The same run gives the same bytes.
"""

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    WORKDIR = flags.DEFINE_string('workdir', None, 'The same as WORKDIR without a flag.')
    OUT = flags.DEFINE_string('out', None, 'Folder of the files; default: WORKDIR/plots.')
    answer_help(sys.argv)

from etils import epath

from elenchus.train.config import cli
from elenchus.train.report.plot_files import FOLDER, write_plots


def main(arguments: list[str]) -> None:
    """Writes the charts of the run that the command line names, and prints where they are."""
    (workdir,) = cli.named_folders(arguments, WORKDIR.value)
    out = epath.Path(OUT.value or epath.Path(workdir) / FOLDER)
    for name in write_plots(epath.Path(workdir), out):
        print(out / f'{name}.svg')


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
