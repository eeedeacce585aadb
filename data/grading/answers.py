"""Extracts answers from text, parses them as numbers and compares them."""

import fractions
import logging
import re

from elenchus.data.grading.extraction import boxed, extract_answer

MAX_ANSWER = 1000  # characters; longer answers are compared as text only

_INTEGER = r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)'
_DECIMAL = rf'(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)'
_NUMBER = re.compile(
    rf'(?P<sign>[-+]?)\s*(?:(?P<whole>{_INTEGER})\s+(?={_INTEGER}\s*/))?(?P<top>{_DECIMAL})'
    rf'(?:\s*/\s*(?P<bottom>-?{_DECIMAL})|[eE](?P<exponent>[-+]?[0-9]{{1,3}}))?'
)
NUMBER_IN_TEXT = re.compile(rf'{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+')
"""A number in a sentence: `1,234.50`, `.5`; a full stop after it is not part of it."""

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

_SPACING = re.compile(r'(?<![0-9]) | (?![0-9])')  # spaces that do not separate two digits
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


def parse_number(text: str) -> fractions.Fraction | None:
    r"""Parses one number exactly: `-1,234.50`, `$3`, `50\%`, `3 1/2`, `1e3`, `18 dollars`.

    A percent sign is dropped, not divided out, because the reference answers of the data sets do
    the same. Repeating decimals are supported: `0.1\overline{6}`. Returns None for anything else:
    expressions, lists, several numbers, non-ASCII digits.
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


def _repeating(*, sign: str, whole: str, fixed: str, again: str) -> fractions.Fraction:
    """Returns the value of the decimal whole.fixed(again)(again)..."""
    nines = 10 ** len(again) - 1
    value = int(whole + fixed or '0') + fractions.Fraction(int(again), nines)
    return value / fractions.Fraction(10) ** len(fixed) * (-1 if sign else 1)


def canonical(answer: str | None) -> str | None:
    """Returns one spelling for equal numbers, to count votes; other text is unchanged."""
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
    """Returns True if the text after a number is empty or names a unit or the things counted."""
    words = re.sub(r'\^\{?[23]\}?', '', rest).replace('/', ' ').lower().split()
    if not words or not rest.startswith(' '):
        unit = len(words) == 1 and words[0] != 'a' and _SHORT_UNIT.fullmatch(words[0])
        return not rest or bool(unit)
    return len(words) <= 5 and all(
        _SHORT_UNIT.fullmatch(word) or _UNIT.fullmatch(word) and not _NOT_UNIT.fullmatch(word)
        for word in words
    )


def compare(answer: str, reference: str) -> bool | None:
    """Compares two answers as numbers, texts and choices; None if that needs algebra.

    `50%` equals 50, as the references of the data sets write it, and also 0.5. A reference that is
    the letter of a choice, `(C)`, equals any answer that begins with it: `C`, `(C) 12`,
    `C. the third`.
    """
    value, expected = parse_number(answer), parse_number(reference)
    if value is not None and expected is not None:
        # Percent signs are dropped; if only one side has one, its value divided by 100 counts too.
        percents = [bool(_PERCENT.search(text)) for text in (answer, reference)]
        return (
            value == expected
            or (percents == [True, False] and value == 100 * expected)
            or (percents == [False, True] and 100 * value == expected)
        )
    if max(len(answer), len(reference)) > MAX_ANSWER:
        return answer.strip() == reference.strip()
    answer, reference = _clean(answer), _clean(reference)
    right_choice, choice = _CHOICE.fullmatch(reference), _CHOICE.match(answer)
    if right_choice and choice:
        return (right_choice[1] or right_choice[2]).upper() == (choice[1] or choice[2]).upper()
    answer, reference = (_SPACING.sub('', text).casefold() for text in (answer, reference))
    if not answer or not reference or answer == reference:
        return bool(answer) and answer == reference
    # A number against text: without a digit or LaTeX command no algebra can make them equal.
    text_answer = next(
        (text for text, number in [(answer, expected), (reference, value)] if number is not None),
        None,
    )
    if text_answer is not None and not re.search(r'[0-9\\]', text_answer):
        return False
    return None


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


def math_equal(answer: str, reference: str) -> bool:
    """Compares two answers algebraically with math-verify. May hang: for worker processes only.

    Only the LaTeX grammar is used: math-verify's plain-expression reader passes its input to
    sympy's `parse_expr`, which evaluates it as Python. The numerals of the LaTeX grammar also go
    through that function, so `eval` is replaced in its module by a parser of numerals.
    """
    import math_verify

    _disable_eval()
    config = [math_verify.LatexExtractionConfig()]
    gold, target = (
        math_verify.parse(rf'\boxed{{{text}}}', config, parsing_timeout=None, raise_on_error=True)
        for text in (reference, answer)
    )
    return math_verify.verify(
        gold, target, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True
    )


def _disable_eval() -> None:
    """Imports math-verify and sympy and replaces sympy's `eval`; see `math_equal`.

    sympy imports its units lazily and parses them with `eval`, so they are imported before it is
    replaced.
    """
    import math_verify  # noqa: F401
    import sympy.physics.units  # noqa: F401
    from sympy.parsing import sympy_parser

    sympy_parser.eval = _parse_numeral
    logging.getLogger('math_verify').setLevel(logging.ERROR)


class EvaluationRefused(BaseException):
    """Raised if sympy evaluates more than a numeral.

    A BaseException, so that no library catches it and the worker process ends.
    """


def _parse_numeral(code: str, names: dict, _: dict):
    match = re.fullmatch(r"\s*(Integer|Float) ?\('?([0-9.eE+-]+)'? ?\)\s*", code)
    if not match:
        raise EvaluationRefused(f'refused to evaluate {code[:50]!r}: it is not a numeral')
    return names[match[1]](match[2])
