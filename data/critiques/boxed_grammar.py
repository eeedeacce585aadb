r"""The grammar of critiques that end with an index in a box, as ProcessBench asks for.

`\boxed{3}` calls step 3, counted from 0, the first wrong one; `\boxed{-1}` calls none wrong. The
last box counts, and one that holds no whole number is no verdict. Such a critique says nothing of
the single steps after the wrong one, and step rewards cannot be read from it: no verdict word has
a place of its own. Source: arXiv 2412.06559, figure of the prompt.
"""

import re

from elenchus.data.critiques.grammars import Critique, Grammar, Reading, StepVerdict, first_error
from elenchus.data.grading import answers

_INDEX = re.compile(r'\s*(?:\\text\{)?\s*([-\u2212]?\d{1,4})\s*\}?\s*')
NOTHING = -1
"""Index of an attempt without a wrong step."""


def _write(critique: Critique) -> str:
    words = [
        f'Paragraph {i}: {s.explanation}' for i, s in enumerate(critique.steps) if s.explanation
    ]
    first = first_error(critique)
    if first is None and critique.final_correct is False:
        first = len(critique.steps)
    index = NOTHING if first is None else first
    return '\n'.join([*words, f'\\boxed{{{index}}}'])


def _read(text: str) -> Reading:
    content = answers.boxed(text)
    match = _INDEX.fullmatch(content) if content else None
    index = int(match[1].replace('\u2212', '-')) if match else None
    if index is None or index < NOTHING:
        return Reading(Critique((), None, text.strip()), (), None)
    verdicts = [True] * index + [False] if index >= 0 else []
    steps = tuple(StepVerdict('', verdict, '') for verdict in verdicts)
    critique = Critique(steps, index == NOTHING, text.strip())
    return Reading(critique, (None,) * len(steps), None)


BOXED = Grammar('boxed', _write, _read)
"""Words, then the index of the first wrong step in a box."""
