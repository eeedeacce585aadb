r"""Runs a config with other values of some fields, for several seeds, and ranks the points.

python -m scripts.sweep --config=configs/lab.py:smoke --workdir=runs/sweep \
    --vary=actor.fit.optimizer.learning_rate=0.001,0.003,0.01 --vary=train.rows=8,16 \
    --seeds=0,1,2 --rank=evaluate.accuracy.refined.all --jobs=2

Which points (one of three):
  a grid    --vary=FIELD=VALUE,VALUE for each field: all combinations
  a list    --points=FILE, a JSONL file with one {"train.rows": 8, "actor.lora.rank": 4} a line
  random    --random=20, and --vary with values or a range: FIELD=0.1..0.5, FIELD=log:1e-4..1e-2

Which figure: --rank is a path in the run's summary.json that begins with the stage (evaluate.
accuracy.refined.all, reinforce.accuracy.attempt.all, actor.final_loss). The best point has the
greatest mean over the seeds, with --ascending the least. It writes sweep.json, .csv and .md.

Where: on this machine, --jobs runs at a time (an accelerator takes one); or on others:
  --action=print                      only prints the commands of what is not complete yet
  --launcher='bash scripts/launch/tpu.sh keep --zone=Z --type=v5litepod-16 --max_hours=8'
                                      puts a launcher before each; --workdir is then gs://...
  --action=table                      only ranks what is there

The same command continues a sweep that was stopped or killed, with the same result. Values, seeds
and points may be added: complete runs stay. A point that fails gives one line; the others go on.
"""

import shlex
import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help, define_flags
from elenchus.train.early_signals import end_at_signals

if __name__ == '__main__':  # the imports below take seconds
    end_at_signals()
    define_flags()
    flags.DEFINE_multi_string('vary', [], 'FIELD=VALUE,VALUE,... or a range; once a field.')
    flags.DEFINE_string('points', '', 'File of points: a JSON object of changes a line.')
    flags.DEFINE_integer('random', 0, 'Number of random points.', lower_bound=0)
    flags.DEFINE_integer('random_seed', 0, 'Of the random points.')
    flags.DEFINE_list('seeds', ['0'], 'Seeds of each point: of training, noise and problems.')
    flags.DEFINE_list('shared', [], 'First stages, which all points of a seed share: run once.')
    flags.DEFINE_string(
        'rank', '', 'Path of the figure to rank by, such as STAGE.accuracy.ARM.all.'
    )
    flags.DEFINE_bool('ascending', False, 'The least figure is best.')
    flags.DEFINE_integer('jobs', 1, 'Runs at a time.', lower_bound=1)
    flags.DEFINE_enum('action', 'run', ['run', 'print', 'table'], 'What is done with the points.')
    flags.DEFINE_string('launcher', '', 'Command that runs a point on other machines.')
    answer_help(sys.argv)

from ml_collections.config_flags import config_flags

from elenchus.train.config import build, cli
from elenchus.train.report import sweep_table
from elenchus.train.run import sweep as sweeps
from elenchus.train.run import sweep_points
from elenchus.train.run.sweep import Sweep


def main(_):
    """Runs, prints or ranks the sweep that the flags name."""
    values = flags.FLAGS
    sweep = read_sweep(values)
    path = sweep_table.path_of(values.rank) if values.action != 'print' else ()
    if path and path[0] not in (*sweep.stages, 'last', 'training'):
        close = build.nearest(path[0], [*sweep.stages, 'last'])
        raise ValueError(f'--rank={values.rank}: no stage {path[0]!r}; nearest: {close!r}')
    sweeps.check(sweep)
    if values.action == 'print':
        if sweep.shared:
            raise ValueError('--shared needs --action=run, which links the stages between runs')
        print('\n'.join(sweeps.commands(sweep)))
        return
    failures = {} if values.action == 'table' else sweeps.run_local(sweep, jobs=values.jobs)
    print('\n'.join(sweeps.table(sweep, path, failures, is_ascending=values.ascending)))
    for name, reason in failures.items():
        print(f'error: {name}: {reason}', file=sys.stderr)
    sys.exit(1 if failures else 0)


def read_sweep(values: flags.FlagValues) -> Sweep:
    """Returns what the flags ask for. Raises ValueError, naming the flag."""
    workdir = cli.checked_workdir(values.workdir, of='sweep')
    if values.launcher and not values.workdir.startswith(('gs://', '/')):
        raise ValueError(f'--workdir={values.workdir} must be gs://... or an absolute path that '
                         'the machines of --launcher share')  # fmt: skip
    fields = sweep_points.parse_vary(values.vary)
    if values.points and (fields or values.random):
        raise ValueError('--points lists all points: leave out --vary and --random')
    if values.points:
        changes = sweep_points.listed_points(values.points)
    elif values.random:
        changes = sweep_points.random_points(fields, values.random, seed=values.random_seed)
    else:
        changes = sweep_points.grid(fields) if fields else []
    flag = values['config']
    overrides = config_flags.get_override_values(flag)
    return Sweep(
        config=values.config,
        flags=(
            f'--config={config_flags.get_config_filename(flag)}',
            *(sweep_points.override(field, value) for field, value in overrides.items()),
        ),
        workdir=workdir,
        points=tuple(sweep_points.make_points(changes)),
        seeds=read_seeds(values.seeds),
        shared=tuple(values.shared),
        launcher=read_words(values.launcher),
    )


def read_seeds(texts: list[str]) -> tuple[int, ...]:
    """Returns seeds. Raises ValueError for one that is no whole number of at least 0."""
    for text in texts:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f'--seeds={",".join(texts)}: {text!r} is no whole number; such as 0,1')
    return tuple(map(int, texts))


def read_words(launcher: str) -> tuple[str, ...]:
    """Returns the words of a command. Raises ValueError for a quote that does not end."""
    try:
        return tuple(shlex.split(launcher))
    except ValueError as error:
        raise ValueError(f'--launcher={launcher!r}: {error}; quote it as for a shell') from None


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
