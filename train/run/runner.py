"""Runs stages in order, then writes the report."""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Iterator

from absl import flags
from etils import epath

from elenchus.data.grading import verify
from elenchus.sampling.engine.work import Work
from elenchus.train import distributed
from elenchus.train.config import cli
from elenchus.train.failures import FailuresReachAll
from elenchus.train.metrics import profiling, speed, writers
from elenchus.train.metrics.activity import activity
from elenchus.train.report.html_page import PAGE, write_report
from elenchus.train.run import provenance, stage_inputs
from elenchus.train.run.directory import SUMMARY, StageFolder, read_json, write_json
from elenchus.train.run.session import Run, open_run
from elenchus.train.stages import STAGES

VERIFIER = 'verifier.json'


@contextlib.contextmanager
def run_of_flags() -> Iterator[Run]:
    """Opens and starts the run that the command line names."""
    workdir = cli.checked_workdir(flags.FLAGS.workdir, of='run')
    cli.join_processes()
    with (
        FailuresReachAll(),
        verify.Verifier() as verifier,
        open_run(flags.FLAGS.config, workdir, verifier=verifier).started() as run,
    ):
        if flags.FLAGS.profile:
            profiling.turn_on(workdir / 'profile')
        yield run


def run_stage(run: Run, name: str) -> dict:
    """Runs a stage and returns its summary.

    A stage with a summary is complete and skipped; an interrupted stage resumes.
    """
    print(f'== {name}')
    activity.start_stage(name)
    stage = run.directory.stage(name)
    stage_inputs.discard_failure(run.reader, name)
    summary = stage.read_summary()
    if summary is None:
        with stage.recorded() as summary:
            stage_inputs.write(run.reader, name)
            provenance.record(stage)
            counts_before, work_before = run.samplers.counts(), run.samplers.work()
            checks_before = verifier_totals(run)
            function, arguments = STAGES[name]
            with profiling.StepTrace(f'{stage.path.name}-sampling') as trace:
                run.samplers.on_chunk.trace = trace
                summary |= function(stage=stage, **arguments(run))
            run.store.release()
            write_speeds(run, stage.path, run.samplers.work() - work_before)
            add_tokens_per_step(summary, run, counts_before)
        write_verifier(run, stage, checks_before)
    print_accuracy(summary)
    distributed.run_on_first(lambda: write_summaries(run))
    return summary


def write_speeds(run: Run, folder: epath.Path, work: Work) -> None:
    """Appends the speeds of a stage's sampling to its timing.jsonl, and prints them."""
    if not work.sampled:
        return
    engine = run.settings.sampling.engine
    tensor = engine.tensor_shards or run.mesh.shape['tensor']
    speeds = speed.sampling_speed(
        work,
        run.settings.model,
        cache_dtype=engine.cache_dtype,
        tensor=tensor,
        step_tokens=engine.step_tokens,
    )
    counts = {'sampled': work.sampled, 'prefilled': work.prefilled, 'seconds': work.seconds}
    writers.append_timing(folder, {f'time/{n}': v for n, v in (counts | speeds).items()})
    print('   sampling:', ', '.join(f'{name} {value:.4g}' for name, value in speeds.items()))


def add_tokens_per_step(summary: dict, run: Run, counts_before: tuple[int, int]) -> None:
    """Adds the tokens per decode step since `counts_before`, if prompt lookup is on."""
    tokens, steps = (b - a for a, b in zip(counts_before, run.samplers.counts(), strict=True))
    if run.settings.sampling.engine.draft_tokens and steps:
        summary['tokens_per_step'] = round(tokens / steps, 2)


def verifier_totals(run: Run) -> collections.Counter:
    """Returns what the verifier has counted until now."""
    return run.verifier.totals() if run.verifier else collections.Counter()


def write_verifier(run: Run, stage: StageFolder, totals_before: collections.Counter) -> None:
    """Writes the verifier's figures in a stage into verifier.json, and prints them.

    They are of this process only and so not in the summary, which a resumed run writes alike.
    """
    figures = verify.figures(verifier_totals(run) - totals_before)

    def write() -> None:
        """Runs on the first process, which alone judges."""
        if figures:
            stage.write_json(VERIFIER, figures)
            print('   verifier', ' '.join(f'{name}: {value}' for name, value in figures.items()))

    distributed.run_on_first(write)


def write_summaries(run: Run) -> None:
    """Writes the summaries of all complete stages, in order, into WORKDIR/summary.json.

    The counts of the problems, with what was left out of them, stand before them.
    """
    folders = [run.directory.stage(name).path for name in run.settings.stages]
    summaries = {
        folder.name: read_json(folder / SUMMARY)
        for folder in folders
        if (folder / SUMMARY).exists()
    }
    data = {split: dataclasses.asdict(counts) for split, counts in run.inputs.counts.items()}
    write_json(run.directory.path / SUMMARY, {'data': data, 'stages': summaries})


def report(run: Run) -> None:
    """Writes the report of a run, unless it is newer than all stages, and prints where it is."""

    def write() -> str:
        """Runs on the first process. Drawing takes seconds, which a finished run need not spend."""
        page = run.directory.path / PAGE
        ends = [run.directory.stage(name).path / SUMMARY for name in run.settings.stages]
        times = [end.stat().mtime for end in ends if end.exists()]
        if not page.exists() or page.stat().mtime <= max(times, default=math.inf):
            write_report(run.directory.path)
        return str(page)

    print(f'report: {distributed.run_on_first(write)}')


def print_accuracy(summary: dict) -> None:
    """Prints the accuracies of a stage, if it has any, by level."""
    for arm, levels in summary.get('accuracy', {}).items():
        print(f'   {arm:20s}', ' '.join(f'{k}: {100 * v[0]:.1f}' for k, v in levels.items()))
