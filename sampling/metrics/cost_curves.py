"""Accuracy against cost: what each way to answer a question is worth, and what it takes.

An arm is a way to choose among attempts; at a size k it is given k of a question's attempts. Its
worth is the chance that the chosen answer is right, over sets of k of the attempts there are.
"""

import collections
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

from elenchus.data import records
from elenchus.data.records import Episode
from elenchus.sampling.metrics import critic_metrics
from elenchus.sampling.test_time import votes

ORACLE = 'oracle majority (upper bound)'
"""Needs the truth to know which attempts are wrong; no method."""

Decide = Callable[[Sequence[str | None], Sequence[float]], str | None]
"""(answers, their scores) -> the answer that is given."""


class Candidate(NamedTuple):
    """One attempt's part in a choice: its answers with their scores, and what they cost."""

    answers: tuple[str | None, ...]
    scores: tuple[float, ...]
    tokens: Mapping[str, int]  # by role
    calls: Mapping[str, int]  # by role


class Arm(NamedTuple):
    """How to choose, and among what, by question."""

    decide: Decide
    groups: Sequence[Sequence[Candidate]]


class Point(NamedTuple):
    """An arm at one size, by question: chance to be right, generated tokens, calls by role."""

    size: int
    right: list[float]
    tokens: list[float]
    calls: list[dict[str, float]]


def sizes(num_attempts: int) -> list[int]:
    """1, 2, 4, ... attempts, and all of them."""
    powers = [2**i for i in range(num_attempts.bit_length())]
    return sorted({*powers, num_attempts})


def right_answers(episodes: Iterable[Episode], reference: str | None) -> set[str]:
    """Answers that are right at a question: the reference, and what the judge called right."""
    right = {reference}
    for outcome in (episode.outcome for episode in episodes):
        for name in ('', 'refined_'):
            if outcome.get(f'{name}correct', False):
                right.add(outcome[f'{name}answer'])
    return right - {None}


def point(arm: Arm, right: Sequence[Collection[str]], *, size: int, num_draws: int) -> Point:
    """An arm given `size` attempts; right[q] are the right answers of question q.

    Tokens and calls are expected ones, `size` times the mean of a question's attempts.
    """
    num_attempts = len(arm.groups[0])
    chosen = votes.subsets(num_attempts, size, num_draws=num_draws, seed=0)
    share = size / num_attempts
    values, tokens, calls = [], [], []
    for group, correct in zip(arm.groups, right, strict=True):
        answers = [_decided(arm, [group[i] for i in subset]) for subset in chosen]
        values.append(sum(answer in correct for answer in answers) / len(answers))
        tokens.append(share * sum(sum(c.tokens.values()) for c in group))
        counts = _sum(c.calls for c in group)
        calls.append({role: share * count for role, count in counts.items()})
    return Point(size, values, tokens, calls)


def found(episodes: Sequence[Episode], *, size: int) -> Point:
    """The point of a search that gives one answer a question, in an episode of its own."""
    return Point(
        size,
        [float(e.outcome['correct']) for e in episodes],
        [float(sum(e.outcome['tokens'].values())) for e in episodes],
        [dict(e.outcome['calls']) for e in episodes],
    )


def _decided(arm: Arm, candidates: Sequence[Candidate]) -> str | None:
    answers = [answer for c in candidates for answer in c.answers]
    return arm.decide(answers, [score for c in candidates for score in c.scores])


def _majority(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    return votes.majority(answers)


# Arms of attempts that `strategies.parallel` played, as groups by question


def parallel_arms(groups: Sequence[Sequence[Episode]]) -> dict[str, Arm]:
    """Majorities before and after refinement, and choices by aggregated step rewards."""
    arms = {
        'majority': Arm(_majority, _candidates(groups, _first_answer, ('attempt',))),
        'refined majority': Arm(
            _majority, _candidates(groups, critic_metrics.final_answer, records.PLAYER_OF_ROLE)
        ),
    }
    for how in get_args(votes.Aggregate):
        scored = _candidates(groups, _first_answer, ('attempt', 'critique'), how)
        arms[f'best of n ({how})'] = Arm(votes.best_of_n, scored)
        arms[f'weighted majority ({how})'] = Arm(votes.majority, scored)
    return arms


def oracle_arm(groups: Sequence[Sequence[Episode]], refined: Mapping[int, Episode]) -> Arm:
    """Majority after refinement of truly wrong attempts alone; `refined` by the attempt's id."""
    ids = iter(range(sum(map(len, groups))))
    candidates = []
    for group in groups:
        pairs = [(refined.get(next(ids)), episode) for episode in group]
        candidates.append(
            [
                _candidate(episode, _first_answer, ('attempt',))
                if played is None
                else _candidate(played, critic_metrics.final_answer, records.PLAYER_OF_ROLE)
                for played, episode in pairs
            ]
        )
    return Arm(_majority, candidates)


# Arms of sequential rounds


def sequential_arms(
    groups: Sequence[Sequence[Episode]], rounds: Mapping[int, Sequence[Episode]], *, num_rounds: int
) -> dict[str, Arm]:
    """Majority over chains of the first `num_rounds` rounds: of last answers, or of all given.

    groups are the first rounds, `rounds` the later ones by the id of the first round's attempt.
    """
    ids = iter(range(sum(map(len, groups))))
    chains = [[(e, *rounds.get(next(ids), ())) for e in group] for group in groups]
    return {
        f'sequential majority ({which})': Arm(
            _majority, [[_chain(c, num_rounds, which) for c in group] for group in chains]
        )
        for which in ('last', 'all')
    }


def _chain(chain: Sequence[Episode], num_rounds: int, which: str) -> Candidate:
    """What a chain answers after so many rounds; one that ended repeats its last answer.

    The latest answer comes first, so that it wins where votes are equal.
    """
    answers = [_first_answer(chain[0]), *(critic_metrics.final_answer(e) for e in chain)]
    answers += answers[-1:] * (num_rounds + 1 - len(answers))
    answers = answers[: num_rounds + 1][::-1]
    told = tuple(answers[:1] if which == 'last' else answers)
    tokens, calls = (
        _sum(e.outcome[name] for e in chain[:num_rounds]) for name in ('tokens', 'calls')
    )
    return Candidate(told, (1.0,) * len(told), tokens, calls)


# Pieces


def _candidates(groups, answer, roles, how: votes.Aggregate | None = None):
    return [[_candidate(e, answer, roles, how) for e in group] for group in groups]


def _candidate(
    episode: Episode,
    answer: Callable[[Episode], str | None],
    roles: Sequence[str],
    how: votes.Aggregate | None = None,
) -> Candidate:
    """An episode's answer with its score, 1 where no step rewards are asked for."""
    steps = episode.turn('attempt').step_scores
    tokens, calls = (
        {role: count for role, count in episode.outcome[name].items() if role in roles}
        for name in ('tokens', 'calls')
    )
    score = 1.0 if how is None else votes.aggregate(steps, how)
    return Candidate((answer(episode),), (score,), tokens, calls)


def _first_answer(episode: Episode) -> str | None:
    return episode.outcome['answer']


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(total)
