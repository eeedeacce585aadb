"""Selection of training responses: which count, and how many per question."""

import collections
from collections.abc import Sequence

from elenchus.data.records import Episode
from elenchus.sampling.exploration.context import (
    ExploreSettings,
    counts_as_right,
    is_valid_response,
)
from elenchus.sampling.exploration.controller import above_threshold


def curate(
    explored: Sequence[Episode], settings: ExploreSettings, *, wrong: bool, deduplicate: bool
) -> list[Episode]:
    """Returns correct responses, the first `keep` per question, without bare answers.

    With `deduplicate` equal responses to a question count once: an easy question, to which most
    samples are alike, then has a smaller share than among the samples.

    Of one attempt's correct refinements only the first `keep_refined` are considered. With `wrong`,
    wrong responses are returned as well, at most `keep` per question.
    """
    num_refined: collections.Counter = collections.Counter()
    seen: dict[tuple[str, bool], list] = collections.defaultdict(list)
    kept = []
    for episode in explored:
        valid, attempt = is_valid_response(episode), episode.facts.attempt_index
        if not valid and not wrong:
            continue
        if valid and attempt is not None:
            num_refined[episode.problem_id, attempt] += 1
            if num_refined[episode.problem_id, attempt] > settings.keep_refined:
                continue
        # Correct and wrong responses have separate limits.
        responses, tokens = seen[episode.problem_id, valid], episode.turns[-1].tokens
        if len(responses) < settings.keep and not (deduplicate and tokens in responses):
            responses.append(tokens)
            kept.append(episode)
    return kept


def keep_above_threshold(
    responses: Sequence[Episode], *, threshold: float, keep: int
) -> list[Episode]:
    """Returns valid responses whose score reaches the threshold, the first `keep` per question.

    Responses that are not valid all stay: a threshold is a demand on positive examples only.
    """
    counts, chosen = collections.Counter(), []
    for episode in responses:
        if is_valid_response(episode):
            if not above_threshold(episode, threshold) or counts[episode.problem_id] == keep:
                continue
            counts[episode.problem_id] += 1
        chosen.append(episode)
    return chosen


def question_weights(responses: Sequence[Episode]) -> list[float]:
    """Returns a weight per response so that all questions have the same total; their mean is 1."""
    counts = collections.Counter(episode.problem_id for episode in responses)
    mean = len(counts) / max(1, len(responses))
    return [1 / counts[episode.problem_id] / mean for episode in responses]


def success_rates(explored: Sequence[Episode]) -> dict[str, float]:
    """Returns the share that counts as right among each question's unguided first attempts."""
    correct = collections.defaultdict(list)
    for episode in explored:
        if episode.response.facts.origin == 'attempt':
            correct[episode.problem_id].append(counts_as_right(episode.attempt))
    return {problem: sum(facts) / len(facts) for problem, facts in correct.items()}
