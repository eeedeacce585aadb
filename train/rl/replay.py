"""Selective sample replay: replaces groups without variance by groups of earlier iterations.

A stored group is drawn with a probability in proportion to its mean |advantage|: the more its
samples differ, the more there is to learn from it. VL-Rethinker, arXiv 2504.08837.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from elenchus.data.files import episode_files
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.train.rl.credit import GroupValues
from elenchus.train.rl.rollouts import SampledGroups

Stored = Mapping[str, object]
"""A group as plain JSON: `problem`, its id; `episodes`, a text each; `weight`, mean |advantage|."""


def fill(
    sampled: SampledGroups,
    stored: Sequence[Stored],
    *,
    problems: Mapping[str, Problem],
    value: Callable[[Sequence[Episode]], GroupValues],
    rng: np.random.Generator,
) -> tuple[SampledGroups, int]:
    """Replaces groups without variance by stored ones; returns the groups and how many are stored.

    If too few groups are stored, the remaining ones without variance come last and are not trained.
    No group is drawn twice in an iteration. Episodes of stored groups have the fact `replayed`: the
    importance ratio of their tokens is to the policy that sampled them.
    """
    informative = [group for group in sampled.groups if not value(group).zero_variance]
    rest = [group for group in sampled.groups if value(group).zero_variance]
    known = [item for item in stored if item['problem'] in problems]
    weights = np.array([item['weight'] for item in known], np.float64)
    count = min(len(rest), len(known))
    drawn = rng.choice(len(known), count, replace=False, p=weights / weights.sum()) if count else ()
    replayed = [_group(known[i], problems) for i in drawn]
    groups = [*informative, *replayed, *rest[count:]]
    return sampled._replace(groups=groups, num_informative=len(groups) - len(rest) + count), count


def store(
    stored: Sequence[Stored],
    groups: Sequence[RolloutGroup],
    *,
    value: Callable[[Sequence[Episode]], GroupValues],
    most: int,
) -> list[Stored]:
    """Adds the groups that have variance to the stored ones; returns the newest `most`."""
    new = []
    for group in groups:
        values = value(group)
        if not values.zero_variance:
            steps = [s for episode in values.advantages for s in episode.values()]
            texts = [episode_files.to_json(episode).decode() for episode in group]
            weight = float(np.abs(np.concatenate(steps)).mean())
            new.append({'problem': group.problem.id, 'episodes': texts, 'weight': weight})
    kept = [*stored, *new][-most:]
    return json.loads(json.dumps(kept))  # as a restored run has them


def _group(item: Stored, problems: Mapping[str, Problem]) -> RolloutGroup:
    episodes = [episode_files.from_json(text.encode()) for text in item['episodes']]
    marked = tuple(e.with_turn_facts('attempt', replayed=True) for e in episodes)
    return RolloutGroup(problems[item['problem']], marked)
