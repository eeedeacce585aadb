"""Writes docs/methods/index.md: which published systems are a file here, and what each differs in.

python -m scripts.methods
python -m scripts.methods --studies runs/methods --studies runs/methods/segments

With --studies it first writes the results of configs/studies/methods.py in these folders into
docs/methods/effects.json, from which the effects in the table are read.
"""

import pathlib
import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    STUDIES = flags.DEFINE_multi_string('studies', [], 'Work directories of studies of methods.')
    answer_help(sys.argv)

from elenchus.train.config import cli
from elenchus.train.report import method_effects
from elenchus.train.report.methods_table import INDEX, write_index

if __name__ == '__main__':

    def main(_):
        """Writes the effects, if the flags name studies, and the table."""
        if STUDIES.value:
            folders = [pathlib.Path(folder) for folder in STUDIES.value]
            measured = method_effects.write_effects(folders, method_effects.EFFECTS)
            print(f'{method_effects.EFFECTS}: {", ".join(measured)}')
        print(write_index(INDEX))

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
