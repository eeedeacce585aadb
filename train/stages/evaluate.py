"""Evaluation on the test problems: what critique at test time is worth, and what it costs.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage evaluate
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.grading import answers
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.metrics import cost_curves as curve_lib
from elenchus.sampling.metrics import critic_metrics
from elenchus.sampling.metrics.cost_curves import Point
from elenchus.sampling.test_time import beam as beam_lib
from elenchus.sampling.test_time import strategies, votes
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.report import plots
from elenchus.train.run.workspace import Workspace

Table = dict[str, list[float]]


class Played(NamedTuple):
    """Everything that was sampled at the test problems."""

    problems: Sequence[Problem]
    groups: Sequence[Sequence[Episode]]  # attempts of `parallel`, by problem
    rounds: Mapping[int, Sequence[Episode]]  # later rounds, by the attempt's id
    oracle: Mapping[int, Episode]  # by the attempt's id
    beams: Sequence[Episode]  # of the first problems
    right: Sequence[set[str]]  # answers that are right, by problem


def evaluate(workspace: Workspace, folder: pathlib.Path) -> dict:
    """The two players at test time, by every strategy of the config."""
    played, tokens = play(workspace, folder)
    points = curves(workspace.settings.evaluate, played)
    summary = summarise(workspace, played, points) | {'tokens_sampled': tokens}
    plots.save_png(lambda: plots.cost_curves(summary['curves']), folder / 'curves.png')
    return summary


def test_problems(workspace: Workspace) -> Sequence[Problem]:
    return workspace.test_problems[: workspace.settings.evaluate.num_problems]


# Sampling


def play(workspace: Workspace, folder: pathlib.Path) -> tuple[Played, int]:
    """(what the strategies sampled, generated tokens); each strategy's parts in its own folder."""
    s, problems = workspace.settings.evaluate, test_problems(workspace)
    n = s.num_attempts
    actor, critic = (workspace.newest(player, before='evaluate') for player in ('actor', 'critic'))
    conditions = make_conditions(workspace, actor, critic)
    episodes, tokens = parallel(workspace, folder, conditions)
    go_on = functools.partial(after_parallel, workspace, folder, conditions, episodes)
    nothing: tuple[list[Episode], int] = ([], 0)
    later, for_rounds = go_on(strategies.sequential) if s.num_rounds > 1 else nothing
    wrong, for_oracle = go_on(strategies.oracle) if s.oracle else nothing
    beams, for_beams = search(workspace, folder, conditions) if s.beam.width else nothing
    rounds = collections.defaultdict(list)
    for episode in later:
        rounds[episode.outcome['chain']].append(episode)
    oracle = {episode.outcome['chain']: episode for episode in wrong}
    groups = [episodes[i : i + n] for i in range(0, len(episodes), n)]
    right = right_answers(problems, groups, rounds, oracle)
    spent = tokens + for_rounds + for_oracle + for_beams
    return Played(problems, groups, rounds, oracle, beams, right), spent


def parallel(
    workspace: Workspace, folder: pathlib.Path, conditions: strategies.Conditions
) -> tuple[list[Episode], int]:
    """(attempts at the test problems with critique and refinement, generated tokens)."""
    n = workspace.settings.evaluate.num_attempts

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        players = conditions.players
        players = dataclasses.replace(players, sampler=players.sampler.parking())
        attempts = sample_attempts(workspace, players.sampler, players.actor, part, first)
        asked = [problem for problem in part for _ in range(n)]
        made, more = strategies.parallel(
            dataclasses.replace(conditions, players=players), attempts, asked, first_id=first * n
        )
        return made, more + episode_lib.sampled_tokens(attempts)

    return workspace.in_parts(folder, test_problems(workspace), description='evaluate', make=make)


def after_parallel(
    workspace: Workspace,
    folder: pathlib.Path,
    conditions: strategies.Conditions,
    episodes: Sequence[Episode],
    strategy: strategies.Strategy,
) -> tuple[list[Episode], int]:
    """(episodes of a strategy that goes on from those of `parallel`, newly generated tokens)."""
    n, problems = workspace.settings.evaluate.num_attempts, test_problems(workspace)
    asked = [problem for problem in problems for _ in range(n)]

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        chosen = slice(first * n, (first + len(part)) * n)
        return strategy(conditions, episodes[chosen], asked[chosen], first_id=first * n)

    name = strategy.__name__
    return workspace.in_parts(folder / name, problems, description=name, make=make)


def make_conditions(
    workspace: Workspace, actor: Transformer, critic: Transformer
) -> strategies.Conditions:
    s = workspace.settings.evaluate
    return strategies.Conditions(
        players=workspace.players(workspace.sampler(), actor, critic),
        scorer=workspace.scorer(),
        method=workspace.sampling_method,
        refine=s.refine,
        num_rounds=s.num_rounds,
        seed=workspace.seed('evaluate'),
    )


def sample_attempts(
    workspace: Workspace,
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    first: int,
) -> list[Episode]:
    """Attempts at test problems from number `first` on, the same noise for every actor."""
    n = workspace.settings.evaluate.num_attempts
    return episode_lib.attempts(
        sampler,
        actor,
        problems,
        judge=workspace.judge,
        num_samples=n,
        method=workspace.sampling_method,
        seed=workspace.seed('evaluate'),
        first_id=first * n,
    )


def search(
    workspace: Workspace, folder: pathlib.Path, conditions: strategies.Conditions
) -> tuple[list[Episode], int]:
    """Step beam search at the first test problems."""
    s, lines = workspace.settings.evaluate.beam, workspace.line_sampler()
    conditions = dataclasses.replace(conditions, seed=workspace.seed('beam'))

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        found = beam_lib.beam_search(s, conditions, lines, part, first_id=first * s.ids)
        return found, sum(sum(e.outcome['tokens'].values()) for e in found)

    problems = test_problems(workspace)[: s.num_problems]
    return workspace.in_parts(folder / 'beam', problems, description='beam', make=make)


def attempts_only(workspace: Workspace, folder: pathlib.Path, actor: Transformer) -> dict:
    """Accuracy by level of an actor alone, on the same problems and with the same noise."""
    s, problems = workspace.settings.evaluate, test_problems(workspace)

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        episodes = sample_attempts(workspace, workspace.sampler(), actor, part, first)
        return episodes, episode_lib.sampled_tokens(episodes)

    episodes, tokens = workspace.in_parts(
        folder / 'test', problems, description='evaluate', make=make
    )
    groups = [episodes[i : i + s.num_attempts] for i in range(0, len(episodes), s.num_attempts)]
    right = [np.mean([e.outcome['correct'] for e in group]) for group in groups]
    solved = [float(any(e.outcome['correct'] for e in group)) for group in groups]
    return {
        'accuracy': {'attempt': by_level(workspace, problems, right)},
        'coverage': by_level(workspace, problems, solved),
        'spurious': critic_metrics.spurious_share(episodes),
        'tokens_per_answer': {'attempt': tokens / len(episodes)},
    }


# Figures


def curves(s: EvaluateSettings, played: Played) -> dict[str, list[Point]]:
    """The points of every arm that was sampled."""
    groups = played.groups
    arms = curve_lib.parallel_arms(groups)
    if s.num_rounds > 1:
        arms |= curve_lib.sequential_arms(groups, played.rounds, num_rounds=s.num_rounds)
    if s.oracle:
        arms[curve_lib.ORACLE] = curve_lib.oracle_arm(groups, played.oracle)
    points = {
        name: [
            curve_lib.point(arm, played.right, size=size, num_draws=s.num_draws)
            for size in curve_lib.sizes(s.num_attempts)
        ]
        for name, arm in arms.items()
    }
    if s.num_rounds > 1:
        points |= round_points(s, played)
    if played.beams:
        points['beam search'] = [curve_lib.found(played.beams, size=s.beam.width)]
    return points


def round_points(s: EvaluateSettings, played: Played) -> dict[str, list[Point]]:
    """One chain after each round; the size of a point is the number of rounds."""
    points = collections.defaultdict(list)
    for rounds in range(1, s.num_rounds + 1):
        arms = curve_lib.sequential_arms(played.groups, played.rounds, num_rounds=rounds)
        for name, arm in arms.items():
            point = curve_lib.point(arm, played.right, size=1, num_draws=s.num_draws)
            points[name.replace('majority', 'rounds')].append(point._replace(size=rounds))
    return dict(points)


def right_answers(problems, groups, rounds, oracle) -> list[set[str]]:
    """What is right at each problem, by its reference and by every judgement of an episode."""
    ids = iter(range(sum(map(len, groups))))
    right = []
    for problem, group in zip(problems, groups, strict=True):
        episodes = list(group)
        for i in (next(ids) for _ in group):
            episodes += [*rounds.get(i, ()), *([oracle[i]] if i in oracle else [])]
        right.append(curve_lib.right_answers(episodes, answers.canonical(problem.answer)))
    return right


def majorities(s: EvaluateSettings, played: Played) -> Callable[[int], Point]:
    """The plain majority of any number of attempts."""
    arm = curve_lib.parallel_arms(played.groups)['majority']
    return functools.cache(
        lambda size: curve_lib.point(arm, played.right, size=size, num_draws=s.num_draws)
    )


def at_equal_tokens(s: EvaluateSettings, plain: Callable[[int], Point], other: Point) -> Point:
    """The plain majority that costs most nearly what another point does, at its questions."""
    n = len(other.right)
    one, cost = np.mean(plain(1).tokens[:n]), np.mean(other.tokens)
    found = plain(min(range(1, s.num_attempts + 1), key=lambda k: abs(k * one - cost)))
    return Point(found.size, *(values[:n] for values in found[1:]))


def summarise(workspace: Workspace, played: Played, points: Mapping[str, list[Point]]) -> dict:
    """Every figure of METHODS 4 and 9."""
    s, problems = workspace.settings.evaluate, played.problems
    episodes = [e for group in played.groups for e in group]
    plain = majorities(s, played)
    return accuracy_and_cost(workspace, played, points, plain) | {
        'critic': critic_metrics.critic(episodes) | agreement(s, played.groups),
        'transitions': critic_metrics.transitions(episodes),
        'spurious': critic_metrics.spurious_share(episodes),
        'measures': measures_by_level(s, episodes),
        'curves': {
            arm: [told(workspace, problems, point) for point in found]
            for arm, found in points.items()
        },
        'equal_tokens': equal_tokens(workspace, problems, points, plain),
        'questions': len(problems),
        'attempts_per_question': s.num_attempts,
    }


def accuracy_and_cost(workspace: Workspace, played: Played, points, plain) -> dict:
    """The main arms by level, their tokens an answer, and what refinement wins."""
    s, problems, n = workspace.settings.evaluate, played.problems, len(played.groups[0])
    main = {
        'attempt': plain(1),
        'refined': points['refined majority'][0],
        **{
            f'{arm}@{point.size}': point
            for arm in ('majority', 'refined majority')
            for point in points[arm]
            if point.size > 1
        },
    }
    equal = at_equal_tokens(s, plain, main['refined'])
    name = f'majority@{equal.size}'
    main[name] = equal
    right = {arm: point.right for arm, point in main.items()}
    right[f'pass@{n}'] = [
        votes.pass_at_k(n, sum(e.outcome['correct'] for e in g), k=n) for g in played.groups
    ]
    pairs = {'refined-attempt': ('refined', 'attempt'), f'refined-{name}': ('refined', name)}
    return {
        'accuracy': {arm: by_level(workspace, problems, v) for arm, v in right.items()},
        'difference': {
            pair: by_level(workspace, problems, right[a], right[b])
            for pair, (a, b) in pairs.items()
        },
        'tokens_per_answer': {arm: float(np.mean(p.tokens)) for arm, p in main.items()},
    }


def equal_tokens(workspace: Workspace, problems, points, plain) -> dict[str, dict]:
    """Every point against the plain majority at the nearest cost, paired by question.

    Both costs are told: where attempts are too few, the majority had less to spend.
    """
    s, table = workspace.settings.evaluate, {}
    for arm, point in ((a, p) for a, found in points.items() if a != 'majority' for p in found):
        equal = at_equal_tokens(s, plain, point)
        asked = problems[: len(point.right)]
        table[f'{arm}@{point.size}'] = {
            'against': f'majority@{equal.size}',
            'tokens': [float(np.mean(p.tokens)) for p in (point, equal)],
            'questions': len(asked),
            'difference': by_level(workspace, asked, point.right, equal.right),
        }
    return table


def told(workspace: Workspace, problems: Sequence[Problem], point: Point) -> dict:
    """A point of a curve: accuracy and tokens by level, model calls by role."""
    problems = problems[: len(point.right)]
    roles = sorted({role for calls in point.calls for role in calls})
    levels = levels_of(problems)
    return {
        'size': point.size,
        'questions': len(problems),
        'accuracy': by_level(workspace, problems, point.right),
        'tokens': {n: float(np.mean([point.tokens[i] for i in at])) for n, at in levels.items()},
        'calls': {r: float(np.mean([c.get(r, 0.0) for c in point.calls])) for r in roles},
    }


def measures_by_level(s: EvaluateSettings, episodes: Sequence[Episode]) -> dict[str, dict]:
    """All measures of attempts, critiques and refinements, for all levels and each."""

    def uncertainty(chosen: Sequence[Episode]) -> list[dict]:
        n = s.num_attempts
        groups = [chosen[i : i + n] for i in range(0, len(chosen), n)]
        return critic_metrics.uncertainty(groups, num_bins=s.num_bins)

    found = {
        'critic': critic_metrics.critic,
        'transitions': critic_metrics.transitions,
        'confidence_and_critique': critic_metrics.confidence_and_critique,
        'spurious': critic_metrics.spurious_share,
        'detection': critic_metrics.detection,
        'uncertainty': uncertainty,
        'calibration': lambda chosen: critic_metrics.calibration(chosen, num_bins=s.num_bins),
    }
    return {name: critic_metrics.by_level(episodes, measure) for name, measure in found.items()}


def agreement(s: EvaluateSettings, groups: Sequence[Sequence[Episode]]) -> dict:
    """Discriminability with its interval over questions, where there is a critique to read."""
    parsed = [[e for e in group if e.outcome['verdict'] is not None] for group in groups]
    parsed = [group for group in parsed if group]
    if not parsed:
        return {}
    interval = votes.bootstrap_ratio(
        [sum(e.outcome['verdict'] is bool(e.outcome['correct']) for e in g) for g in parsed],
        [len(group) for group in parsed],
        num_resamples=s.num_resamples,
        seed=0,
        level=s.confidence,
    )
    return {'discriminability': list(interval)}


def by_level(
    workspace: Workspace,
    problems: Sequence[Problem],
    values: Sequence[float],
    against: Sequence[float] | None = None,
) -> Table:
    """[mean, low, high] over questions, for all and by level; of the paired difference if asked."""
    s = workspace.settings.evaluate
    return {
        level: list(
            votes.bootstrap(
                [values[i] for i in chosen],
                None if against is None else [against[i] for i in chosen],
                num_resamples=s.num_resamples,
                seed=0,
                level=s.confidence,
            )
        )
        for level, chosen in levels_of(problems).items()
    }


def levels_of(problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Indices of the problems of each level, and of all."""
    levels = collections.defaultdict(list)
    for i, problem in enumerate(problems):
        levels['all'].append(i)
        levels[str(problem.level)].append(i)
    return dict(sorted(levels.items()))


STAGES = {'evaluate': evaluate}
