"""Compares sampling in int8 with the full model: log-probabilities and greedy tokens.

python -m scripts.tools.compare_int8 --config configs/lab.py --workdir runs/int8 \\
    --model data/lab/checkpoint

The model attempts test problems greedily. The same tokens are then read with keys and values in
int8 (sampling.engine.cache_dtype), with matrices in int8 (sampling.engine.quantize), and with both.
The table has, over all tokens of the attempts: the mean and the largest difference of
log-probabilities, the share of tokens that are still the most likely ones, and the share of
attempts that int8 would not change, because all of their tokens are.
"""

from absl import app, flags

from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.metrics import int8_comparison
from elenchus.train.config import cli
from elenchus.train.config.script_flags import define_flags
from elenchus.train.run import runner


def main(_):
    """Prints the table for the model that the flags name."""
    values = flags.FLAGS
    with runner.run_of_flags() as run:
        model = run.load_saved(values.model)
        method = sampling_methods.without_rules(run.samplers.greedy())
        tokens, sampled = int8_comparison.sample_attempts(
            run.samplers.whole_turns(),
            model,
            run.inputs.test_problems[: values.problems],
            chat=run.inputs.chat,
            method=method,
            num_tokens=values.tokens,
        )
        differences = int8_comparison.compare_variants(model, tokens, sampled, method=method)
    print(f'{values.model}: {sampled.sum()} tokens of {len(sampled)} attempts')
    print(int8_comparison.markdown_table(differences))


if __name__ == '__main__':
    define_flags()
    flags.DEFINE_string('model', None, 'Folder of a saved model.', required=True)
    flags.DEFINE_integer('problems', 128, 'Number of test problems to attempt.', lower_bound=1)
    flags.DEFINE_integer('tokens', 60, 'Largest number of tokens of an attempt.', lower_bound=1)
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
