"""Reference answers as rows have them: a bare answer, or a whole solution that ends with it."""

import re
from typing import NamedTuple

from elenchus.data.grading import references as grading

_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)


class Reference(NamedTuple):
    """A reference answer, and the text in which a marker named it; None: the row has it bare."""

    answer: str
    marked_text: str | None


def read_reference(text: str) -> Reference:
    r"""Reads a bare answer, or the one that a marker names in a text: `#### 7`, `\boxed{7}`.

    Users put whole solutions where an answer belongs, as GSM8K's own files do. No response would be
    equal to such a text. Raises ValueError if no response can meet the answer.
    """
    answer = grading.reference_answer(text)
    if answer == text.strip():
        check_reference(text)
        if '\n' in answer and '\\' not in answer:
            raise ValueError(
                f'answer={_shown(text)} has several lines and no marker such as #### or \\boxed: '
                'no response can be equal to it'
            )
        return Reference(answer, None)
    check_reference(answer)
    return Reference(answer, text)


def check_reference(text: str) -> None:
    """Raises ValueError with the reason why no response can meet a reference, if there is one."""
    if reason := grading.check_reference(text):
        raise ValueError(f'answer={_shown(text)} {reason}: no response can meet it')
    depth = 0
    for brace in _BRACE.findall(text):
        depth += {'{': 1, '}': -1}.get(brace, 0)
        if depth < 0:
            break
    if depth:
        raise ValueError(f'answer={_shown(text)} has a brace without its other half')


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f'{text[:57]}...')
