"""Answers: found in a text, read as numbers, and compared."""

import collections
import fractions
import logging
import re

MAX_ANSWER = 1000  # characters; a longer answer is compared as text

_MARKER = re.compile(r'(?<!#)####(?!#)|\bthe (?:final )?answer is\b:?|\\boxed\s*\{', re.IGNORECASE)
_SENTENCE_END = re.compile(r'[.!?](?=\s|$)')

_INTEGER = r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)'
_DECIMAL = rf'(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)'
_NUMBER = re.compile(
    rf'(?P<sign>[-+]?)\s*(?:(?P<whole>{_INTEGER})\s+(?={_INTEGER}\s*/))?(?P<top>{_DECIMAL})'
    rf'(?:\s*/\s*(?P<bottom>-?{_DECIMAL})|[eE](?P<exponent>[-+]?[0-9]{{1,3}}))?'
)
NUMBER_IN_TEXT = re.compile(rf'{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+')
"""A number as it stands in a sentence: `1,234.50`, `.5`; a full stop after it is not its own."""

_FRACTION = re.compile(rf'\\frac\s*\{{\s*(-?{_DECIMAL})\s*\}}\s*\{{\s*({_DECIMAL})\s*\}}')
_TEXT = re.compile(r'\\(?:text|textbf|textit|mbox|mathrm|mathbf)\s*\{([^{}]*)\}')
_REPLACED = [
    ('\u2212', '-'),
    ('\u2013', '-'),
    ('\u00a0', ' '),
    ('\u202f', ' '),
    ('{,}', ','),
    (r'\!', ''),
    (r'\,', ' '),
    (r'\ ', ' '),
    ('~', ' '),
    (r'\$', ''),
    ('$', ''),
    ('£', ''),
    ('€', ''),
    (r'\%', ''),
    ('%', ''),
    (r'^{\circ}', ''),
    (r'^\circ', ''),
    ('°', ''),
    (r'\left', ''),
    (r'\right', ''),
    (r'\(', ''),
    (r'\)', ''),
    (r'\[', ''),
    (r'\]', ''),
    (r'\dfrac', r'\frac'),
    (r'\tfrac', r'\frac'),
]

_SPACING = re.compile(r'(?<![0-9]) | (?![0-9])')  # of an answer whose spaces are collapsed
_PERCENT = re.compile(r'%|\bpercent\b')
_REPEATING = re.compile(
    r'(?P<sign>-?)(?P<whole>[0-9]{0,50})\.(?P<fixed>[0-9]{0,50})\\overline\{(?P<again>[0-9]{1,50})\}'
)
_CHOICE = re.compile(r'(?:(?i:option|choice|answer) ?)?(?:\(([A-Ja-j])\)|([A-J])(?=[.):]|$))')
_SHORT_UNIT = re.compile(
    'a|cm|ft|gb|hrs?|in|kb|kgs?|km|lbs?|mb|mg|mi|ml|mm|mph|ms|of|oz|sq|tb|yds?'
)
_NOT_UNIT = re.compile(
    'alpha|and|base|beta|billion|choose|cosine|cubed|delta|dozen|eta|factorial|gamma|half|halves|'
    'hundred|infinity|into|iota|lambda|less|log|million|minus|mod|more|nor|not|omega|over|phi|'
    'plus|power|root|sigma|sine|squared|than|theta|thousand|times|trillion|zeta'
)
_UNIT = re.compile(r"(?=[^ ]*[aeiouy])[a-z]{3,}(?:[-'][a-z]+)*")


def extract_answer(text: str) -> str | None:
    r"""The answer after the last `####`, `The answer is` or `\boxed{`.

    None where there is no such marker, or where the last one is empty or never closed: an earlier
    answer does not stand in for it.
    """
    markers = collections.deque(_MARKER.finditer(text), maxlen=1)
    if not markers:
        return None
    (last,) = markers
    if last[0].endswith('{'):
        return _balanced(text, last.end())
    line = text[last.end() :].split('\n', 1)[0]
    if last[0] != '####':
        line = _SENTENCE_END.split(line, maxsplit=1)[0]
    return line.strip() or None


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{` holds; None where there is none, or it is empty or never closed."""
    last = text.rpartition(r'\boxed')[2].lstrip()
    return _balanced(last, 1) if r'\boxed' in text and last.startswith('{') else None


def _balanced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes the one before it."""
    depth = 1
    for place in re.finditer(r'\\.|[{}]', text[start:], re.DOTALL):
        depth += {'{': 1, '}': -1}.get(place[0], 0)
        if not depth:
            return text[start : start + place.start()].strip() or None
    return None


def parse_number(text: str) -> fractions.Fraction | None:
    r"""The exact value of one number: `-1,234.50`, `$3`, `50\%`, `3 1/2`, `1e3`, `18 dollars`.

    A percent sign is dropped, not divided out, as the data sets' own answers have it. Repeating
    decimals are read as well: `0.1\overline{6}`. None for all else: expressions, lists, several
    numbers, non-ASCII digits.
    """
    if len(text) > MAX_ANSWER:
        return None
    text = _clean(text)
    if match := _REPEATING.fullmatch(text):
        return _repeating(**match.groupdict())
    match = _NUMBER.match(text)
    if not match or not _is_unit(text[match.end() :]):
        return None
    top, bottom, whole = (
        match[name] and fractions.Fraction(match[name].replace(',', ''))
        for name in ('top', 'bottom', 'whole')
    )
    if bottom == 0:
        return None
    value = (whole or 0) + (top if bottom is None else top / bottom)
    value *= fractions.Fraction(10) ** int(match['exponent'] or 0)
    return -value if match['sign'] == '-' else value


def _repeating(sign: str, whole: str, fixed: str, again: str) -> fractions.Fraction:
    """The value of whole.fixed(again)(again)..."""
    nines = 10 ** len(again) - 1
    value = int(whole + fixed or '0') + fractions.Fraction(int(again), nines)
    return value / fractions.Fraction(10) ** len(fixed) * (-1 if sign else 1)


def canonical(answer: str | None) -> str | None:
    """One spelling of equal numbers, so that votes can be counted; other answers as they are."""
    number = None if answer is None else parse_number(answer)
    return answer if number is None else str(number)


def _clean(text: str) -> str:
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _FRACTION.sub(r' \1/\2', _TEXT.sub(r' \1', text))
    text = re.sub(r'\\frac\s*([0-9])\s*([0-9])', r' \1/\2', text)
    text = ' '.join(text.split()).strip('*').strip()
    return text.removesuffix('.').rstrip()


def _is_unit(rest: str) -> bool:
    """Whether what follows a number only names what it counts (or nothing does)."""
    words = re.sub(r'\^\{?[23]\}?', '', rest).replace('/', ' ').lower().split()
    if not words or not rest.startswith(' '):
        unit = len(words) == 1 and words[0] != 'a' and _SHORT_UNIT.fullmatch(words[0])
        return not rest or bool(unit)
    return len(words) <= 5 and all(
        _SHORT_UNIT.fullmatch(word) or _UNIT.fullmatch(word) and not _NOT_UNIT.fullmatch(word)
        for word in words
    )


def compare(answer: str, reference: str) -> bool | None:
    """Equality of numbers, of equal texts and of choices; None where only algebra could tell.

    `50%` is 50, as references have it, and 0.5 as well. A reference that is the letter of a choice,
    `(C)`, is met by the answer that begins with it: `C`, `(C) 12`, `C. the third`.
    """
    value, expected = parse_number(answer), parse_number(reference)
    if value is not None and expected is not None:
        return value == expected or _percents(answer, reference, value, expected)
    if max(len(answer), len(reference)) > MAX_ANSWER:
        return answer.strip() == reference.strip()
    answer, reference = _clean(answer), _clean(reference)
    asked, chosen = _CHOICE.fullmatch(reference), _CHOICE.match(answer)
    if asked and chosen:
        return (asked[1] or asked[2]).upper() == (chosen[1] or chosen[2]).upper()
    answer, reference = (_SPACING.sub('', text).casefold() for text in (answer, reference))
    if not answer or not reference or answer == reference:
        return bool(answer) and answer == reference
    wordy = next(
        (text for text, number in [(answer, expected), (reference, value)] if number is not None),
        None,
    )
    if wordy is not None and not re.search(r'[0-9\\]', wordy):
        return False
    return None


def _percents(answer: str, reference: str, value, expected) -> bool:
    """Whether the values are equal once the percent sign that one of the two has is divided out."""
    signs = [bool(_PERCENT.search(text)) for text in (answer, reference)]
    return (
        signs == [True, False]
        and value == 100 * expected
        or (signs == [False, True] and 100 * value == expected)
    )


def equivalent(answer: str, reference: str) -> bool:
    """Whether two answers are surely the same: numbers by exact value, all else by its text."""
    return compare(answer, reference) is True


def numbers(text: str) -> list[str]:
    """The numbers that a text holds, as they are written, without signs."""
    return NUMBER_IN_TEXT.findall(text)


def passes_barrier(refined: str, reference: str, attempt: str) -> bool:
    """The shortcut barrier: a refinement must not hold many fewer numbers than its models.

    `#numbers(refined) >= min(#numbers(reference), #numbers(attempt)) - 2` (METHODS, 2).
    """
    return len(numbers(refined)) >= min(len(numbers(reference)), len(numbers(attempt))) - 2


def math_equal(answer: str, reference: str) -> bool:
    """Algebraic equality by math-verify. May hang: for workers only.

    Only the LaTeX grammar is used: math-verify's plain-expression reader hands its input to sympy's
    `parse_expr`, which evaluates it as Python. The grammar's numerals end there too, so `eval` is
    replaced in that module by a reader of numerals.
    """
    import math_verify

    _without_evaluation()
    config = [math_verify.LatexExtractionConfig()]
    gold, target = (
        math_verify.parse(rf'\boxed{{{text}}}', config, parsing_timeout=None, raise_on_error=True)
        for text in (reference, answer)
    )
    return math_verify.verify(
        gold, target, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True
    )


def _without_evaluation() -> None:
    """Imports what algebra needs and takes evaluation from it; see `math_equal`.

    sympy imports its units when it first simplifies, and they are read by `eval`: before this.
    """
    import math_verify  # noqa: F401
    import sympy.physics.units  # noqa: F401
    from sympy.parsing import sympy_parser

    sympy_parser.eval = _read_numeral
    logging.getLogger('math_verify').setLevel(logging.ERROR)


class EvaluationRefused(BaseException):
    """sympy asked for more than a numeral; no library catches this, so that the worker ends."""


def _read_numeral(code: str, names: dict, _: dict):
    match = re.fullmatch(r"\s*(Integer|Float) ?\('?([0-9.eE+-]+)'? ?\)\s*", code)
    if not match:
        raise EvaluationRefused(f'{code[:50]!r} is no numeral')
    return names[match[1]](match[2])
