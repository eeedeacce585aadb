"""A whole run: every stage of the config in order, then the report.

python -m scripts.run --config configs/lab.py --workdir runs/lab
python -m scripts.run --config configs/lab.py:smoke --workdir runs/smoke

With --describe it prints the config, a comment a field; with --dry_run --topology=v5e-256 what
every stage would need of such a machine. Neither trains anything.
"""

from elenchus.train.early_signals import end_at_signals

if __name__ == '__main__':  # all imports below take seconds
    end_at_signals()

import sys

from absl import app, flags

from elenchus.train.config.script_flags import answer_help, define_flags

if __name__ == '__main__':  # the imports behind it do
    define_flags()
    flags.DEFINE_bool('describe', False, 'Only print the config, with a comment on every field.')
    flags.DEFINE_bool('dry_run', False, 'Only print what every stage would need of --topology.')
    flags.DEFINE_bool('compile', False, 'With --dry_run: compile all programs; TPUs need libtpu.')
    flags.DEFINE_string('programs', '', 'With --compile: only the programs that this regex finds.')
    flags.DEFINE_string('topology', 'cpu', 'Of --dry_run: v5e-256, v5p-128, v6e-8, 8xh100, cpu ...')
    answer_help(sys.argv)

from elenchus.train.config import build, checks, cli, describe
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import compiled_table, dry_run
from elenchus.train.run import runner


def main(argv):
    """Runs, or plans, the stages of the config."""
    values = flags.FLAGS
    if values.describe:
        print(describe.describe(values.config))
        return
    if values.dry_run:
        settings = build.build(RunSettings, values.config)
        checks.check_settings(settings)
        dry_run.dry_run(settings, values.topology, compiled=values.compile)
        if values.compile:
            compiled_table.compile_run(settings, values.topology, only=values.programs)
        return
    with runner.run_of_flags() as run:
        for name in run.settings.stages:
            runner.run_stage(run, name)
        runner.report(run)


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
