"""Evaluation on the test problems: attempt, critique and refinement, majority vote.

python -m scripts.evaluate --config configs/lab.py --workdir runs/lab
"""

import collections
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from data import verify
from data.records import Episode, Problem
from model.transformer import Transformer
from sampling import episodes as episode_lib
from sampling import vote
from scripts import command
from scripts.workspace import Workspace
from train.reinforce import score_steps

Table = dict[str, list[float]]


def evaluate(workspace: Workspace, folder: pathlib.Path) -> dict:
    """The two players at test time, against the actor alone."""
    s, problems = workspace.settings.evaluate, test_problems(workspace)
    actor, critic = workspace.load_model('actor'), workspace.load_model('critic')

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        episodes = two_player_episodes(workspace, actor, critic, part, first)
        return episodes, episode_lib.sampled_tokens(episodes)

    episodes, tokens = workspace.in_parts(folder, problems, description='evaluate', make=make)
    groups = [episodes[i : i + s.num_attempts] for i in range(0, len(episodes), s.num_attempts)]
    return two_player_summary(workspace, problems, groups) | {'tokens_sampled': tokens}


def test_problems(workspace: Workspace) -> Sequence[Problem]:
    return workspace.test_problems[: workspace.settings.evaluate.num_problems]


def two_player_episodes(
    workspace: Workspace,
    actor: Transformer,
    critic: Transformer,
    problems: Sequence[Problem],
    first: int,
) -> list[Episode]:
    """Attempts, each with its critique and step scores and, where due, one refinement."""
    s, sampler, seed = workspace.settings.evaluate, workspace.sampler(), workspace.seed('evaluate')
    first_id = first * s.num_attempts
    attempts = episode_lib.attempts(
        sampler,
        actor,
        problems,
        judge=workspace.judge,
        num_samples=s.num_attempts,
        method=workspace.sampling_method,
        seed=seed,
        first_id=first_id,
    )
    players = workspace.players(sampler, actor, critic)
    criticised = score_steps(
        players, attempts, scorer=workspace.scorer(), greedy=workspace.greedy_method, seed=seed + 1
    )
    asked = [p for p in problems for _ in range(s.num_attempts)]
    due = [
        i
        for i, e in enumerate(criticised)
        if s.refine == 'always' or e.outcome['verdict'] is not True
    ]
    refined = episode_lib.refinements(
        sampler,
        actor,
        [criticised[i] for i in due],
        [asked[i] for i in due],
        judge=workspace.judge,
        num_samples=1,
        method=workspace.sampling_method,
        seed=seed + 2,
        first_id=first_id,
    )
    for i, (episode,) in zip(due, refined, strict=True):
        criticised[i] = episode
    return criticised


def attempts_only(workspace: Workspace, folder: pathlib.Path, actor: Transformer) -> dict:
    """Accuracy by level of an actor alone, on the same problems and with the same noise."""
    s, problems, sampler = (
        workspace.settings.evaluate,
        test_problems(workspace),
        workspace.sampler(),
    )

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        episodes = episode_lib.attempts(
            sampler,
            actor,
            part,
            judge=workspace.judge,
            num_samples=s.num_attempts,
            method=workspace.sampling_method,
            seed=workspace.seed('evaluate'),
            first_id=first * s.num_attempts,
        )
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
        'spurious': spurious_share(episodes),
        'tokens_per_answer': {'attempt': tokens / len(episodes)},
    }


def by_level(
    workspace: Workspace,
    problems: Sequence[Problem],
    values: Sequence[float],
    against: Sequence[float] | None = None,
) -> Table:
    """[mean, low, high] over questions, for all and by level; of the paired difference if asked."""
    s = workspace.settings.evaluate
    levels = collections.defaultdict(list)
    for i, problem in enumerate(problems):
        levels['all'].append(i)
        levels[str(problem.level)].append(i)
    return {
        level: list(
            vote.bootstrap(
                [values[i] for i in chosen],
                None if against is None else [against[i] for i in chosen],
                num_resamples=s.num_resamples,
                seed=0,
                level=s.confidence,
            )
        )
        for level, chosen in sorted(levels.items())
    }


def two_player_summary(
    workspace: Workspace, problems: Sequence[Problem], groups: Sequence[Sequence[Episode]]
) -> dict:
    """Every figure of METHODS 4 that the report shows."""
    s, n = workspace.settings.evaluate, workspace.settings.evaluate.num_attempts
    references = [verify.canonical(problem.answer) for problem in problems]
    values = {
        'attempt': _means(groups, lambda e: e.outcome['correct']),
        'refined': _means(groups, _finally_correct),
    }
    cost = {
        'attempt': _mean_tokens(groups, ('attempt',)),
        'refined': _mean_tokens(groups, ('attempt', 'critique', 'refinement')),
    }
    for k in s.majority:
        for arm, answer in (('majority', _attempt_answer), ('refined majority', _final_answer)):
            values[f'{arm}@{k}'] = [
                vote.maj_at_k([answer(e) for e in group], right, k=k, num_draws=20, seed=i)
                for i, (group, right) in enumerate(zip(groups, references, strict=True))
            ]
            cost[f'{arm}@{k}'] = k * cost['attempt' if arm == 'majority' else 'refined']
    values[f'pass@{n}'] = [
        vote.pass_at_k(n, sum(e.outcome['correct'] for e in group), k=n) for group in groups
    ]
    equal = min(s.majority, key=lambda k: abs(k * cost['attempt'] - cost['refined']))
    pairs = {
        'refined-attempt': ('refined', 'attempt'),
        f'refined-majority@{equal}': ('refined', f'majority@{equal}'),
    }
    episodes = [e for group in groups for e in group]
    return {
        'accuracy': {arm: by_level(workspace, problems, v) for arm, v in values.items()},
        'difference': {
            name: by_level(workspace, problems, values[a], values[b])
            for name, (a, b) in pairs.items()
        },
        'critic': critic_metrics(episodes, workspace),
        'transitions': transitions(episodes),
        'tokens_per_answer': cost,
        'spurious': spurious_share(episodes),
        'questions': len(problems),
        'attempts_per_question': n,
    }


def critic_metrics(episodes: Sequence[Episode], workspace: Workspace) -> dict:
    """Discriminability (also apart for right and wrong attempts), location F1, parse rate."""
    parsed = [e for e in episodes if e.outcome['verdict'] is not None]
    agree = [float(e.outcome['verdict'] == e.outcome['correct']) for e in parsed]
    s = workspace.settings.evaluate
    interval = (
        list(vote.bootstrap(agree, num_resamples=s.num_resamples, seed=0, level=s.confidence))
        if agree
        else None
    )
    wrong = [e for e in episodes if not e.outcome['correct']]
    right = [e for e in episodes if e.outcome['correct']]
    share = lambda chosen, test: float(np.mean([test(e) for e in chosen])) if chosen else None  # noqa: E731
    told = {
        'discriminability': interval,
        'parse_rate': len(parsed) / len(episodes),
        'found': share(wrong, lambda e: e.outcome['verdict'] is False),
        'passed': share(right, lambda e: e.outcome['verdict'] is True),
    }
    if all('first_error' in e.outcome for e in episodes):
        told['first_error_f1'] = first_error_f1(
            [(e.outcome['located'], e.outcome['first_error']) for e in episodes]
        )
    return told


def first_error_f1(pairs: Sequence[tuple[int | None, int | None]]) -> float:
    """F1 of (located, true) first errors: a hit is the very line; None is no error."""
    hits = sum(located == true for located, true in pairs if true is not None)
    claimed, actual = (sum(pair[i] is not None for pair in pairs) for i in (0, 1))
    return 2 * hits / (claimed + actual) if claimed + actual else 0.0


def spurious_share(episodes: Sequence[Episode]) -> float | None:
    """Share of right answers reached through a wrong step; None where steps cannot be checked."""
    right = [e for e in episodes if e.outcome['correct']]
    if not right or 'steps_correct' not in right[0].outcome:
        return None
    return float(np.mean([not e.outcome['steps_correct'] for e in right]))


def transitions(episodes: Sequence[Episode]) -> dict[str, float]:
    """Shares of attempts by what became of them: c correct, i incorrect; helpfulness i2c / #i."""
    counts = collections.Counter(
        f'{"ic"[bool(e.outcome["correct"])]}2{"ic"[_finally_correct(e)]}' for e in episodes
    )
    shares = {name: counts[name] / len(episodes) for name in ('c2c', 'c2i', 'i2c', 'i2i')}
    wrong = counts['i2c'] + counts['i2i']
    return shares | {'helpfulness': counts['i2c'] / wrong if wrong else 0.0}


def _finally_correct(episode: Episode) -> bool:
    return bool(episode.outcome.get('refined_correct', episode.outcome['correct']))


def _attempt_answer(episode: Episode) -> str | None:
    return episode.outcome['answer']


def _final_answer(episode: Episode) -> str | None:
    return episode.outcome.get('refined_answer', episode.outcome['answer'])


def _means(groups, test: Callable[[Episode], bool]) -> list[float]:
    """Share of each group's episodes that pass."""
    return [float(np.mean([test(e) for e in group])) for group in groups]


def _mean_tokens(groups, roles: Sequence[str]) -> float:
    counts = [sum(len(t.tokens) for t in e.turns if t.role in roles) for g in groups for e in g]
    return float(np.mean(counts))


STAGES = {'evaluate': evaluate}

if __name__ == '__main__':
    command.run_stage_script(STAGES)
