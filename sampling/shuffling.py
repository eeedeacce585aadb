"""Pairs episodes of different questions, for controls that exchange critiques or guides."""

import collections
import dataclasses
import random
from collections.abc import Sequence

from elenchus.data.records import Episode
from elenchus.sampling.seeds import derive_seed


def has_others(episodes: Sequence[Episode]) -> bool:
    """Returns whether the episodes are of two questions at least."""
    return len({episode.problem_id for episode in episodes}) > 1


def exchange_critiques(criticised: Sequence[Episode], *, seed: int) -> list[Episode]:
    """Returns episodes that end with the critique of another question of their level.

    The list is empty if there is one question only. A control: what refinement still gains is not
    due to what the critique says about the attempt.
    """
    if not has_others(criticised):
        return []
    partners = other_question(criticised, seed=seed)
    return [
        dataclasses.replace(episode, turns=(*episode.turns[:-1], criticised[i].critique))
        for episode, i in zip(criticised, partners, strict=True)
    ]


def other_question(episodes: Sequence[Episode], *, seed: int) -> list[int]:
    """Returns for each episode the index of one of another question of its level.

    If all episodes of a level are of one question, their partners are of another level. Otherwise
    the indices of a level are a permutation, so that every critique is used once, unless one
    question has more than half of the episodes. The result follows from the episodes and `seed`.

    Raises ValueError if all episodes are of one question.
    """
    by_level = collections.defaultdict(list)
    for i, episode in enumerate(episodes):
        by_level[episode.level].append(i)
    if episodes and not has_others(episodes):
        raise ValueError(f'all {len(episodes)} episodes are of one question: there is no other')
    partners: dict[int, int] = {}
    for level, members in by_level.items():
        alone = len({episodes[i].problem_id for i in members}) == 1
        pool = range(len(episodes)) if alone else members
        rng = random.Random(derive_seed(seed, 'other question', level))
        pairs = _deranged([(episodes[i].problem_id, i) for i in pool], rng)
        partners |= {i: pairs[i] for i in members}
    return [partners[i] for i in range(len(episodes))]


def _deranged(members: Sequence[tuple[str, int]], rng: random.Random) -> dict[int, int]:
    """Maps each index of (question, index) to one of another question."""
    questions = collections.defaultdict(list)
    for question, i in members:
        questions[question].append(i)
    names = sorted(questions)
    rng.shuffle(names)
    # Neighbours are of one question: a step as long as the most frequent one leaves every question.
    order = [(name, i) for name in names for i in questions[name]]
    longest = max(map(len, questions.values()))
    partners = {}
    for place, (name, i) in enumerate(order):
        step = longest
        while order[(place + step) % len(order)][0] == name:
            step += 1
        partners[i] = order[(place + step) % len(order)][1]
    return partners
