"""Reads the reference answers of problem sets and says which of them no response could meet."""

import re

from elenchus.data.grading import answers, extraction

_MARKERS = tuple(name for name in extraction.MARKERS if name not in ('display', 'bold'))
_NO_VALUE = re.compile(r'[-+]?(?:nan|inf|infinity|null|nat|<na>)', re.IGNORECASE)


def reference_answer(text: str) -> str:
    r"""Returns the answer of a reference that is a whole solution or marked: `#### 7`, `\boxed{7}`.

    A reference without a marker is returned without the space around it, and so is one whose marker
    is followed by nothing (see `check_reference`).
    """
    return extraction.extract_answer(text, _MARKERS) or text.strip()


def check_reference(text: str) -> str | None:
    """Returns the reason why no response can meet a reference, as read by `reference_answer`.

    Returns None for a reference that equals itself. The reason completes a sentence such as
    "answer='nan' {reason}".
    """
    if not text.strip():
        return 'is empty'
    answer = reference_answer(text)
    if _NO_VALUE.fullmatch(answer.strip(' .$')):
        return 'is no value'
    if answer == text.strip() and re.search(r'\\boxed\s*\{|(?<!#)####(?!#)|<answer>', text):
        return 'has a marker but no answer after it'
    if answers.compare(answer, answer) is not True:
        return 'does not equal itself: it has no letter or digit'
    return None
