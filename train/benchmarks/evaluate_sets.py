"""Evaluates a model on problem sets: greedy and sampled, with and without a critic."""

import dataclasses
from collections.abc import Sequence

from elenchus.data import records
from elenchus.data.grading import harness
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.metrics import cost_curves, critic_metrics, statistics
from elenchus.sampling.test_time import strategies
from elenchus.train.benchmarks.opening import Bench
from elenchus.train.benchmarks.problem_sets import ProblemSet
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import actor_attempts, evaluate_figures
from elenchus.train.stages import evaluate as evaluate_stage
from elenchus.train.stages.evaluate_figures import EvaluationEpisodes, by_level

GREEDY = 'greedy'


def evaluate_set(
    bench: Bench, chosen: ProblemSet, stage: StageFolder, *, greedy_only: bool = False
) -> dict:
    """Evaluates the bench's models on a set; returns figures in the form of the stage `evaluate`.

    Beside those of the stage there are `greedy` (and, with a critic, `greedy refined`), pass@k for
    every size, and what lm-evaluation-harness reads from the greedy responses.
    """
    samplers = bench.samplers(chosen.source, chosen.problems)
    problems, s = chosen.problems, bench.settings.evaluate
    s = dataclasses.replace(s, num_problems=len(problems))
    options = {'samplers': samplers, 'seed': bench.settings.seed, 'stage': stage}
    greedy, num_tokens = sample_greedy(bench, problems, settings=s, **options)
    summary = {'accuracy': {}, 'tokens_per_answer': {}}
    if not greedy_only:
        summary = sampled_figures(bench, problems, settings=s, **options)
    table = greedy_figures(s, problems, greedy, with_critic=bench.critic is not None)
    table['accuracy'] |= summary['accuracy']
    table['tokens_per_answer'] |= summary['tokens_per_answer']
    total = num_tokens + summary.get('tokens_sampled', 0)
    summary |= table | {'tokens_sampled': total, 'questions': len(problems)}
    if chosen.source not in ('lab', 'math'):
        summary['harness'] = harness_figures(s, problems, greedy, chat=bench.chat)
    return summary


def sample_greedy(
    bench: Bench,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[list[Episode], int]:
    """Decodes one greedy attempt at each problem; with a critic, also critique and refinement."""
    one = dataclasses.replace(settings, num_attempts=1)
    if bench.critic is not None:
        pair = samplers.pair(bench.actor, bench.critic)
        setup = evaluate_stage.evaluation_setup(pair, settings=one, samplers=samplers, seed=seed)
        setup = dataclasses.replace(setup, method=samplers.greedy())
        return evaluate_stage.sample_parallel(
            setup, problems, settings=one, stage=stage, name=GREEDY
        )
    parts, sampler = stage.parts(GREEDY, problems), samplers.whole_turns()
    for part in parts.missing():
        episodes = actor_attempts.sample_attempts(
            sampler,
            bench.actor,
            part.items,
            judge=samplers.inputs.judge,
            method=samplers.greedy(),
            seed=0,
            num_samples=1,
            first=part.first,
        )
        part.write(episodes, episode_lib.sampled_tokens(episodes))
    return parts.read()


def greedy_figures(
    s: EvaluateSettings,
    problems: Sequence[Problem],
    greedy: Sequence[Episode],
    *,
    with_critic: bool,
) -> dict:
    """Returns accuracy and tokens an answer of the greedy responses."""
    right = {GREEDY: [float(bool(e.attempt.facts.correct)) for e in greedy]}
    tokens = {GREEDY: sum(len(e.attempt.tokens) for e in greedy) / len(greedy)}
    if with_critic:
        name = f'{GREEDY} refined'
        right[name] = [float(critic_metrics.finally_correct(e)) for e in greedy]
        tokens[name] = episode_lib.sampled_tokens(greedy) / len(greedy)
    figures = {
        'accuracy': {arm: by_level(s, problems, values) for arm, values in right.items()},
        'tokens_per_answer': tokens,
    }
    if with_critic:
        pair = by_level(s, problems, right[name], baseline=right[GREEDY])
        figures['greedy_difference'] = pair
    return figures


def sampled_figures(
    bench: Bench,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> dict:
    """Samples `num_attempts` responses to each problem; returns figures with majorities, pass@k."""
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    if bench.critic is not None:
        pair = samplers.pair(bench.actor, bench.critic)
        summary = evaluate_stage.evaluate(pair, problems, **options)
        episodes, _ = stage.parts('', problems).read()
    else:
        episodes, num_tokens = actor_attempts.sample_actor(
            bench.actor, problems, name='', **options
        )
        episodes = [strategies.with_cost(bench.chat, episode) for episode in episodes]
        summary = majority_figures(settings, problems, episodes) | {'tokens_sampled': num_tokens}
    groups = records.group_episodes(problems, episodes)
    summary['accuracy'] |= pass_at_k(settings, problems, groups)
    summary['attempts_per_question'] = settings.num_attempts
    return summary


def majority_figures(
    s: EvaluateSettings, problems: Sequence[Problem], episodes: Sequence[Episode]
) -> dict:
    """Returns accuracy and tokens of single attempts and of majorities of 2, 4, ... of them."""
    groups = records.group_episodes(problems, episodes)
    right = evaluate_figures.right_answers(groups, rounds={}, oracle={})
    plain = evaluate_figures.plain_majority(s, EvaluationEpisodes(groups, {}, {}, [], [], right))
    points = {
        'attempt' if size == 1 else f'majority@{size}': plain(size)
        for size in cost_curves.sizes(s.num_attempts)
    }
    return {
        'accuracy': {arm: by_level(s, problems, point.right) for arm, point in points.items()},
        'tokens_per_answer': {
            arm: sum(point.tokens) / len(point.tokens) for arm, point in points.items()
        },
        'curves': {
            'majority': [
                evaluate_figures.point_summary(s, problems, point) for point in points.values()
            ]
        },
        'equal_tokens': {},
    }


def pass_at_k(
    s: EvaluateSettings, problems: Sequence[Problem], groups: Sequence[RolloutGroup]
) -> dict:
    """Returns the probability that one of k attempts is right, for k of 2, 4, ..."""
    n = s.num_attempts
    counts = [sum(bool(e.attempt.facts.correct) for e in group) for group in groups]
    return {
        f'pass@{k}': by_level(s, problems, [statistics.pass_at_k(n, c, k=k) for c in counts])
        for k in cost_curves.sizes(n)
        if k > 1
    }


def harness_figures(
    s: EvaluateSettings, problems: Sequence[Problem], greedy: Sequence[Episode], *, chat: Chat
) -> dict:
    """Returns the accuracy of greedy attempts by lm-evaluation-harness's two extractions.

    A response that was cut off counts with the text that it has, as there.
    """
    found = [
        harness.figures(chat.text(episode.attempt), problem.answer)
        for problem, episode in zip(problems, greedy, strict=True)
    ]
    return {
        name: by_level(s, problems, [float(values[name]) for values in found])['all']
        for name in found[0]
    }
