"""Measures the speed of this project and of its peers on the same shapes, with hardware bounds.

python -m scripts.bench --output runs/bench                          all cases, ours alone
python -m scripts.bench --output runs/bench --only decode,sft --size 1m --rounds 3
python -m scripts.bench --output runs/bench --peers                  and peers, see below

Kinds of work: decode, prefill, ragged (requests of very different lengths), episode (attempt,
critique, refinement), sft and grpo steps. Sizes: 1m and 30m parameters; float32, random weights.

Every contender of a case is a process. All run once, which compiles; then they run in turn, round
by round. The machine's matrix multiplication rate and read bandwidth are measured in the same
rounds. The results are medians over rounds, and ratios are medians of each round's ratio, so a
machine that is busy for a while does not distort comparisons. Absolute figures need an idle
machine, or --clock=cpu, which counts processor time: on one pinned core, the time that an idle core
would take. `of the bound` is the reached share of the roofline of the case and the machine.

--peers adds Hugging Face generate (also with a static cache and torch.compile), a plain torch step,
TRL's GRPO, and Tunix. They run with --peers_python and --tunix_python; by default, environments are
created in .cache from the extras `peers` and `tunix` of pyproject.toml. Writes bench.json, bench.md
and bench.png.
"""

import pathlib
import sys

from absl import app, flags

from elenchus.scripts.bench.cases import CONTENDERS, SIZES
from elenchus.scripts.bench.peers import CLOCKS
from elenchus.scripts.bench.run import BenchSettings, check_names, make_python, run_benchmark
from elenchus.train.config import cli
from elenchus.train.config.script_flags import answer_help

EXTRAS = ('peers', 'tunix')


def main(argv: list[str]) -> None:
    """Runs the benchmark that the flags describe."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise ValueError(f'unexpected arguments {argv[1:]}; see --help')
    check_names('only', values.only, list(CONTENDERS))
    check_names('size', values.size, list(SIZES))
    pythons = {}
    if values.peers:
        pythons = {extra: values[f'{extra}_python'].value or make_python(extra) for extra in EXTRAS}
    settings = BenchSettings(
        works=values.only,
        sizes=values.size,
        rounds=values.rounds,
        clock=values.clock,
        config=values.config,
        pythons=pythons,
    )
    run_benchmark(settings, pathlib.Path(values.output))


if __name__ == '__main__':
    flags.DEFINE_string('output', None, 'Folder for the results.', required=True)
    flags.DEFINE_list('only', list(CONTENDERS), f'Kinds of work: {", ".join(CONTENDERS)}.')
    flags.DEFINE_list('size', list(SIZES), f'Model sizes: {", ".join(SIZES)}.')
    flags.DEFINE_integer('rounds', 5, 'Measured rounds after the first run.', lower_bound=1)
    flags.DEFINE_bool('peers', False, 'Measure peers as well.')
    for name in EXTRAS:
        flags.DEFINE_string(f'{name}_python', '', f'Python with the extra `{name}` installed.')
    flags.DEFINE_enum('clock', 'wall', list(CLOCKS), 'Time to count.')
    flags.DEFINE_string(
        'config',
        'configs/lab.py',
        'Config file with the numerics, optimizer and objective of our contenders.',
    )
    answer_help(sys.argv)
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
