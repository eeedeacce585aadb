"""Writes the report of a run, also of an unfinished one.

python -m scripts.report --workdir runs/lab
"""

from absl import app, flags

from elenchus.train.config import cli
from elenchus.train.report.html_page import write_report

if __name__ == '__main__':
    WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of the run.', required=True)
    with cli.one_line_errors():
        app.run(lambda _: print(write_report(WORKDIR.value)), flags_parser=cli.parse_flags)
