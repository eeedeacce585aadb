r"""Benchmarks a critic on solutions whose first wrong step is known.

    python -m scripts.judge --critic=runs/mine/stages/03-critic --data=processbench=DIR
    python -m scripts.judge --critic=models/smollm2 --config=configs/evaluate.py:processbench \
        --data=processbench,bigbench_mistake,mr_gsm8k --num_votes=8 \
        --config.sampling.temperature=1.0 --config.sampling.top_p=0.9
    python -m scripts.judge --critic=models/smollm2 --config=configs/evaluate.py:mathcritique \
        --data=mine.jsonl --num_rows=50

A set is a name (processbench, bigbench_mistake, mr_gsm8k), which is looked up in
--config.data.data_dir, a name with a folder or file, or a file in one of their forms. Without a
prompt the critic writes in the grammar of its training. The same command on the same --out
continues. docs/guide/critic_benchmarks.md explains the table.
"""

import sys

from absl import app, flags

from elenchus.train.benchmarks import flags as bench_flags
from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    bench_flags.define(critic_help='The critic: a model or a stage.', needs_critic=True)
    flags.DEFINE_list('data', None, 'Benchmarks, separated by commas.', required=True)
    flags.DEFINE_string('out', 'runs/judge', 'Folder of figures and episodes.')
    flags.DEFINE_integer('num_rows', 0, 'First solutions of each file; 0: all.', 0)
    flags.DEFINE_integer('num_votes', 0, 'Sampled critiques of each for majorities; 0: none.', 0)
    answer_help(sys.argv)

from elenchus.train.benchmarks import judge_command, opening
from elenchus.train.config import cli


def main(_):
    """Judges with the critic of the flags."""
    values = flags.FLAGS
    judge_command.judge(
        opening.Models.of_flags(values),
        values.config,
        values.data,
        out=values.out,
        num_rows=values.num_rows,
        num_votes=values.num_votes,
    )


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=lambda argv: cli.parse_flags(bench_flags.with_config(argv)))
