"""Writes docs/methods/index.md: which published systems are a file here, and what each differs in.

python -m scripts.methods
"""

from absl import app

from elenchus.train.config import cli
from elenchus.train.report.methods_table import INDEX, write_index

if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(lambda _: print(write_index(INDEX)), flags_parser=cli.parse_flags)
