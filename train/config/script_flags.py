"""Flags that scripts share, defined before the packages that train are imported.

So `--help` answers at once: importing JAX, Flax and TensorFlow Datasets takes seconds.
"""

import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections.config_flags import config_flags

MAIN_FLAGS = (
    'config',
    'workdir',
    'compilation_cache',
    'profile',
    'coordinator',
    'num_processes',
    'process_id',
    'distributed',
)

HELP = ('-h', '-help', '--help', '-helpshort', '--helpshort')

COMPILATION_CACHE = flags.DEFINE_string(
    'compilation_cache',
    None,
    "Folder of compiled programs, which later runs load; '' keeps none. Without the flag: "
    '$JAX_COMPILATION_CACHE_DIR, or .cache/jax in the clone.',
)


def define_flags(*, has_stage: bool = False) -> None:
    """Defines --config, --workdir, the flags of several processes and, if it has one, --stage."""
    config_flags.DEFINE_config_file(
        'config',
        lock_config=True,
        help_string='Config file, such as configs/lab.py or configs/lab.py:smoke; override any '
        'field with --config.section.field=value.',
    )
    flags.DEFINE_string(
        'workdir',
        None,
        'Folder of the run: stages, metrics, report. A run that was stopped continues there.',
    )
    flags.mark_flag_as_required('config')
    flags.DEFINE_string(
        'coordinator',
        '',
        'host:port of process 0 when several processes form one run; use it with --num_processes '
        'and --process_id. Not needed under SLURM and on TPU slices.',
    )
    flags.DEFINE_bool(
        'profile', False, 'Write a trace of a few steps of every stage into WORKDIR/profile.'
    )
    flags.DEFINE_integer('num_processes', 1, 'Number of processes.')
    flags.DEFINE_integer('process_id', 0, 'Index of this process; process 0 writes the files.')
    flags.DEFINE_boolean(
        'distributed', False, 'Join the processes that JAX detects (Cloud TPU slices, Kubernetes).'
    )
    if has_stage:
        flags.DEFINE_string(
            'stage',
            None,
            'Stage, such as actor; the stages it reads must be complete in the work directory.',
            required=True,
        )
    # --help lists the flags of the main module only; these are its main ones.
    for name in MAIN_FLAGS:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    if has_stage:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['stage'])


def answer_help(argv: Sequence[str]) -> None:
    """Prints what a script does and its flags, and ends the process, if that is asked for.

    Call it once all flags are defined and before the imports that take seconds.
    """
    if set(argv[1:]) & set(HELP):
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
