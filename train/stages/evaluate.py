"""The stage `evaluate`: measures what critique at test time adds to accuracy, and what it costs.

Each test-time strategy is sampled into its own folder of parts, one after the other: attempts with
one critique and one refinement; later rounds; refinements of the truly wrong attempts (the oracle,
an upper bound); refinements with other text in place of the critique (uptake); step-level beam
search; tree search; attempts under `evaluate.conditions` and after test-time training; and the base
model's attempts.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.metrics import critic_metrics, measures
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.test_time import strategies, uptake
from elenchus.sampling.test_time.question_states import question_states
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.report import drawing, plots
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import evaluate_figures, evaluate_rows, searches, uptake_figures
from elenchus.train.stages.actor_attempts import evaluate_conditions, sample_actor, sample_attempts
from elenchus.train.stages.adapted_attempts import evaluate_adapted
from elenchus.train.stages.evaluate_figures import EvaluationEpisodes, by_level, by_question


def evaluate(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder | None = None,
    base: Transformer | None = None,
) -> dict:
    """Evaluates actor and critic on the first `settings.num_problems` problems; returns figures.

    With `base`, the model that both were trained from, its attempts are a row of every table.
    """
    stage = stage or StageFolder.temporary()
    problems = problems[: settings.num_problems]
    setup = evaluation_setup(pair, settings=settings, samplers=samplers, seed=seed)
    attempts, num_tokens = sample_parallel(setup, problems, settings=settings, stage=stage)
    later, oracle = [], []
    options = {'attempts': attempts, 'stage': stage}
    if settings.num_rounds > 1:
        later, count = sample_after(setup, problems, strategy=strategies.sequential, **options)
        num_tokens += count
    if settings.oracle:
        oracle, count = sample_after(setup, problems, strategy=strategies.oracle, **options)
        num_tokens += count
    read, count = evaluate_uptake(setup, problems, settings=settings, **options)
    num_tokens += count
    beams, trees, count = searches.sample_searches(
        setup, problems, settings=settings, samplers=samplers, seed=seed, stage=stage
    )
    num_tokens += count
    sampled = {'later': later, 'oracle': oracle, 'beams': beams, 'trees': trees}
    episodes = collect(problems, attempts, **sampled)
    summary = evaluate_figures.summarise(settings, episodes) | read
    stage.write_questions(summary.pop('by_question'))
    groups, chat = episodes.groups, samplers.inputs.chat
    summary |= evaluate_rows.rows(settings, groups, list(summary['tokens_per_answer']), chat=chat)
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    own, count = own_figures(setup, episodes, **options)
    summary |= own
    num_tokens += count
    if base is not None:
        summary, count = add_base(summary, groups, base, **options)
        num_tokens += count
    save_plots(stage, summary)
    save_cut_off(stage, groups, chat=chat)
    return summary | {'tokens_sampled': num_tokens}


def own_figures(
    setup: strategies.EvaluationSetup,
    episodes: EvaluationEpisodes,
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[dict, int]:
    """Computes the figures of conditions, of test-time training and of the config's measures.

    Returns them, and the number of tokens sampled for them.
    """
    problems, groups, models = episodes.problems, episodes.groups, setup.models
    options = {'settings': settings, 'stage': stage}
    edited = functools.partial(sample_parallel, setup, **options)
    more = {'samplers': samplers, 'seed': seed, 'sample_edited': edited}
    figures, by_guide, num_tokens = evaluate_conditions(models.actor, problems, **more, **options)
    room = samplers.settings.prompt_room
    adapted, count = evaluate_adapted(setup, groups, room=room, **options)
    states = functools.partial(question_states, models, problems, shapes=setup.scorer.shapes)
    more = {'conditions': by_guide, 'rounds': episodes.rounds, 'states': states}
    own = measures.measure(settings.measures, groups, samplers.inputs.chat.text, **more)
    return own | figures | adapted, num_tokens + count


def add_base(
    summary: dict,
    groups: Sequence[RolloutGroup],
    base: Transformer,
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[dict, int]:
    """Samples the base model's attempts; returns the summary with them, and the tokens sampled."""
    problems = [group.problem for group in groups]
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    attempts, count = sample_actor(base, problems, name='base', **options)
    alone = records.group_episodes(problems, attempts)
    chat = samplers.inputs.chat
    return evaluate_rows.with_base(settings, summary, groups, base=alone, chat=chat), count


def save_cut_off(stage: StageFolder, groups: Sequence[RolloutGroup], *, chat: Chat) -> None:
    """Writes cut_off.json, the shares of turns that reached their limit; warns of large ones."""
    shares = evaluate_rows.cut_off(groups, chat=chat)
    stage.write_json('cut_off.json', shares)
    evaluate_rows.warn_cut_off(shares)


def save_plots(stage: StageFolder, summary: dict) -> None:
    """Writes the plots of a summary of `evaluate` into the stage's folder."""
    drawing.save_png(lambda: plots.cost_curves(summary['curves']), stage.path / 'curves.png')
    if 'frontier' in summary:
        drawing.save_png(
            lambda: plots.frontier_panels(summary['curves'], summary['frontier']),
            stage.path / 'frontier.png',
        )


def evaluation_setup(
    pair: ModelPair, *, settings: EvaluateSettings, samplers: Samplers, seed: int
) -> strategies.EvaluationSetup:
    """Returns what all strategies share: models, sampling method, scorer and seed."""
    return strategies.EvaluationSetup(
        models=pair,
        scorer=samplers.scorer(),
        method=samplers.method(),
        refine=settings.refine,
        num_rounds=settings.num_rounds,
        seed=derive_seed(seed, 'evaluate'),
        feedback=settings.feedback,
    )


def sample_parallel(
    setup: strategies.EvaluationSetup,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    stage: StageFolder,
    name: str = '',
) -> tuple[Sequence[Episode], int]:
    """Samples attempts with one critique and one refinement each; returns them and their tokens."""
    n, parts = settings.num_attempts, stage.parts(name, problems, description='evaluate')
    for part in parts.missing():
        # The prefix cache lets a critique continue from its attempt's keys and values.
        pair = dataclasses.replace(setup.models, sampler=setup.models.sampler.with_prefix_cache())
        attempts = sample_attempts(
            pair.sampler,
            pair.actor,
            part.items,
            judge=pair.judge,
            method=setup.method,
            seed=setup.seed,
            num_samples=n,
            first=part.first,
        )
        episodes, num_tokens = strategies.parallel(
            dataclasses.replace(setup, models=pair),
            attempts,
            [problem for problem in part.items for _ in range(n)],
            first_id=part.first * n,
        )
        part.write(episodes, num_tokens + episode_lib.sampled_tokens(attempts))
    return parts.read()


def sample_after(
    setup: strategies.EvaluationSetup,
    problems: Sequence[Problem],
    *,
    attempts: Sequence[Episode],
    strategy: strategies.Strategy,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Samples a strategy that continues the `attempts` of `sample_parallel`.

    Returns the new episodes, and the number of tokens sampled.
    """
    n = len(attempts) // len(problems)
    parts = stage.parts(strategy.__name__, problems)
    for part in parts.missing():
        first, end = part.first * n, (part.first + len(part.items)) * n
        repeated = [problem for problem in part.items for _ in range(n)]
        part.write(*strategy(setup, attempts[first:end], repeated, first_id=first))
    return parts.read()


def collect(
    problems: Sequence[Problem],
    attempts: Sequence[Episode],
    *,
    later: Sequence[Episode],
    oracle: Sequence[Episode],
    beams: Sequence[Episode],
    trees: Sequence[Episode],
) -> EvaluationEpisodes:
    """Groups the sampled episodes by problem, and later ones by the attempt that they continue."""
    groups = records.group_episodes(problems, attempts)
    rounds = collections.defaultdict(list)
    for episode in later:
        rounds[episode.facts.chain].append(episode)
    by_attempt = {episode.facts.chain: episode for episode in oracle}
    right = evaluate_figures.right_answers(groups, rounds=rounds, oracle=by_attempt)
    return EvaluationEpisodes(groups, rounds, by_attempt, beams, trees, right)


def evaluate_uptake(
    setup: strategies.EvaluationSetup,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    attempts: Sequence[Episode],
    stage: StageFolder,
) -> tuple[dict[str, dict], int]:
    """Samples the uptake conditions; returns {'uptake': figures} and the tokens sampled.

    Returns ({}, 0) if uptake is off. `attempts` are the episodes of `sample_parallel`. Each
    condition has its own folder of parts.
    """
    s, n = settings.uptake, len(attempts) // len(problems)
    problems = problems[: s.num_problems]
    if not problems:
        return {}, 0
    repeated = [problem for problem in problems for _ in range(n)]
    sources = uptake.Sources(setup, attempts[: len(repeated)], repeated)
    sampled, num_tokens = {}, 0
    for name in uptake.CONDITIONS if sources.comparable else ():
        parts = stage.parts(f'uptake/{name}', problems, description=f'uptake: {name}')
        for part in parts.missing():
            ids = range(part.first * n, (part.first + len(part.items)) * n)
            part.write(*uptake.sample_condition(name, sources, ids=ids, num_samples=s.num_samples))
        sampled[name], count = parts.read()
        num_tokens += count
    figures = uptake_figures.summarise(settings, sources, sampled)
    if figures['warning']:
        print(f'warning: {figures["warning"]}')
    return {'uptake': figures}, num_tokens


def evaluate_actor(
    actor: Transformer,
    problems: Sequence[Problem],
    settings: EvaluateSettings,
    *,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> dict:
    """Evaluates an actor alone: accuracy and coverage by level, with the seed of `evaluate`."""
    problems = problems[: settings.num_problems]
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    episodes, num_tokens = sample_actor(actor, problems, name='test', **options)
    groups = records.group_episodes(problems, episodes)
    right = [np.mean([e.attempt.facts.correct for e in group]) for group in groups]
    covered = [float(any(e.attempt.facts.correct for e in group)) for group in groups]
    stage.write_questions(by_question(problems, {'attempt': right}))
    return {
        'accuracy': {'attempt': by_level(settings, problems, right)},
        'coverage': by_level(settings, problems, covered),
        'spurious': critic_metrics.spurious_share(episodes),
        'tokens_per_answer': {'attempt': num_tokens / len(episodes)},
        **evaluate_rows.rows(settings, groups, ['attempt'], chat=samplers.inputs.chat),
    }


def evaluate_with_critique(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> dict:
    """Evaluates accuracy before and after one critique and refinement, and the critic's metrics."""
    problems, n = problems[: settings.num_problems], settings.num_attempts
    setup = evaluation_setup(pair, settings=settings, samplers=samplers, seed=seed)
    episodes, num_tokens = sample_parallel(
        setup, problems, settings=settings, stage=stage, name='test'
    )
    groups = records.group_episodes(problems, episodes)
    right = [sum(e.attempt.facts.correct for e in group) / n for group in groups]
    refined = [sum(map(critic_metrics.finally_correct, group)) / n for group in groups]
    stage.write_questions(by_question(problems, {'attempt': right, 'refined': refined}))
    return {
        'accuracy': {
            'attempt': by_level(settings, problems, right),
            'refined': by_level(settings, problems, refined),
        },
        'critic': critic_metrics.critic(episodes),
        'transitions': critic_metrics.transitions(episodes),
        'tokens_per_answer': {
            'attempt': sum(e.facts.tokens['attempt'] for e in episodes) / len(episodes),
            'refined': num_tokens / len(episodes),
        },
        **evaluate_rows.rows(settings, groups, ['attempt', 'refined'], chat=samplers.inputs.chat),
    }
