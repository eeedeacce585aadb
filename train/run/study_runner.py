"""Runs a study: several arms, each a run with some settings changed, for one or more seeds."""

import pathlib
from collections.abc import Mapping, Sequence

import ml_collections
from etils import epath

from elenchus.data.grading import verify
from elenchus.train import distributed
from elenchus.train.config import build, run_settings, stage_fields
from elenchus.train.metrics import writers
from elenchus.train.report import study_contrasts, study_table
from elenchus.train.run import runner
from elenchus.train.run.directory import QUESTIONS, SUMMARY, link_tree, read_json
from elenchus.train.run.session import open_run


def run_study(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, verifier: verify.Verifier
) -> None:
    """Runs every arm for every seed; writes the comparison after each run.

    The config has `run` (the config of a run), `arms` (name and changes of each), `seeds`, `shared`
    (stages that all arms of a seed share, run once) and `comparison`. Complete runs are skipped, so
    a stopped study continues. A seed is that of training and, on the lab, of the problems. Studies
    of the same run may have one work directory if the shared stages of each are the first ones of
    another; then each names its `results`.
    """
    comparison = build.build(study_table.Comparison, config.comparison, 'config.comparison')
    arms = arms_of(config)
    columns = [column.name for column in comparison.table]
    study_contrasts.check_contrasts(comparison.contrasts, arms=list(arms), columns=columns)
    check_arms(config, arms, workdir=workdir, verifier=verifier)
    stages = {arm: arm_config(config, 0, changes).stages for arm, changes in arms.items()}
    study_table.check_stages(comparison, stages)
    study_table.check_panels(comparison, list(stages.values()))
    runs: study_table.Runs = {arm: {} for arm in arms}
    for seed in config.seeds:
        shared_config = arm_config(config, seed, {'stages': config.shared})
        shared_folder = arm_folder(workdir, seed, 'shared')
        with open_run(shared_config, shared_folder, verifier=verifier).started() as run:
            for name in run.settings.stages:
                runner.run_stage(run, name)
        shared = distributed.run_on_first(lambda path=shared_folder: read_summaries(path))
        study_table.check_figures(comparison, shared)
        for arm, changes in arms.items():
            print(f'=== seed {seed}, {arm}')
            folder = arm_folder(workdir, seed, arm)
            arm_of_seed = arm_config(config, seed, changes)
            with open_run(arm_of_seed, folder, verifier=verifier).started() as run:
                link_stages(shared_folder, folder, shared=config.shared)
                for name in run.settings.stages:
                    runner.run_stage(run, name)
                runner.report(run)
            runs[arm][str(seed)] = distributed.run_on_first(
                lambda path=folder: read_summaries(path)
            )
            name = config.get('results', 'study')
            study_table.write_comparison(runs, comparison, workdir, name=name)


def link_stages(source: pathlib.Path, folder: pathlib.Path, *, shared: Sequence[str]) -> None:
    """Links the shared ones of a run's stages, its first ones, from another run of them.

    To the run the linked stages look complete, so it starts after them. Raises ValueError if a
    stage was linked before and has been made again since.
    """
    for number, stage in enumerate(shared):
        name = f'{number:02d}-{stage}'
        origin, linked = (epath.Path(path) / 'stages' / name for path in (source, folder))
        link_tree(origin, linked)
        if distributed.run_on_first(lambda m=origin, n=linked: _summary(m) != _summary(n)):
            raise ValueError(
                f'{origin} has been made again since {linked} was linked from it: delete {folder} '
                'to run it on the new stages'
            )


def _summary(stage: epath.Path) -> str | None:
    path = stage / SUMMARY
    return path.read_text() if path.exists() else None


def read_summaries(workdir: pathlib.Path) -> study_table.Summaries:
    """Returns a run's summaries by stage.

    The metrics of a stage are added as `rows`, its questions.json as `by_question`. The entry
    'training' comes before the stages: the tokens that the arm sampled to learn from, by all of
    them but `evaluate`, which tests.
    """
    sampled = read_json(workdir / 'summary.json')['stages']
    learning = [s for name, s in sampled.items() if not name.endswith('-evaluate')]
    total = sum(summary['tokens_sampled'] for summary in learning)
    summaries = {study_table.TRAINING: {study_table.TOKENS: total}}
    for name, summary in sampled.items():
        metrics = workdir / 'stages' / name / writers.METRICS
        rows = {'rows': writers.read_rows(metrics)} if metrics.exists() else {}
        questions = workdir / 'stages' / name / QUESTIONS
        if questions.exists():
            rows[study_table.BY_QUESTION] = read_json(questions)
        summaries[name.partition('-')[2]] = summary | rows  # 01-actor -> actor
    return summaries


def arms_of(config: ml_collections.ConfigDict) -> dict[str, Mapping]:
    """Changes of each arm by name, in the config's order.

    Raises ValueError if two arms would use the same folder.
    """
    names = [arm['name'] for arm in config.arms]
    folders = [arm_folder(pathlib.Path(), 0, name).name for name in ('shared', *names)]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise ValueError(f'config.arms: two folders would be named {folder!r}; rename one')
    return {arm['name']: arm['changes'] for arm in config.arms}


def arm_folder(workdir: pathlib.Path, seed: int, arm: str) -> pathlib.Path:
    """Work directory of an arm's run for one seed."""
    return workdir / f'seed{seed}' / arm.replace(' ', '_')


def check_arms(
    config: ml_collections.ConfigDict,
    arms: Mapping[str, Mapping],
    *,
    workdir: pathlib.Path,
    verifier: verify.Verifier,
) -> None:
    """Opens the run of every arm for the first seed, without writing.

    A wrong arm is so reported before hours are spent on the others. Raises ValueError that names
    the arm, or the seeds.
    """
    seeds = list(config.seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f'config.seeds={tuple(seeds)} must be different whole numbers, as (0, 1)')
    seed = seeds[0]
    for arm, changes in arms.items():
        try:
            check_shared(config, seed, changes)
            run_config = arm_config(config, seed, changes)
            open_run(run_config, arm_folder(workdir, seed, arm), verifier=verifier)
        except ValueError as error:
            raise ValueError(f'config.arms: {arm!r}: {error}') from error


def check_shared(config: ml_collections.ConfigDict, seed: int, changes: Mapping) -> None:
    """Raises ValueError if an arm cannot share stages: it has not all of them first, in order, or
    changes what one of them reads, which runs without the change."""
    own, shared = (arm_config(config, seed, c).to_dict() for c in (changes, {}))
    settings = build.build(run_settings.RunSettings, arm_config(config, seed, changes))
    if settings.stages[: len(config.shared)] != tuple(config.shared):
        raise ValueError(
            f'its stages {settings.stages} must begin with config.shared={tuple(config.shared)}'
        )
    before = build.flat(shared)
    for field, value in build.flat(own).items():
        if value != before.get(field) and (stage := shared_reader(settings, config.shared, field)):
            raise ValueError(
                f'it changes {field}, which the shared stage {stage!r} reads: leave that stage '
                'out of config.shared, or the change out of the arm'
            )


def shared_reader(
    settings: run_settings.RunSettings, shared: Sequence[str], field: str
) -> str | None:
    """Returns the first of the shared stages that depends on a field, also one with a path."""
    for stage in shared:
        is_path = field in stage_fields.PATHS and any(
            stage_fields.reads_itself(settings, name, field)
            for name in stage_fields.closure(settings, stage)
        )
        if is_path or stage_fields.reads(settings, stage, field):
            return stage
    return None


def arm_config(
    config: ml_collections.ConfigDict, seed: int, changes: Mapping
) -> ml_collections.ConfigDict:
    """The run's config with an arm's changes. Raises ValueError for an unknown field.

    The seed is also that of generated problems: runs that share their problems would measure noise
    and order of data only. Public data sets have no such seed, and stay the same.
    """
    return changed_config(config.run, seed, changes)


def changed_config(
    config: ml_collections.ConfigDict, seed: int, changes: Mapping
) -> ml_collections.ConfigDict:
    """A run's config with changes and a seed; see `arm_config`."""
    run_config = config.copy_and_resolve_references().lock()
    try:
        run_config.update(changes)
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(error.args[0]) from error
    run_config.seed = run_config.data.seed = seed
    return run_config
