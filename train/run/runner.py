"""Runs the stages of a config in order, then writes the report."""

from elenchus.train import distributed
from elenchus.train.config import cli
from elenchus.train.report.html_page import write_report
from elenchus.train.run.workspace import Workspace, write_json
from elenchus.train.stages import STAGES


def run(workspace: Workspace) -> None:
    """Walks the stages; complete ones are skipped, an interrupted one resumes."""
    names = workspace.settings.stages
    summaries = {}
    for name in names:
        print(f'== {name}')
        summary = workspace.run_stage(name, STAGES[name])
        summaries[workspace.stage_folder(name).name] = summary
        cli.show_accuracy(summary)
        write_json(workspace.workdir / 'summary.json', {'stages': summaries})
    report = distributed.from_first(lambda: str(write_report(workspace.workdir)))
    print(f'report: {report}')
