"""Critique grammars: write and parse critiques, and locate their verdicts in the tokens.

A verdict that is missing or unreadable is None. None never counts as "correct": a critic must not
pass an attempt by writing nonsense.
"""

import bisect
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elenchus.data.text import thoughts
from elenchus.data.text import tokenizer as tokenizers


@dataclasses.dataclass(frozen=True)
class StepVerdict:
    """A critique's verdict on one step; `correct` is None without a clear verdict."""

    sentence: str  # the step, as the critique quotes it
    correct: bool | None
    explanation: str


@dataclasses.dataclass(frozen=True)
class Critique:
    """Verdicts on the steps in order, and on the final answer."""

    steps: tuple[StepVerdict, ...]
    final_correct: bool | None
    final_explanation: str


class Reading(NamedTuple):
    """A parsed critique and the character offsets at which its verdicts start.

    `step_offsets[i]` belongs to `critique.steps[i]`; an offset is None if the verdict is None.
    """

    critique: Critique
    step_offsets: tuple[int | None, ...]
    final_offset: int | None

    @property
    def offsets(self) -> tuple[int | None, ...]:
        """The offsets of the steps' verdicts, then that of the final answer's."""
        return (*self.step_offsets, self.final_offset)


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A text format of critiques.

    `parse(write(critique)) == critique` if the texts in the critique do not use the format's own
    markers, and their line ends are those of Unix.
    """

    name: str
    write: Callable[[Critique], str]
    read_unix: Callable[[str], Reading]  # of a text whose lines end with \n

    def read(self, text: str) -> Reading:
        """Parses a text with any line ends; offsets are into the unchanged text.

        Verdicts inside the critic's thoughts do not count.
        """
        text = thoughts.masked(text)
        unix = _LINE_END.sub('\n', text)
        reading = self.read_unix(unix)
        if unix == text:
            return reading
        starts = _unix_offsets(text)
        *steps, final = (None if at is None else starts[at] for at in reading.offsets)
        return Reading(reading.critique, tuple(steps), final)

    def parse(self, text: str) -> Critique:
        """Returns the critique of a text; missing verdicts are None."""
        return self.read(text).critique


def first_error(critique: Critique) -> int | None:
    """Returns the index of the first step judged wrong, None if there is none."""
    return next((i for i, step in enumerate(critique.steps) if step.correct is False), None)


def is_full_pass(critique: Critique, num_steps: int) -> bool:
    """Returns True if the critique has a verdict on every step and on the final answer.

    A critique of the other form stops at the first wrong step.
    """
    judged = sum(step.correct is not None for step in critique.steps)
    return judged >= num_steps and critique.final_correct is not None


def is_wrong_at(text: str, offset: int | None) -> bool:
    """Returns whether the verdict that begins at an offset of `Reading.offsets` says wrong."""
    return offset is not None and not text[offset:].lstrip().lower().startswith('correct')


def token_positions(
    tokens: Sequence[int], offsets: Sequence[int | None], *, tokenizer: tokenizers.Tokenizer
) -> list[int | None]:
    """Returns, for each offset into the decoded text, the index of the token with that character.

    `offsets` are those of `Grammar.read` on that text; None stays None.
    """
    tokens = list(tokens)
    text = tokenizer.decode(tokens)

    def position(offset: int) -> int:
        """Returns the first token with which the decoded prefix contains the character."""
        prefix = text[: offset + 1]
        # Whole prefixes are decoded: a token's text can depend on its neighbours.
        return bisect.bisect_left(
            range(len(tokens)),
            True,
            key=lambda last: tokenizer.decode(tokens[: last + 1]).startswith(prefix),
        )

    return [None if offset is None else position(offset) for offset in offsets]


_LINE_END = re.compile('\r\n|[\r\u0085\u2028\u2029]')
"""Line ends other than that of Unix: of Windows, of old Macs, and Unicode line separators."""


def _unix_offsets(text: str) -> list[int]:
    """Returns, for each character of the text with Unix line ends, its offset in the original."""
    second = {match.start() + 1 for match in _LINE_END.finditer(text) if len(match[0]) == 2}
    return [i for i in range(len(text)) if i not in second]


class _Verdict(NamedTuple):
    """A verdict in a text: its value and its offset, both None without a clear verdict."""

    correct: bool | None
    offset: int | None


_NO_VERDICT = _Verdict(None, None)
_VALUES = {'correct': True, 'wrong': False, 'incorrect': False}
_MARKS = ' \t*.\0\u00a0\u200b\u200e\u200f\u202f\u2060\ufeff'
"""Characters allowed around a verdict: bold marks, a full stop, and invisible characters."""


def _verdict(text: str, offset: int) -> _Verdict:
    """Parses text that is exactly a verdict, except for _MARKS."""
    correct = _VALUES.get(text.strip(_MARKS).lower())
    if correct is None:
        return _NO_VERDICT
    return _Verdict(correct, offset + len(text) - len(text.lstrip(_MARKS)))


class _Block(NamedTuple):
    """The part of a critique about one step, or about the final answer."""

    final: bool
    sentence: str
    verdict: _Verdict
    explanation: str


def _assemble(blocks: list[_Block]) -> Reading:
    """Assembles a reading; final verdicts that contradict each other count as no verdict."""
    steps = [block for block in blocks if not block.final]
    finals = [block for block in blocks if block.final]
    final = finals[0].verdict if len({f.verdict.correct for f in finals}) == 1 else _NO_VERDICT
    critique = Critique(
        tuple(StepVerdict(step.sentence, step.verdict.correct, step.explanation) for step in steps),
        final.correct,
        '\n'.join(block.explanation for block in finals if block.explanation),
    )
    return Reading(critique, tuple(step.verdict.offset for step in steps), final.offset)


# The grammar of the released data (arXiv 2411.16579; github.com/WooooDyy/MathCritique).

_SENTENCE = 'Step sentence'
_STEP = 'Correctness of the step'
_FINAL = 'Correctness of the final answer'
_WHY = 'Explanation'
_LABEL = re.compile(rf'^[ \t*]*({_SENTENCE}|{_STEP}|{_FINAL}|{_WHY})[ \t*]*:\**\s*', re.I | re.M)
_RELEASED_WORDS = {True: 'Correct', False: 'Wrong', None: ''}


def _write_released(critique: Critique) -> str:
    return _write_labelled(critique, (_SENTENCE, _STEP, _WHY))


def _write_worked(critique: Critique) -> str:
    return _write_labelled(critique, (_SENTENCE, _WHY, _STEP))


def _write_labelled(critique: Critique, labels: Sequence[str]) -> str:
    """Writes the fields of each step in the order of `labels`, then those of the final answer."""
    blocks = []
    for step in critique.steps:
        fields = {_SENTENCE: step.sentence, _STEP: step.correct, _WHY: step.explanation}
        blocks.append([(label, fields[label]) for label in labels])
    if critique.final_correct is not None or critique.final_explanation:
        blocks.append([(_FINAL, critique.final_correct), (_WHY, critique.final_explanation)])
    return '\n\n'.join(
        '\n'.join(f'{label}: {_RELEASED_WORDS.get(text, text)}'.rstrip() for label, text in block)
        for block in blocks
    )


def _labelled(text: str) -> list[dict[str, tuple[str, int]]]:
    """Returns the fields of each step and of the final answer: label -> (value, its offset).

    Unlabelled text continues the field above it. A sentence starts a new block, and so does a
    verdict if the block has one already: a step that lacks either is still a separate step. A
    sentence directly above the final verdict belongs to it: 'Step sentence: The answer is 5.'
    """
    labels = list(_LABEL.finditer(text))
    ends = [*(label.start() for label in labels), len(text)][1:]  # a field ends at the next label
    blocks = []
    for match, end in zip(labels, ends, strict=True):
        label = match[1].capitalize()
        present = blocks[-1].keys() if blocks else {_FINAL}
        starts_block = {
            _SENTENCE: True,
            _STEP: present & {_STEP, _FINAL},
            _FINAL: present != {_SENTENCE},
        }
        if starts_block.get(label):
            blocks.append({})
        if blocks:
            value = text[match.end() : end].rstrip()
            earlier = f'{blocks[-1][label][0]}\n' if label in blocks[-1] else ''
            blocks[-1][label] = (earlier + value, match.end())
    return blocks


def _read_released(text: str) -> Reading:
    """Parses labelled fields; text below the line of a verdict belongs to its explanation."""
    blocks = []
    for fields in _labelled(text):
        final = _FINAL in fields
        value, offset = fields.get(_FINAL if final else _STEP, ('', 0))
        line, _, below = value.partition('\n')
        verdict = _verdict(line, offset)
        sentence, why = (fields.get(label, ('',))[0] for label in (_SENTENCE, _WHY))
        quoted = sentence if final else ''
        # The text of an unreadable verdict is kept as part of the explanation.
        unreadable = line if verdict.correct is None else ''
        why = '\n'.join(part for part in (quoted, unreadable, below, why) if part)
        blocks.append(_Block(final, sentence, verdict, why))
    return _assemble(blocks)


# The compact grammar of the lab: one line `step ; derivation ; verdict` per step, then the answer.

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
    return _assemble([_lab_block(line[0], line.start()) for line in lines])


def _lab_block(line: str, offset: int) -> _Block:
    """Parses a line that begins at an offset; a step's verdict must follow a semicolon."""
    answer = _ANSWER.match(line)
    body, semicolon, last = line[answer.end() if answer else 0 :].rpartition(';')
    unmarked = not semicolon and not answer
    verdict = _NO_VERDICT if unmarked else _verdict(last, offset + len(line) - len(last))
    if verdict.correct is None:
        body = body + semicolon + last  # the text is all derivation
    if answer:
        return _Block(True, '', verdict, body.strip())
    sentence, _, derivation = body.partition(';')
    return _Block(False, sentence.strip(), verdict, derivation.strip())


RELEASED = Grammar('released', _write_released, _read_released)
"""Fields `Step sentence:`, `Correctness of the step:`, `Explanation:` per step, then the final
answer's."""

WORKED = Grammar('worked', _write_worked, _read_released)
"""The fields of RELEASED, but a step's explanation comes before its verdict.

A critic that works a step out first can compare what it has found with what the step states. The
final answer's verdict follows from those of the steps, so it stays before its explanation. One
reader reads both orders; only step sentences show it to which step an explanation belongs.
"""

LAB = Grammar('lab', _write_lab, _read_lab)
"""A line `ben : eve - 4 ; 7 - 4 = 3 ; correct` per step, then `answer : hal 0 ; correct`."""

GRAMMARS = {grammar.name: grammar for grammar in (RELEASED, WORKED, LAB)}


def as_worked(text: str, grammar: Grammar) -> str:
    """Returns a critique in the order of WORKED if that is the grammar, else as it is.

    What stands before the first label stays there, and so does a text without any.
    """
    label = _LABEL.search(thoughts.masked(text))
    if grammar is not WORKED or not label:
        return text
    return text[: label.start()] + WORKED.write(RELEASED.parse(text[label.start() :]))


def grammar_of(text: str) -> Grammar:
    """Returns the grammar of a critique's text: RELEASED if it has one of its labels, else LAB."""
    return RELEASED if _LABEL.search(_LINE_END.sub('\n', text)) else LAB
