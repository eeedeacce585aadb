"""Extracts answers from text, parses them as numbers and compares them.

The parts: `extraction` (which text is the answer), `spelling`, `quantities` (numbers and units),
`kinds`, `expressions`, `numerics`, `comparison`, and `algebra`, which is math-verify.
"""

from elenchus.data.grading.comparison import Verdict, decide
from elenchus.data.grading.extraction import boxed, extract_answer
from elenchus.data.grading.quantities import MAX_ANSWER, NUMBER_IN_TEXT, parse_number

__all__ = [
    'MAX_ANSWER',
    'NUMBER_IN_TEXT',
    'boxed',
    'canonical',
    'compare',
    'equivalent',
    'extract_answer',
    'numbers',
    'parse_number',
    'passes_barrier',
]


def canonical(answer: str | None) -> str | None:
    """Returns one spelling for equal numbers, to count votes; other text is unchanged."""
    number = None if answer is None else parse_number(answer)
    return answer if number is None else str(number)


def compare(answer: str, reference: str) -> bool | None:
    """Compares two answers by kind; None if that needs algebra. Unsure is False.

    `50%` equals 50, as the references of the data sets write it, and also 0.5. A reference that is
    the letter of a choice, `(C)`, equals any answer that begins with it: `C`, `(C) 12`,
    `C. the third`.
    """
    return {Verdict.RIGHT: True, Verdict.OPEN: None}.get(decide(answer, reference), False)


def equivalent(answer: str, reference: str) -> bool:
    """Returns True if two answers are certainly equal, as numbers or texts, without algebra."""
    return compare(answer, reference) is True


def numbers(text: str) -> list[str]:
    """Returns the numbers in a text, as written, without signs."""
    return NUMBER_IN_TEXT.findall(text)


def passes_barrier(refined: str, reference: str, attempt: str) -> bool:
    """Applies the shortcut barrier: a refinement may not have far fewer numbers than its sources.

    `#numbers(refined) >= min(#numbers(reference), #numbers(attempt)) - 2`. It rejects refinements
    that state the answer without the reasoning (docs/methods.md, "Critique data").
    """
    return len(numbers(refined)) >= min(len(numbers(reference)), len(numbers(attempt))) - 2
