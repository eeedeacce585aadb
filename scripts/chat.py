r"""Answers questions that are typed in or piped: attempt, critique and refinement as they come.

    python -m scripts.chat --model=models/smollm2 --critic=models/smollm2 \
        --config=configs/evaluate.py:mathcritique
    echo 'Tom has 3 pens and buys 4. How many has he?' | python -m scripts.chat --model=models/mine

Each line is one question; Ctrl-D ends. The actor writes an attempt. With --critic, the critic
checks it, and if its verdict is not "correct", the actor writes a refinement. --model and --critic
may be the same model. A model that was trained elsewhere needs prompts, which --config names.
--config.sampling.temperature=0.1 makes sampling nearly greedy. On a terminal verdicts are green and
red; NO_COLOR=1 turns that off.
"""

import os
import sys

from absl import app, flags

from elenchus.train.benchmarks import flags as bench_flags
from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    bench_flags.define(critic_help='Also criticise and refine, with this model as the critic.')
    flags.DEFINE_integer('question_tokens', 256, 'Tokens of the longest question.', 1)
    answer_help(sys.argv)

from elenchus.train import output
from elenchus.train.benchmarks import chat_session, opening
from elenchus.train.config import cli


def main(_):
    """Answers the lines of the standard input."""
    values, room = flags.FLAGS, flags.FLAGS.question_tokens
    config = values.config.copy_and_resolve_references().unlock()
    config.sampling.engine.update(
        num_slots=1, decode_batch_sizes=(), prefill_batch_sizes=(1,), chunk_steps=8
    )
    is_terminal = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
    models = opening.Models.of_flags(values)
    with opening.opened(models, config, [], question_tokens=room) as bench:
        session = chat_session.Session(bench, output.terminal(sys.stdout), is_terminal, room)
        chat_session.chat(session, sys.stdin, is_prompted=sys.stdin.isatty())


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=lambda argv: cli.parse_flags(bench_flags.with_config(argv)))
