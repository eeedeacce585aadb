"""Computes the figures of the stage `evaluate` from episodes: accuracy, cost, critic metrics."""

import collections
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.grading import answers
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.sampling.metrics import cost_curves, critic_metrics, statistics
from elenchus.sampling.metrics.cost_curves import Point
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.stages import frontier_figures

Table = dict[str, list[float]]
"""Level, 'all', or one of several sets of problems -> [mean, low, high]."""


class EvaluationEpisodes(NamedTuple):
    """Everything that was sampled for the test problems."""

    groups: Sequence[RolloutGroup]  # attempts with critique and refinement
    rounds: Mapping[int, Sequence[Episode]]  # later rounds, by the index of the attempt
    oracle: Mapping[int, Episode]  # refinements after the truth, by the index of the attempt
    beams: Sequence[Episode]  # beam search, for the first problems
    trees: Sequence[Episode]  # tree search, likewise
    right: Sequence[set[str]]  # the answers that count as right, by problem

    @property
    def problems(self) -> list[Problem]:
        """The problem of each group."""
        return [group.problem for group in self.groups]


def summarise(s: EvaluateSettings, episodes: EvaluationEpisodes) -> dict:
    """Computes every figure of the stage; see docs/methods.md, 'Test time' and 'Measures'."""
    points = curve_points(s, episodes)
    flat = [e for group in episodes.groups for e in group]
    plain = plain_majority(s, episodes)
    return accuracy_and_cost(s, episodes, points, plain=plain) | {
        'critic': critic_metrics.critic(flat) | agreement(s, episodes.groups),
        'transitions': critic_metrics.transitions(flat),
        'spurious': critic_metrics.spurious_share(flat),
        'measures': metrics_by_level(s, flat),
        'curves': {
            arm: [point_summary(s, episodes.problems, point) for point in arm_points]
            for arm, arm_points in points.items()
        },
        'equal_tokens': at_equal_tokens(s, episodes.problems, points, plain=plain),
        'questions': len(episodes.problems),
        'attempts_per_question': s.num_attempts,
        **frontier_figures.summarise(s, episodes.problems, points, plain=plain),
    }


def curve_points(s: EvaluateSettings, episodes: EvaluationEpisodes) -> dict[str, list[Point]]:
    """Returns the points of every arm that was sampled."""
    groups = episodes.groups
    arms = cost_curves.parallel_arms(groups)
    if s.num_rounds > 1:
        arms |= cost_curves.sequential_arms(groups, episodes.rounds, num_rounds=s.num_rounds)
    if s.oracle:
        arms[cost_curves.ORACLE] = cost_curves.oracle_arm(groups, episodes.oracle)
    points = {
        name: [
            cost_curves.point(arm, episodes.right, size=size, num_draws=s.num_draws)
            for size in cost_curves.sizes(s.num_attempts)
        ]
        for name, arm in arms.items()
    }
    if s.num_rounds > 1:
        points |= round_points(s, episodes)
    if episodes.beams:
        points['beam search'] = [cost_curves.recall_point(episodes.beams, size=s.beam.width)]
    if episodes.trees:
        points['tree search'] = [cost_curves.recall_point(episodes.trees, size=1)]
    return points


def round_points(s: EvaluateSettings, episodes: EvaluationEpisodes) -> dict[str, list[Point]]:
    """Returns the points of one chain of refinements after 1, 2, ... rounds, their `size`."""
    points = collections.defaultdict(list)
    for rounds in range(1, s.num_rounds + 1):
        arms = cost_curves.sequential_arms(episodes.groups, episodes.rounds, num_rounds=rounds)
        for name, arm in arms.items():
            point = cost_curves.point(arm, episodes.right, size=1, num_draws=s.num_draws)
            points[name.replace('majority', 'rounds')].append(point._replace(size=rounds))
    return dict(points)


def right_answers(
    groups: Sequence[RolloutGroup],
    *,
    rounds: Mapping[int, Sequence[Episode]],
    oracle: Mapping[int, Episode],
) -> list[set[str]]:
    """Returns the answers that are right for each problem: its reference, and all judged right."""
    indices = iter(range(sum(map(len, groups))))
    right = []
    for group in groups:
        episodes = list(group)
        for i in (next(indices) for _ in group):
            episodes += [*rounds.get(i, ()), *([oracle[i]] if i in oracle else [])]
        right.append(cost_curves.right_answers(episodes, answers.canonical(group.problem.answer)))
    return right


def plain_majority(s: EvaluateSettings, episodes: EvaluationEpisodes) -> Callable[[int], Point]:
    """Returns a function: number of attempts -> point of their majority vote."""
    arm = cost_curves.parallel_arms(episodes.groups)['majority']
    return functools.cache(
        lambda size: cost_curves.point(arm, episodes.right, size=size, num_draws=s.num_draws)
    )


def nearest_majority(s: EvaluateSettings, plain: Callable[[int], Point], other: Point) -> Point:
    """Returns the majority vote whose mean cost is nearest to that of `other`, on its questions."""
    n = len(other.right)
    one, cost = np.mean(plain(1).tokens[:n]), np.mean(other.tokens)
    nearest = plain(min(range(1, s.num_attempts + 1), key=lambda k: abs(k * one - cost)))
    return Point(nearest.size, *(values[:n] for values in nearest[1:]))


def accuracy_and_cost(
    s: EvaluateSettings,
    episodes: EvaluationEpisodes,
    points: Mapping[str, list[Point]],
    *,
    plain: Callable[[int], Point],
) -> dict:
    """Returns the main arms by level, their tokens an answer, and what refinement adds."""
    problems, n = episodes.problems, len(episodes.groups[0])
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
    equal = nearest_majority(s, plain, main['refined'])
    name = f'majority@{equal.size}'
    main[name] = equal
    right = {arm: point.right for arm, point in main.items()}
    right[f'pass@{n}'] = [
        statistics.pass_at_k(n, sum(e.attempt.facts.correct for e in g), k=n)
        for g in episodes.groups
    ]
    pairs = {'refined-attempt': ('refined', 'attempt'), f'refined-{name}': ('refined', name)}
    return {
        'accuracy': {arm: by_level(s, problems, v) for arm, v in right.items()},
        'difference': {
            pair: by_level(s, problems, right[a], baseline=right[b])
            for pair, (a, b) in pairs.items()
        },
        'tokens_per_answer': {arm: float(np.mean(p.tokens)) for arm, p in main.items()},
        'by_question': by_question(problems, right),
    }


def at_equal_tokens(
    s: EvaluateSettings,
    problems: Sequence[Problem],
    points: Mapping[str, list[Point]],
    *,
    plain: Callable[[int], Point],
) -> dict[str, dict]:
    """Compares every point with the majority vote of the nearest cost, paired by question.

    The table has both costs, because they differ where too few attempts were sampled for a majority
    as expensive as the point.
    """
    table = {}
    others = {arm: arm_points for arm, arm_points in points.items() if arm != 'majority'}
    for arm, point in ((arm, p) for arm, arm_points in others.items() for p in arm_points):
        equal = nearest_majority(s, plain, point)
        compared = problems[: len(point.right)]
        table[f'{arm}@{point.size}'] = {
            'against': f'majority@{equal.size}',
            'tokens': [float(np.mean(p.tokens)) for p in (point, equal)],
            'questions': len(compared),
            'difference': by_level(s, compared, point.right, baseline=equal.right),
        }
    return table


def point_summary(s: EvaluateSettings, problems: Sequence[Problem], point: Point) -> dict:
    """Returns a point of a curve: accuracy, sampled and processed tokens by level, calls by role.

    Processed tokens are None where an episode has not counted them.
    """
    problems = problems[: len(point.right)]
    roles = sorted({role for calls in point.calls for role in calls})
    levels = indices_by_level(problems)
    return {
        'size': point.size,
        'questions': len(problems),
        'accuracy': by_level(s, problems, point.right),
        'tokens': {n: float(np.mean([point.tokens[i] for i in at])) for n, at in levels.items()},
        'processed': {n: _known_mean([point.processed[i] for i in at]) for n, at in levels.items()},
        'calls': {r: float(np.mean([c.get(r, 0.0) for c in point.calls])) for r in roles},
    }


def _known_mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def metrics_by_level(s: EvaluateSettings, episodes: Sequence[Episode]) -> dict[str, dict]:
    """Returns all metrics of attempts, critiques and refinements, for all levels and each."""

    def uncertainty(chosen: Sequence[Episode]) -> list[dict]:
        n = s.num_attempts
        groups = [chosen[i : i + n] for i in range(0, len(chosen), n)]
        return critic_metrics.uncertainty(groups, num_bins=s.num_bins)

    metrics = {
        'critic': critic_metrics.critic,
        'transitions': critic_metrics.transitions,
        'confidence_and_critique': critic_metrics.confidence_and_critique,
        'spurious': critic_metrics.spurious_share,
        'detection': critic_metrics.detection,
        'uncertainty': uncertainty,
        'calibration': lambda chosen: critic_metrics.calibration(chosen, num_bins=s.num_bins),
    }
    return {name: critic_metrics.by_level(episodes, metric) for name, metric in metrics.items()}


def agreement(s: EvaluateSettings, groups: Sequence[Sequence[Episode]]) -> dict:
    """Returns discriminability with its interval over questions; {} without readable critiques."""
    parsed = [[e for e in group if e.critique.facts.verdict is not None] for group in groups]
    parsed = [group for group in parsed if group]
    if not parsed:
        return {}
    interval = statistics.bootstrap_ratio(
        [sum(e.critique.facts.verdict is bool(e.attempt.facts.correct) for e in g) for g in parsed],
        [len(group) for group in parsed],
        num_resamples=s.num_resamples,
        seed=0,
        level=s.confidence,
    )
    return {'discriminability': list(interval)}


def by_level(
    s: EvaluateSettings,
    problems: Sequence[Problem],
    values: Sequence[float],
    *,
    baseline: Sequence[float] | None = None,
) -> Table:
    """Returns mean and bootstrap interval over questions, for all levels and each.

    With a `baseline`, those of the paired difference to it.
    """
    return {
        level: list(
            statistics.bootstrap(
                [values[i] for i in chosen],
                None if baseline is None else [baseline[i] for i in chosen],
                num_resamples=s.num_resamples,
                seed=0,
                level=s.confidence,
            )
        )
        for level, chosen in indices_by_level(problems).items()
    }


def by_question(problems: Sequence[Problem], right: Mapping[str, Sequence[float]]) -> dict:
    """Returns the accuracy of every arm at each question, for the stage's questions.json.

    Comparisons of several runs resample questions, which no summary has. `digest` tells whether
    two runs answered the same questions: an id does not, when problems are generated by seed.
    """
    texts = '\n'.join(problem.question for problem in problems)
    return {
        'digest': hashlib.sha256(texts.encode()).hexdigest()[:16],
        'levels': [str(problem.level) for problem in problems],
        'accuracy': {arm: [float(value) for value in values] for arm, values in right.items()},
    }


def indices_by_level(problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Returns the indices of the problems of each level, of 'all', and of each of several sets.

    A problem's set is what its id begins with, as `asdiv` of `asdiv/12`. Sets of which one has the
    name of a level, as `2` of the exercise `2/12`, have no rows of their own.
    """
    groups = collections.defaultdict(list)
    sets = [problem.id.partition('/')[0] for problem in problems]
    has_several = len(set(sets)) > 1 and all('/' in problem.id for problem in problems)
    has_several &= not {'all', *(str(problem.level) for problem in problems)} & set(sets)
    for i, problem in enumerate(problems):
        groups['all'].append(i)
        groups[str(problem.level)].append(i)
        if has_several:
            groups[sets[i]].append(i)
    return dict(sorted(groups.items()))
