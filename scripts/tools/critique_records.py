r"""Inspects files of critique records, and converts them between formats.

    python -m scripts.tools.critique_records inspect gsm8k.json mine.jsonl --problems train.jsonl
    python -m scripts.tools.critique_records convert gsm8k.json gsm8k.jsonl
    python -m scripts.tools.critique_records convert gsm8k.jsonl prepared

A record is a question, an attempt at it, a critique of the attempt and, if known, a refinement and
how the attempt was constructed. Three formats are recognised:

    .jsonl    one object a line: question, response, critique and, if known, steps,
              construction, location, kind, refinement, refinement_successes, refinements,
              problem_id, level, correct
    .json     the released format: an array of {instruction, input, output}
    a folder  a prepared TFDS dataset (array_record)

`inspect` prints a data card, with one column per file. A verdict is unreadable if it is not clearly
"correct" or "wrong". A critique is a full pass or stops at the first error. Attempts and
refinements are checked against the reference answer, which is known for generated problems and for
the questions of --problems (GSM8K's own files are accepted).

`convert` reads IN and writes OUT, in the format of OUT's ending or of --to.
"""

import sys

import rich.console
from absl import app, flags

from elenchus.data.critiques import conversion, file_summary
from elenchus.train import output
from elenchus.train.config import build, cli


def main(argv):
    """Runs one command. Raises ValueError for an unknown command or missing files."""
    command, files, values = ''.join(argv[1:2]), argv[2:], flags.FLAGS
    if command not in ('inspect', 'convert'):
        near = build.nearest(command, ('inspect', 'convert'))
        raise ValueError(f'unknown command {command!r}; use inspect or convert; nearest: {near}')
    if command == 'inspect' and files:
        table = file_summary.compare_files(files, problem_paths=values.problems)
        rich.console.Console(file=output.terminal(sys.stdout)).print(table)
    elif command == 'convert' and len(files) == 2:
        print(conversion.convert(*files, form=values.to))
    else:
        needed = 'one FILE or more' if command == 'inspect' else 'IN and OUT'
        raise ValueError(f'{command} needs {needed}; see --help for examples')


if __name__ == '__main__':
    flags.DEFINE_list(
        'problems',
        [],
        'inspect: JSONL files of problems (question, answer) with the reference answers, separated '
        'by commas.',
    )
    flags.DEFINE_enum(
        'to', None, sorted(conversion.FORMATS.values()), 'convert: format of OUT, for any ending.'
    )
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
