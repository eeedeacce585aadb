"""A whole run: every stage of the config in order, then the report.

python -m scripts.run --config configs/lab.py --workdir runs/lab
python -m scripts.run --config configs/lab.py:smoke --workdir runs/smoke
"""

from scripts import command, critique, evaluate, improve, reinforce, self_talk, train
from scripts.report import write_report
from scripts.workspace import Workspace, write_json
from train import processes, settings

STAGES = {
    **train.STAGES,
    **critique.STAGES,
    **evaluate.STAGES,
    **self_talk.STAGES,
    **improve.STAGES,
    **reinforce.STAGES,
}


def run(workspace: Workspace) -> None:
    """Walks the stages; complete ones are skipped, an interrupted one resumes."""
    names = workspace.settings.stages
    summaries = {}
    for name in names:
        print(f'== {name}')
        summary = workspace.run_stage(name, STAGES[name])
        summaries[workspace.stage_folder(name).name] = summary
        command.show_accuracy(summary)
        write_json(workspace.workdir / 'summary.json', {'stages': summaries})
    report = processes.from_first(lambda: str(write_report(workspace.workdir)))
    print(f'report: {report}')


if __name__ == '__main__':
    command.define_flags(stages=None)

    def main(argv):
        with command.open_workspace() as workspace:
            run(workspace)

    settings.run_main(main)
