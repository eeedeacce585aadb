"""Pairs of responses for DPO and step-DPO, from judged episodes."""

from collections.abc import Sequence

import numpy as np

from elenchus.data.records import Episode, Example, Turn
from elenchus.data.text.chat import Chat

Pair = tuple[Example, Example]


def response_pairs(groups: Sequence[Sequence[Episode]], chat: Chat) -> list[Pair]:
    """(right, wrong) attempts at the same problem, each used once. DPO, arXiv 2305.18290.

    groups: the attempts at each problem.
    """
    pairs = []
    for group in groups:
        right = [e for e in group if e.outcome['correct']]
        wrong = [e for e in group if not e.outcome['correct']]
        pairs += [
            (_example(good, chat, None), _example(bad, chat, None))
            for good, bad in zip(right, wrong, strict=False)
        ]
    return pairs


def step_pair(right: Episode, wrong: Episode, chat: Chat) -> Pair | None:
    """The pair in which only the first step that differs is trained; None where none does.

    What both share is context. Step-DPO, arXiv 2406.18629.
    """
    steps = [_steps(e.turn('attempt')) for e in (right, wrong)]
    shared = next((i for i, (a, b) in enumerate(zip(*steps, strict=False)) if a != b), None)
    if shared is None:
        return None
    return _example(right, chat, shared), _example(wrong, chat, shared)


def _steps(turn: Turn) -> list[tuple[int, ...]]:
    return [turn.tokens[a:b] for a, b in zip((0, *turn.step_ends), turn.step_ends, strict=False)]


def _example(episode: Episode, chat: Chat, step: int | None) -> Example:
    """The question and its attempt, trained whole or in one step alone."""
    turns = tuple(turn for turn in episode.turns if turn.role in ('question', 'attempt'))
    example = chat.example(turns, trained=('attempt',), weights=None, last_only=True)
    if step is None:
        return example
    chosen = (example.loss_mask > 0) & (example.steps == step + 1)
    return example._replace(loss_mask=chosen.astype(np.float32))
