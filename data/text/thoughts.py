"""Blocks of thoughts, `<think> ... </think>`, that a reasoning model writes before its answer.

Thoughts contain no answer, verdict or step. A block is recognised by its end, because templates may
open it in the prompt, so that the model writes only `</think>`.
"""

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from elenchus.data.text.tokenizer import Tokenizer

OPEN, CLOSE = '<think>', '</think>'

Thinking = Literal['keep', 'strip', 'forbid']
"""Treatment of thoughts: kept in the conversation, removed from what later turns read, or models
may not open a block of them."""


def without_thoughts(text: str, *, was_opened: bool = False) -> str:
    """Returns the text after the last block of thoughts; '' if that block is never closed.

    `was_opened` says that the prompt opened the block.
    """
    _, closing, answer = text.rpartition(CLOSE)
    if closing:
        return answer.lstrip()
    if was_opened:
        return ''
    before, opening, _ = text.partition(OPEN)
    return before if opening else text


def masked(text: str) -> str:
    """Replaces thoughts by line breaks, so that offsets do not change."""
    before, closing, answer = text.rpartition(CLOSE)
    if closing:
        return '\n' * (len(before) + len(closing)) + answer
    start = text.find(OPEN)
    return text if start < 0 else text[:start] + '\n' * (len(text) - start)


def without_thought_steps(
    tokens: Sequence[int], ends: Sequence[int], tokenizer: 'Tokenizer'
) -> tuple[int, ...]:
    """Returns the ends of a turn's steps; its thoughts are a part of the first step after them.

    A turn that has nothing behind its thoughts is one step.
    """
    before, closing, _ = tokenizer.decode(tokens).rpartition(CLOSE)
    if not closing:
        return tuple(ends)
    prefix = before + closing
    # Whole prefixes are decoded: a token's text can depend on its neighbours.
    last = bisect.bisect_left(
        range(len(tokens)), True, key=lambda i: tokenizer.decode(tokens[: i + 1]).startswith(prefix)
    )
    kept = [end for end in ends if tokenizer.decode(tokens[last + 1 : end]).strip()]
    return tuple(kept) or tuple(ends[-1:])
