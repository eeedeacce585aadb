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

from absl import app
from absl import flags as absl_flags

from elenchus.train.benchmarks import flags, judge_command
from elenchus.train.config import cli


def main(_):
    """Judges with the critic of the flags."""
    values = absl_flags.FLAGS
    judge_command.judge(
        flags.models(),
        values.config,
        values.data,
        out=values.out,
        num_rows=values.num_rows,
        num_votes=values.num_votes,
    )


if __name__ == '__main__':
    flags.define(critic_help='The critic: a model or a stage.', needs_critic=True)
    absl_flags.DEFINE_list('data', None, 'Benchmarks, separated by commas.', required=True)
    absl_flags.DEFINE_string('out', 'runs/judge', 'Folder of figures and episodes.')
    absl_flags.DEFINE_integer('num_rows', 0, 'First solutions of each file; 0: all.')
    absl_flags.DEFINE_integer('num_votes', 0, 'Sampled critiques of each for majorities; 0: none.')
    with cli.one_line_errors():
        app.run(main, flags_parser=flags.parse)
