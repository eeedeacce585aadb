"""Functions of control arms, which the configs of studies name; not a study itself."""

import zlib


def random_reward(turns):
    """Returns 0 or 1 for each response of a group, each in half of the cases, by a hash.

    A control of rewards without labels: the hash is of question, place in the group and response,
    so it says nothing about any of them, and a run that resumes sees the same rewards.
    """
    return [
        float(zlib.crc32(f'{turn.problem.id} {place} {turn.text}'.encode()) >> 16 & 1)
        for place, turn in enumerate(turns)
    ]


def random_value(problem, notes):
    """Returns a number in [0, 1) for a node of a tree, by a hash: a value that judges nothing."""
    return zlib.crc32(f'{problem.id} {notes.text}'.encode()) / 2**32
