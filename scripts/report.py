"""Writes the report of a run again, also of a partial run.

python -m scripts.report --workdir runs/lab
"""

from absl import flags

from elenchus.train.config import cli
from elenchus.train.report.html_page import write_report

if __name__ == '__main__':
    WORKDIR = flags.DEFINE_string('workdir', None, 'Work directory of the run.', required=True)
    cli.run_main(lambda _: print(write_report(WORKDIR.value)))
