"""Reference answers as rows have them: a bare answer, or a whole solution that ends with it."""

import re
from typing import NamedTuple

from elenchus.data.grading import answers

_NOT_FINITE = re.compile(r'[-+]?(?:nan|inf|infinity)', re.IGNORECASE)


class Reference(NamedTuple):
    """A reference answer, and the text in which a marker named it; None: the row has it bare."""

    answer: str
    marked_text: str | None


def read_reference(text: str) -> Reference:
    r"""Reads a bare answer, or the one that a marker names in a text: `#### 7`, `\boxed{7}`.

    Users put whole solutions where an answer belongs, as GSM8K's own files do. No response would be
    equal to such a text. Raises ValueError if the answer cannot be met by itself.
    """
    marked = answers.extract_answer(text)
    reference = Reference(text.strip(), None) if marked is None else Reference(marked, text)
    check_reference(reference.answer)
    return reference


def check_reference(answer: str) -> None:
    """Raises ValueError if an answer is not equal to itself: empty, NaN, with an open brace."""
    if not answer.strip():
        raise ValueError(f'answer={answer!r} is empty')
    if '\n' in answer.strip() and '\\' not in answer:
        raise ValueError(
            f'answer={ascii(answer)[:60]}... has several lines and no marker such as #### or '
            '\\boxed: no response can be equal to it'
        )
    if _NOT_FINITE.fullmatch(answer.strip()):
        raise ValueError(f'answer={answer!r} is not a finite number; for infinity use \\infty')
    repeated = answers.extract_answer(f'\\boxed{{{answer}}}')
    if repeated is None or not answers.equivalent(repeated, answer):
        raise ValueError(
            f'answer={ascii(answer[:60])} cannot be met: the verifier does not find it equal to '
            'itself; close its braces, or write it as a number or in LaTeX'
        )
