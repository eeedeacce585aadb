r"""Checks the verifier on a problem set: every reference against itself and against the next one.

    python -m scripts.tools.check_verifier --source=math --path=DATA/math
    python -m scripts.tools.check_verifier --source=jsonl --path=mine.jsonl

Prints a table that counts the outcomes, then the unexpected pairs: references that do not equal
themselves (also in another spelling, if one is known); neighbours that are equal or undecided
although their texts differ; solutions that end with another answer than their problem's; and wrong
answers that are called right, made from references by changing a digit, the sign, the unit or the
order of two letters. Reads one split: training problems with --split=train.
"""

import sys

import rich.console
from absl import app, flags

from elenchus.data.grading import self_check, verify
from elenchus.data.problems import downloads, loading
from elenchus.train import output
from elenchus.train.config import cli


def main(_):
    """Checks the problem set that the flags select."""
    values = flags.FLAGS
    options = loading.load_options(data_dir=values.data_dir, path=values.path)
    with downloads.without_network('--path'):
        problems = loading.load(values.source, split=values.split, **options)[: values.limit]
    references = [problem.answer for problem in problems]
    options = {'solutions': [p.solution for p in problems], 'num_mutated': values.mutations}
    with verify.Verifier(num_workers=values.num_workers, timeout_s=values.timeout_s) as verifier:
        checks = self_check.run_checks(references, verifier, **options)
    rich.console.Console(file=output.terminal(sys.stdout)).print(self_check.outcome_table(checks))
    for check in checks:
        for outcome, answer, reference in self_check.surprises(check):
            print(f'{check.name}: {outcome}: {answer!r}, reference {reference!r}')


if __name__ == '__main__':
    sources = [source for source in loading.SOURCES if source != 'lab']
    flags.DEFINE_enum('source', None, sources, 'Problem set.', required=True)
    flags.DEFINE_string('path', '', 'Its folder or file; default: download.')
    flags.DEFINE_string('data_dir', '.cache/data', 'Folder for prepared data sets.')
    flags.DEFINE_string('split', 'test', 'Split of the problem set.')
    flags.DEFINE_integer(
        'num_workers', None, 'Processes for algebra; default: one for each core.', lower_bound=1
    )
    flags.DEFINE_integer('mutations', 1000, 'Wrong answers to check; 0: none.', lower_bound=0)
    flags.DEFINE_float('timeout_s', 5.0, 'Limit of processor time of one pair, in seconds.')
    flags.DEFINE_integer('limit', None, 'Number of problems to check; default: all.', lower_bound=1)
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
