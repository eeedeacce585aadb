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

from absl import app
from absl import flags as absl_flags

from elenchus.train.benchmarks import evaluate_command, flags
from elenchus.train.config import cli


def main(_):
    """Evaluates the model of the flags."""
    values = absl_flags.FLAGS
    evaluate_command.evaluate(
        flags.models(),
        values.config,
        values.data,
        out=values.out,
        num_problems=values.num_problems,
        greedy_only=values.greedy_only,
    )


if __name__ == '__main__':
    flags.define(critic_help='Also criticise and refine, with this model as the critic.')
    absl_flags.DEFINE_list('data', None, 'Problem sets, separated by commas.', required=True)
    absl_flags.DEFINE_string('out', 'runs/evaluate', 'Folder of figures, episodes and report.')
    absl_flags.DEFINE_integer('num_problems', 0, 'First problems of each set; 0: all.')
    absl_flags.DEFINE_bool('greedy_only', False, 'Sample only the likeliest attempt.')
    with cli.one_line_errors():
        app.run(main, flags_parser=flags.parse)
