"""Functions of control arms, which the configs of studies name; not a study itself."""

import collections
import itertools
import random
import zlib

from elenchus.configs.methods import multi_critique


def random_reward(turns):
    """Returns 0 or 1 for each response of a group, each in half of the cases, by a hash.

    A control of rewards without labels: the hash is of question, place in the group and response,
    so it says nothing about any of them, and a run that resumes sees the same rewards.
    """
    return [float(half) for half in random_half(turns)]


def random_value(problem, notes):
    """Returns a number in [0, 1) for a node of a tree, by a hash: a value that judges nothing."""
    return zlib.crc32(f'{problem.id} {notes.text}'.encode()) / 2**32


def random_half(responses):
    """Accepts each response in half of the cases, by a hash: a filter that judges nothing."""
    return [
        bool(zlib.crc32(f'{response.problem.id} {place} {response.text}'.encode()) >> 16 & 1)
        for place, response in enumerate(responses)
    ]


def random_verdicts(responses):
    """As `random_half`, after the critic has criticised each response: at the same tokens."""
    return random_half(responses)


random_verdicts.reads_verdicts = True


def random_critiques(groups):
    """Pairs two critiques of an attempt at random, one pair where some help more than others."""
    pairs = []
    for number, group in enumerate(groups):
        if len({episode.turns[-1].facts.helpful for episode in group} - {None}) > 1:
            two = random.Random(f'{group.problem.id}/{number}').sample(list(group), 2)
            pairs.append((*two, 0.0))
    return pairs


def random_sides(groups):
    """The pairs of MultiCritique, of which one side or the other is chosen, by a hash."""
    pairs = multi_critique.agreement(groups)
    is_swapped = [
        zlib.crc32(f'{i} {pair[0].problem_id}'.encode()) & 1 for i, pair in enumerate(pairs)
    ]
    return [
        (rejected, chosen, offset) if swap else (chosen, rejected, offset)
        for swap, (chosen, rejected, offset) in zip(is_swapped, pairs, strict=True)
    ]


def random_of_prompt(groups):
    """Pairs responses behind the same prompt, whatever they are worth, each once at most."""
    behind = collections.defaultdict(list)
    for episode in itertools.chain.from_iterable(groups):
        behind[episode.problem_id, *(turn.tokens for turn in episode.turns[:-1])].append(episode)
    pairs = []
    for prompt, episodes in behind.items():
        random.Random(zlib.crc32(repr(prompt).encode())).shuffle(episodes)
        pairs += [(*two, 0.0) for two in zip(episodes[::2], episodes[1::2], strict=False)]
    return pairs


def random_refinements(groups):
    """Pairs refinements of the same attempt, whatever they are worth, each once at most."""
    return random_of_prompt(
        [[e for e in group if e.turns[-1].role == 'refinement'] for group in groups]
    )
