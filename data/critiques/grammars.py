"""The critique grammars: write, parse, and find where the verdicts stand.

A verdict that is missing or cannot be read is None, and None is never "correct".
"""

import bisect
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elenchus.data.text import tokenizer as tokenizers


@dataclasses.dataclass(frozen=True)
class StepVerdict:
    """What a critique says of one step; `correct` is None where it gives no clear verdict."""

    sentence: str
    correct: bool | None
    explanation: str


@dataclasses.dataclass(frozen=True)
class Critique:
    """Verdicts on the steps in order, and on the final answer."""

    steps: tuple[StepVerdict, ...]
    final_correct: bool | None
    final_explanation: str


class Reading(NamedTuple):
    """A parsed critique, and the offsets in its text at which the verdicts begin.

    `step_offsets[i]` belongs to `critique.steps[i]`; an offset is None where the verdict is None.
    """

    critique: Critique
    step_offsets: tuple[int | None, ...]
    final_offset: int | None


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A way to write critiques. `parse(write(critique)) == critique` for text the grammar holds."""

    name: str
    write: Callable[[Critique], str]
    read: Callable[[str], Reading]

    def parse(self, text: str) -> Critique:
        return self.read(text).critique


def first_error(critique: Critique) -> int | None:
    """The index of the first step judged wrong, None where no step is."""
    return next((i for i, step in enumerate(critique.steps) if step.correct is False), None)


def is_full_pass(critique: Critique, num_steps: int) -> bool:
    """Whether each of an attempt's steps and its final answer have a verdict.

    The other form stops at the first wrong step.
    """
    judged = sum(step.correct is not None for step in critique.steps)
    return judged >= num_steps and critique.final_correct is not None


def verdict_positions(
    tokens: Sequence[int], *, grammar: Grammar, tokenizer: tokenizers.Tokenizer
) -> tuple[list[int | None], int | None]:
    """The index in a critique's tokens of each verdict's first token: (of the steps, of the final).

    Steps are those of `grammar.parse`; None stands where a verdict is None.
    """
    tokens = list(tokens)
    text = tokenizer.decode(tokens)
    reading = grammar.read(text)

    def position(offset: int | None) -> int | None:
        if offset is None:
            return None
        told = text[: offset + 1]
        return bisect.bisect_left(
            range(len(tokens)),
            True,
            key=lambda last: tokenizer.decode(tokens[: last + 1]).startswith(told),
        )

    return [position(offset) for offset in reading.step_offsets], position(reading.final_offset)


class _Verdict(NamedTuple):
    """A verdict as it stands in a text: its value, and its offset where the value is clear."""

    correct: bool | None
    offset: int | None


_SILENT = _Verdict(None, None)
_VALUES = {'correct': True, 'wrong': False, 'incorrect': False}
_MARKS = ' \t*.'


def _verdict(text: str, offset: int) -> _Verdict:
    """The verdict that a text is, at most in bold or with a full stop; anything else is none."""
    correct = _VALUES.get(text.strip(_MARKS).lower())
    if correct is None:
        return _SILENT
    return _Verdict(correct, offset + len(text) - len(text.lstrip(_MARKS)))


class _Block(NamedTuple):
    """The part of a critique that is about one step, or about the final answer."""

    final: bool
    sentence: str
    verdict: _Verdict
    explanation: str


def _reading(blocks: list[_Block]) -> Reading:
    """Puts a reading together; final verdicts that contradict each other are none."""
    steps = [block for block in blocks if not block.final]
    finals = [block for block in blocks if block.final]
    agreed = finals[0].verdict if len({f.verdict.correct for f in finals}) == 1 else _SILENT
    critique = Critique(
        tuple(StepVerdict(step.sentence, step.verdict.correct, step.explanation) for step in steps),
        agreed.correct,
        '\n'.join(final.explanation for final in finals if final.explanation),
    )
    return Reading(critique, tuple(step.verdict.offset for step in steps), agreed.offset)


# The grammar of the released data (arXiv 2411.16579; github.com/WooooDyy/MathCritique).

_SENTENCE = 'Step sentence'
_STEP = 'Correctness of the step'
_FINAL = 'Correctness of the final answer'
_WHY = 'Explanation'
_LABEL = re.compile(rf'^[ \t*]*({_SENTENCE}|{_STEP}|{_FINAL}|{_WHY})[ \t*]*:\**\s*', re.I | re.M)
_RELEASED_WORDS = {True: 'Correct', False: 'Wrong', None: ''}


def _write_released(critique: Critique) -> str:
    blocks = [
        ((_SENTENCE, step.sentence), (_STEP, step.correct), (_WHY, step.explanation))
        for step in critique.steps
    ]
    if critique.final_correct is not None or critique.final_explanation:
        blocks.append(((_FINAL, critique.final_correct), (_WHY, critique.final_explanation)))
    return '\n\n'.join(
        '\n'.join(f'{label}: {_RELEASED_WORDS.get(text, text)}'.rstrip() for label, text in block)
        for block in blocks
    )


def _labelled(text: str) -> list[dict[str, tuple[str, int]]]:
    """The fields of each step and of the final answer: label -> (value, its offset).

    Unlabelled text continues the field above it. A field that the block already has opens a new
    one, so that a step without its sentence or its verdict is still a step of its own. A bare
    sentence above the final verdict is quoted for it: 'Step sentence: The answer is 5.'
    """
    labels = list(_LABEL.finditer(text))
    ends = [*(label.start() for label in labels), len(text)][1:]
    blocks = []
    for match, end in zip(labels, ends, strict=True):
        label = match[1].capitalize()
        has = blocks[-1].keys() if blocks else {_FINAL}
        opens = {_SENTENCE: True, _STEP: has & {_STEP, _FINAL}, _FINAL: has != {_SENTENCE}}
        if opens.get(label):
            blocks.append({})
        if blocks:
            value = text[match.end() : end].rstrip()
            above = f'{blocks[-1][label][0]}\n' if label in blocks[-1] else ''
            blocks[-1][label] = (above + value, match.end())
    return blocks


def _read_released(text: str) -> Reading:
    """Reads labelled fields; text below a verdict's own line belongs to its explanation."""
    blocks = []
    for fields in _labelled(text):
        final = _FINAL in fields
        value, offset = fields.get(_FINAL if final else _STEP, ('', 0))
        line, _, below = value.partition('\n')
        verdict = _verdict(line, offset)
        sentence, why = (fields.get(label, ('',))[0] for label in (_SENTENCE, _WHY))
        quoted = sentence if final else ''
        unread = line if verdict.correct is None else ''
        why = '\n'.join(part for part in (quoted, unread, below, why) if part)
        blocks.append(_Block(final, sentence, verdict, why))
    return _reading(blocks)


# The compact grammar of the generated task: `step ; derivation ; verdict` a line, the answer last.

_ANSWER = re.compile(r'\s*answer\s*:')
_LAB_WORDS = {True: 'correct', False: 'wrong', None: ''}


def _write_lab(critique: Critique) -> str:
    parts = [(s.sentence, s.explanation, _LAB_WORDS[s.correct]) for s in critique.steps]
    lines = [' ; '.join(filter(None, line)) for line in parts]
    if critique.final_correct is not None or critique.final_explanation:
        final = (critique.final_explanation, _LAB_WORDS[critique.final_correct])
        lines.append('answer : ' + ' ; '.join(filter(None, final)))
    return '\n '.join(lines)


def _read_lab(text: str) -> Reading:
    lines = re.finditer(r'[^\n]*\S[^\n]*', text)
    return _reading([_lab_block(line[0], line.start()) for line in lines])


def _lab_block(line: str, offset: int) -> _Block:
    """Reads a line that begins at an offset; a step's verdict must stand behind a semicolon."""
    answer = _ANSWER.match(line)
    told, semicolon, last = line[answer.end() if answer else 0 :].rpartition(';')
    silent = not semicolon and not answer
    verdict = _SILENT if silent else _verdict(last, offset + len(line) - len(last))
    if verdict.correct is None:
        told = told + semicolon + last
    if answer:
        return _Block(True, '', verdict, told.strip())
    sentence, _, derivation = told.partition(';')
    return _Block(False, sentence.strip(), verdict, derivation.strip())


RELEASED = Grammar('released', _write_released, _read_released)
"""`Step sentence:`, `Correctness of the step:`, `Explanation:` a step; then the final answer's."""

LAB = Grammar('lab', _write_lab, _read_lab)
"""`ben : eve - 4 ; 7 - 4 = 3 ; correct` a line; then `answer : hal 0 ; correct`."""

GRAMMARS = {grammar.name: grammar for grammar in (RELEASED, LAB)}


def grammar_of(text: str) -> Grammar:
    """The grammar that a critique is written in: RELEASED where it has one of its labels."""
    return RELEASED if _LABEL.search(text) else LAB
