"""The command line that all stage scripts share: --config, --workdir, --stage."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from absl import flags
from ml_collections.config_flags import config_flags

from data import verify
from scripts.workspace import Workspace
from train import settings

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
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield Workspace(values.config, values.workdir, verifier=verifier)


def run_stage_script(stages: Mapping[str, Stage]) -> None:
    """The whole of a stage script's `if __name__ == '__main__'`."""
    define_flags(stages=stages)
    settings.run_main(lambda argv: run_stage(stages))


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
