"""The command line that all stage scripts share: --config, --workdir, --stage."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from absl import flags
from ml_collections.config_flags import config_flags

from elenchus.data.grading import verify
from elenchus.train import distributed
from elenchus.train.config import build
from elenchus.train.run.workspace import Workspace

Stage = Callable[[Workspace, object], dict]


def define_flags(
    *, stages: Mapping[str, Stage] | None, instead: Mapping[str, str] | None = None
) -> None:
    """Defines the flags of a stage script; `stages` are those that its --stage may name.

    `instead` are switches, with their help, that are asked for in place of a stage.
    """
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
        required=True,
    )
    flags.mark_flag_as_required('config')
    flags.DEFINE_string(
        'coordinator',
        '',
        'host:port of process 0, where several processes work as one; with --num_processes and '
        '--process_id. Not needed under SLURM and on TPU slices.',
    )
    flags.DEFINE_integer('num_processes', 1, 'How many processes there are.')
    flags.DEFINE_integer('process_id', 0, 'Which of them this is; process 0 writes the files.')
    flags.DEFINE_boolean(
        'distributed', False, 'Join the processes that JAX finds (Cloud TPU slices, Kubernetes).'
    )
    if stages is not None:
        flags.DEFINE_enum(
            'stage',
            None if len(stages) > 1 else next(iter(stages)),
            list(stages),
            'Which stage to run; its inputs are earlier stages of the workdir.',
            required=len(stages) > 1 and not instead,
        )
    for name, help_string in (instead or {}).items():
        flags.DEFINE_bool(name, False, help_string)


@contextlib.contextmanager
def open_workspace() -> Iterator[Workspace]:
    """The workspace that the flags name."""
    values = flags.FLAGS
    join_processes()
    with (
        verify.Verifier(num_workers=1, timeout_s=5.0) as verifier,
        Workspace(values.config, values.workdir, verifier=verifier) as workspace,
    ):
        yield workspace


def join_processes() -> None:
    """Makes this process one of those that the flags or the cluster tell of."""
    values = flags.FLAGS
    distributed.initialize(
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
        detect=values.distributed,
    )


def run_stage_script(stages: Mapping[str, Stage]) -> None:
    """The whole of a stage script's `if __name__ == '__main__'`."""
    define_flags(stages=stages)
    build.run_main(lambda argv: run_stage(stages))


def run_stage(stages: Mapping[str, Stage]) -> None:
    """Runs the stage that the flags name. Raises ValueError where they name none."""
    stage = flags.FLAGS.stage
    if stage is None:
        raise ValueError(f'--stage must be given, one of {list(stages)}')
    with open_workspace() as workspace:
        summary = workspace.run_stage(stage, stages[stage])
        numbers = {k: v for k, v in summary.items() if not isinstance(v, dict | list)}
        print(f'{stage}: {numbers}')
        show_accuracy(summary)


def show_accuracy(summary: dict) -> None:
    """Prints the accuracies of a stage that has any, by level."""
    for arm, levels in summary.get('accuracy', {}).items():
        print(f'   {arm:20s}', ' '.join(f'{k}: {100 * v[0]:.1f}' for k, v in levels.items()))
