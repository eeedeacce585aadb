"""Accuracy against sampled tokens for every way to choose an answer.

An arm is a way to choose one answer among k attempts at a question. Its accuracy at size k is the
probability that the chosen answer is correct, averaged over sets of k of the sampled attempts.
"""

import collections
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

from elenchus.data import records
from elenchus.data.records import Episode
from elenchus.sampling.metrics import critic_metrics, statistics
from elenchus.sampling.test_time import votes

ORACLE = 'oracle majority (upper bound)'
"""Uses the reference answers to pick the wrong attempts; an upper bound, not a method."""

Decide = Callable[[Sequence[str | None], Sequence[float]], votes.Shares]
"""(answers, their scores) -> the probability of each answer that may be chosen."""


class Candidate(NamedTuple):
    """One attempt in a choice: its answers with their scores, and its cost."""

    answers: tuple[str | None, ...]
    scores: tuple[float, ...]
    tokens: Mapping[str, int]  # by role
    calls: Mapping[str, int]  # by role
    processed: Mapping[str, int] | None  # by role; None = not counted


class Arm(NamedTuple):
    """A rule of choice, and the candidates of each question."""

    decide: Decide
    groups: Sequence[Sequence[Candidate]]


class Point(NamedTuple):
    """An arm at one size, with one entry per question."""

    size: int
    right: list[float]  # probability of a correct answer
    tokens: list[float]  # expected number of sampled tokens
    calls: list[dict[str, float]]  # expected number of model calls, by role
    processed: list[float | None]  # expected number of processed tokens; None = not counted


def sizes(num_attempts: int) -> list[int]:
    """Returns 1, 2, 4, ... up to num_attempts, and num_attempts itself."""
    powers = [2**i for i in range(num_attempts.bit_length())]
    return sorted({*powers, num_attempts})


def right_answers(episodes: Iterable[Episode], reference: str | None) -> set[str]:
    """Collects the spellings of a question's correct answer.

    These are the reference and every answer that the judge called correct in `episodes`.
    """
    facts = [turn.facts for episode in episodes for turn in episode.turns]
    return ({reference} | {f.answer for f in facts if f.correct}) - {None}


def point(arm: Arm, right: Sequence[Collection[str]], *, size: int, num_draws: int) -> Point:
    """Evaluates an arm with `size` attempts; right[q] are the correct answers of question q.

    Costs are expectations: `size` times the mean over a question's attempts.
    """
    num_attempts = len(arm.groups[0])
    # A fixed seed: all arms are averaged over the same sets, so their differences are paired.
    chosen = statistics.subsets(num_attempts, size, num_draws=num_draws, seed=0)
    share = size / num_attempts
    values, tokens, calls, processed = [], [], [], []
    for group, correct in zip(arm.groups, right, strict=True):
        worth = [_share_right(arm, [group[i] for i in subset], correct) for subset in chosen]
        values.append(sum(worth) / len(worth))
        tokens.append(share * sum(sum(c.tokens.values()) for c in group))
        counts = _sum(c.calls for c in group)
        calls.append({role: share * count for role, count in counts.items()})
        total = _total(c.processed for c in group)
        processed.append(None if total is None else share * total)
    return Point(size, values, tokens, calls, processed)


def recall_point(episodes: Sequence[Episode], *, size: int) -> Point:
    """Point of a search that already chose one answer per question: one episode each."""
    return Point(
        size,
        [float(e.attempt.facts.correct) for e in episodes],
        [float(sum(e.facts.tokens.values())) for e in episodes],
        [dict(e.facts.calls) for e in episodes],
        [_total([e.facts.processed]) for e in episodes],
    )


def _share_right(arm: Arm, candidates: Sequence[Candidate], correct: Collection[str]) -> float:
    """Returns the probability that the arm chooses a correct answer among the candidates'."""
    answers = [answer for c in candidates for answer in c.answers]
    shares = arm.decide(answers, [score for c in candidates for score in c.scores])
    return sum(share for answer, share in shares.items() if answer in correct)


def _majority(answers: Sequence[str | None], scores: Sequence[float]) -> votes.Shares:
    return votes.majority(answers)


def _best_of_n(answers: Sequence[str | None], scores: Sequence[float]) -> votes.Shares:
    best = votes.best_of_n(answers, scores)
    return {} if best is None else {best: 1.0}


# Arms over the episodes of `strategies.parallel`, grouped by question


def parallel_arms(groups: Sequence[Sequence[Episode]]) -> dict[str, Arm]:
    """Majorities before and after refinement, and choices by aggregated step rewards."""
    arms = {
        'majority': Arm(_majority, _candidates(groups, _first_answer, ('attempt',))),
        'refined majority': Arm(
            _majority, _candidates(groups, critic_metrics.final_answer, records.PLAYER_OF_ROLE)
        ),
    }
    for how in get_args(votes.Aggregate):
        scored = _candidates(groups, _first_answer, ('attempt', 'critique'), how=how)
        arms[f'best of n ({how})'] = Arm(_best_of_n, scored)
        arms[f'weighted majority ({how})'] = Arm(votes.majority, scored)
    return arms


def oracle_arm(groups: Sequence[Sequence[Episode]], refined: Mapping[int, Episode]) -> Arm:
    """Majority after refinement of the really wrong attempts; `refined` is by attempt id."""
    ids = iter(range(sum(map(len, groups))))
    candidates = []
    for group in groups:
        pairs = [(refined.get(next(ids)), episode) for episode in group]
        candidates.append(
            [
                _candidate(episode, _first_answer, ('attempt',))
                if after is None
                else _candidate(after, critic_metrics.final_answer, records.PLAYER_OF_ROLE)
                for after, episode in pairs
            ]
        )
    return Arm(_majority, candidates)


# Arms over sequential rounds


def sequential_arms(
    groups: Sequence[Sequence[Episode]], rounds: Mapping[int, Sequence[Episode]], *, num_rounds: int
) -> dict[str, Arm]:
    """Majority over chains after `num_rounds` rounds: of their last answers, or of all answers.

    `groups` are the first rounds; `rounds` has the later ones by the id of the chain.
    """
    ids = iter(range(sum(map(len, groups))))
    chains = [[(e, *rounds.get(next(ids), ())) for e in group] for group in groups]
    return {
        f'sequential majority ({which})': Arm(
            votes.latest_majority,
            [[_chain_candidate(c, num_rounds, which) for c in group] for group in chains],
        )
        for which in ('last', 'all')
    }


def _chain_candidate(chain: Sequence[Episode], num_rounds: int, which: str) -> Candidate:
    """Answers and cost of a chain's first `num_rounds` rounds.

    A chain that ended earlier repeats its last answer. The score of an answer is its round, because
    a chain's latest answer wins ties.
    """
    answers = [_first_answer(chain[0]), *(critic_metrics.final_answer(e) for e in chain)]
    # One answer before the first round, then one after each.
    answers += answers[-1:] * (num_rounds + 1 - len(answers))
    first = num_rounds if which == 'last' else 0
    answers = tuple(answers[first : num_rounds + 1])
    tokens, calls, processed = (
        _sum(getattr(e.facts, name) for e in chain[:num_rounds])
        for name in ('tokens', 'calls', 'processed')
    )
    rounds = tuple(float(first + i) for i in range(len(answers)))
    return Candidate(answers, rounds, tokens, calls, processed)


# Candidates


def _candidates(
    groups: Sequence[Sequence[Episode]],
    answer: Callable[[Episode], str | None],
    roles: Sequence[str],
    *,
    how: votes.Aggregate | None = None,
) -> list[list[Candidate]]:
    return [[_candidate(e, answer, roles, how=how) for e in group] for group in groups]


def _candidate(
    episode: Episode,
    answer: Callable[[Episode], str | None],
    roles: Sequence[str],
    *,
    how: votes.Aggregate | None = None,
) -> Candidate:
    """An episode's answer and its cost, counting only turns of `roles`, which the arm needs.

    The score aggregates the step rewards; it is 1 if `how` is None.
    """
    steps = episode.attempt.step_scores
    facts = episode.facts
    tokens, calls, processed = (
        None if counts is None else {role: n for role, n in counts.items() if role in roles}
        for counts in (facts.tokens, facts.calls, facts.processed)
    )
    score = 1.0 if how is None else votes.aggregate(steps, how)
    return Candidate((answer(episode),), (score,), tokens, calls, processed)


def _first_answer(episode: Episode) -> str | None:
    return episode.attempt.facts.answer


def _sum(counts: Iterable[Mapping[str, int] | None]) -> dict[str, int] | None:
    """Adds counts by role; None if one of them is unknown."""
    total = collections.Counter()
    for count in counts:
        if count is None:
            return None
        total.update(count)
    return dict(total)


def _total(counts: Iterable[Mapping[str, int] | None]) -> float | None:
    """Adds counts over all roles; None if one of them is unknown."""
    total = _sum(counts)
    return None if total is None else float(sum(total.values()))
