"""What of an exploration is trained on: different responses, so many of a question."""

import collections
from collections.abc import Sequence

from elenchus.data.records import Episode
from elenchus.sampling.exploration.context import ExploreSettings, well_answered
from elenchus.sampling.exploration.controller import passes


def curate(explored: Sequence[Episode], settings: ExploreSettings, *, wrong: bool) -> list[Episode]:
    """Different right responses, at most `keep` a question, the first found; bare answers never.

    Of one attempt's right refinements the first `keep_refined` are considered. With `wrong` come
    different wrong responses, as many a question at most.
    """
    refined: collections.Counter = collections.Counter()
    seen: dict[tuple[str, bool], set] = collections.defaultdict(set)
    kept = []
    for episode in explored:
        right, attempt = well_answered(episode), episode.outcome.get('of')
        if not right and not wrong:
            continue
        if right and attempt is not None:
            refined[episode.problem_id, attempt] += 1
            if refined[episode.problem_id, attempt] > settings.keep_refined:
                continue
        responses, tokens = seen[episode.problem_id, right], episode.turns[-1].tokens
        if tokens not in responses and len(responses) < settings.keep:
            responses.add(tokens)
            kept.append(episode)
    return kept


def passing(kept: Sequence[Episode], *, threshold: float, keep: int) -> list[Episode]:
    """Right responses whose score reaches the threshold, the first `keep` of a question.

    Responses that are not right stay.
    """
    counts, chosen = collections.Counter(), []
    for episode in kept:
        if well_answered(episode):
            if not passes(episode, threshold) or counts[episode.problem_id] == keep:
                continue
            counts[episode.problem_id] += 1
        chosen.append(episode)
    return chosen


def question_shares(kept: Sequence[Episode]) -> list[float]:
    """A factor for each response by which every question counts the same; their mean is 1."""
    counts = collections.Counter(episode.problem_id for episode in kept)
    mean = len(counts) / max(1, len(kept))
    return [1 / counts[episode.problem_id] / mean for episode in kept]


def success_rates(explored: Sequence[Episode]) -> dict[str, float]:
    """The share of each question's unguided first attempts that are right."""
    right = collections.defaultdict(list)
    for episode in explored:
        if episode.outcome['found_by'] == 'attempt':
            right[episode.problem_id].append(bool(episode.outcome['correct']))
    return {problem: sum(facts) / len(facts) for problem, facts in right.items()}
