r"""Evaluates a model on problem sets, without a run: greedy and sampled, with and without a critic.

    python -m scripts.evaluate --model=models/mine --data=gsm8k,svamp --out=runs/mine-figures
    python -m scripts.evaluate --model=runs/lab/stages/01-actor \
        --critic=runs/lab/stages/03-critic --data=lab --out=runs/lab-figures
    python -m scripts.evaluate --model=models/smollm2 --critic=models/smollm2 \
        --config=configs/evaluate.py:mathcritique --data=gsm8k=DIR,own.jsonl --num_problems=100

A set is a name (gsm8k, gsm8k_socratic, math, math500, svamp, asdiv, lab), a name with a folder or
file in the published form (gsm8k=DIR), or a file of your own problems. Names are looked up in
--config.data.data_dir, in NAME/test.jsonl, and else downloaded there. The same command on the same
--out continues. docs/guide/critic_benchmarks.md explains the table.
"""

import sys

from absl import app, flags

from elenchus.train.benchmarks import flags as bench_flags
from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    bench_flags.define(critic_help='Also criticise and refine, with this model as the critic.')
    flags.DEFINE_list('data', None, 'Problem sets, separated by commas.', required=True)
    flags.DEFINE_string('out', 'runs/evaluate', 'Folder of figures, episodes and report.')
    flags.DEFINE_integer('num_problems', 0, 'First problems of each set; 0: all.', 0)
    flags.DEFINE_bool('greedy_only', False, 'Sample only the likeliest attempt.')
    answer_help(sys.argv)

from elenchus.train.benchmarks import evaluate_command, opening
from elenchus.train.config import cli


def main(_):
    """Evaluates the model of the flags."""
    values = flags.FLAGS
    evaluate_command.evaluate(
        opening.Models.of_flags(values),
        values.config,
        values.data,
        out=values.out,
        num_problems=values.num_problems,
        greedy_only=values.greedy_only,
    )


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=lambda argv: cli.parse_flags(bench_flags.with_config(argv)))
