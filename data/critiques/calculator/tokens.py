"""Splits a line of a solution into numbers, operators, equality signs and words.

Different spellings become one token: `x`, `×`, `\\times`, `times` and `multiplied by` are all `*`.
"""

import fractions
import re
from typing import NamedTuple

Fraction = fractions.Fraction


class Token(NamedTuple):
    """A token of a line: its kind, text and place, and the value of a number.

    Kinds: 'number', 'operator' (text is one of + - * / ^), 'equals' (`=`; `~` if only about),
    'verb' (is, makes), '(', ')', 'word', 'break' (a clause ends) and 'other'.
    """

    kind: str
    text: str
    start: int
    end: int
    value: Fraction | None = None
    decimals: int = 0
    percent: bool = False


_ONES = (
    *('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'),
    *('eleven', 'twelve', 'thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen'),
    *('eighteen', 'nineteen'),
)
_TENS = ('twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty', 'ninety')
CARDINALS = {
    **{word: Fraction(value) for value, word in enumerate(_ONES)},
    **{word: Fraction(10 * value) for value, word in enumerate(_TENS, 2)},
}
"""Number words below a hundred; `twenty-five` consists of two."""

SCALES = {'hundred': 10**2, 'thousand': 10**3, 'million': 10**6, 'billion': 10**9}
PARTS = {
    'half': 2, 'halves': 2, 'third': 3, 'quarter': 4, 'fourth': 4, 'fifth': 5, 'sixth': 6,
    'seventh': 7, 'eighth': 8, 'ninth': 9, 'tenth': 10,
}  # fmt: skip
"""Words for fractions -> their denominators; of other plurals, as `thirds`, the s is dropped."""

MULTIPLES = {
    'twice': 2, 'double': 2, 'doubled': 2, 'doubles': 2, 'thrice': 3, 'triple': 3, 'tripled': 3,
    'triples': 3, 'quadruple': 4, 'quadrupled': 4, 'dozen': 12, 'dozens': 12, 'pair': 2,
    'pairs': 2, 'couple': 2, 'couples': 2, 'score': 20, 'gross': 144, 'decade': 10, 'century': 100,
}  # fmt: skip

ANNOTATION = re.compile(r'<<([^<>]*)>>')
_GROUPED = r'\d{1,3}(?:,\d{3})+(?!\d)|\d+'
_FRAC = r'\\(?:[dtc])?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}'
_MIXED = re.compile(rf'([\w.,^{{}})]*\d)\s*{_FRAC}')
_LATEX = (
    (re.compile(r'\\(?:d|t|c)?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}'), r'((\1)/(\2))'),
    (re.compile(r'\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}'), r' \1 '),
    (re.compile(r'\\(?:times|cdot)(?![A-Za-z])'), '*'),
    (re.compile(r'\\div(?![A-Za-z])'), '/'),
    (re.compile(r'\\(?:approx|simeq)(?![A-Za-z])'), '≈'),
    (re.compile(r'\\[()\[\]]|\\left|\\right|\\,|\\ '), ' '),
    (re.compile(r'(?<!\S)\*\*(?=\S)|(?<=\S)\*\*(?!\S)'), ' '),  # bold
    (re.compile(r'\\([$%])'), r'\1'),
    (re.compile(r'(?<=\d)\{,\}(?=\d)'), ','),
)
_WORDED = re.compile(
    r'(?<![A-Za-z])(?:(divided by)|(multiplied by|times)|(plus)|(minus))(?![A-Za-z])', re.I
)
_TOKEN = re.compile(
    rf"""
    (?P<clock>\d+:\d+)
  | (?P<break>\#\#\#\#|=>|->|→|⇒|[.,;:?!"“”\n](?!\d)|[;:?!"“”—])
  | (?P<number>(?P<money>[$€£¥]\s?)?(?P<digits>(?:{_GROUPED})(?:\.\d+)?|\.\d+)(?P<percent>\s?%)?)
  | (?P<operator>\*\*|[-+*/^×÷·∙⋅−–])
  | (?P<about>≈|~|≃)
  | (?P<relation><=|>=|!=|[<>≤≥≠])
  | (?P<equals>==?)
  | (?P<open>[(\[]) | (?P<close>[)\]])
  | (?P<word>[A-Za-z](?:[A-Za-z'’]|-(?=[A-Za-z]))*)
  | (?P<other>\S)
    """,
    re.X,
)
_SIGNS = {'×': '*', '·': '*', '∙': '*', '⋅': '*', '÷': '/', '−': '-', '–': '-', '**': '^'}
_VERBS = frozenset(['is', 'are', 'was', 'were', 'equals', 'equal', 'makes', 'gives', 'leaves'])
_ATTACHED_NOUN = re.compile(r'(?<=\d)\((\s*[A-Za-z][A-Za-z /]*)\)')
_NOUN_IN_PARENTHESES = re.compile(r'\((\s*[A-Za-z][A-Za-z /]*)\)')


def prose(line: str) -> str:
    """Returns a line without its `<<48/2=24>>`, and with LaTeX in plain signs."""
    text = _MIXED.sub(_mixed, ANNOTATION.sub('', line))
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text


def tokenize(line: str) -> list[Token]:
    """Splits a line that `prose` returned; only white space is dropped."""
    line = _WORDED.sub(_sign_of_word, line)
    line = _ATTACHED_NOUN.sub(r'   \1 ', line)
    line = _NOUN_IN_PARENTHESES.sub(r' \1 ', line)
    tokens: list[Token] = []
    for match in _TOKEN.finditer(line):
        tokens.append(_token(match, line, tokens[-1] if tokens else None))
    return tokens


def _mixed(match: re.Match) -> str:
    """Returns a mixed number such as `3\\frac{1}{2}` as a sum; a doubtful one as no number."""
    whole, top, bottom = match.groups()
    return f'({whole}+{top}/{bottom})' if whole.isdigit() else f'{whole}_(({top})/({bottom}))'


def _sign_of_word(match: re.Match) -> str:
    """Returns the sign of an operation word, padded so that offsets do not change."""
    sign = '/*+-'[match.lastindex - 1]
    return sign + ' ' * (len(match[0]) - 1)


def _token(match: re.Match, line: str, before: Token | None) -> Token:
    kind, text = match.lastgroup, match[0]
    kind = 'number' if kind in ('percent', 'digits', 'money') else kind
    place = match.start(), match.end()
    if kind == 'number':
        return _number(match, line)
    if kind == 'operator':
        return Token('operator', _SIGNS.get(text, text), *place)
    if kind == 'word':
        return _word(match, line, before)
    if kind in ('equals', 'about'):
        return Token('equals', '=' if kind == 'equals' else '~', *place)
    names = {'open': '(', 'close': ')', 'relation': 'other', 'clock': 'other'}
    if text in '$€£¥':
        kind = 'word'
    return Token(names.get(kind, kind), text, *place)


_NAME_END = re.compile(r"(?![xX]\s*[\d($])([A-Za-z]+)|[_'²³]|\.\.")
_UNITS = """
mm cm km kg mg ml lb lbs oz ft yd mi in inch inches feet hr hrs min mins sec secs mph kph kmh hours
minutes days weeks months years miles dollars cents meters grams of
"""
_ATTACHED_UNITS = frozenset(_UNITS.split())
"""Words that may follow a number without a space; other letters are variables, as in `3ab`."""

MAX_DIGITS = 40
"""Digits of the longest number that is read; a longer one is not judged."""


def _number(match: re.Match, line: str) -> Token:
    digits = match['digits'].replace(',', '')
    before = line[match.start() - 1 : match.start()]
    after = line[match.end() :]
    # A number next to a letter is part of a name or a term: `A4`, `2x`, `5k`; `0130` is a time.
    name = _NAME_END.match(after)
    is_name = before.isalpha() or before == '_' or name and name[1] not in _ATTACHED_UNITS
    if is_name or re.match(r'0\d', digits) or len(digits) > MAX_DIGITS:
        return Token('other', match[0], match.start(), match.end())
    percent = bool(match['percent'])
    value = Fraction(digits) / (100 if percent else 1)
    decimals = len(digits.partition('.')[2])
    return Token('number', match[0], match.start(), match.end(), value, decimals, percent)


def _cardinal(word: str) -> Fraction | None:
    """Returns the value of a number word from two to ninety-nine; `one` is usually a pronoun."""
    tens, _, ones = word.partition('-')
    if not ones:
        return None if word in ('zero', 'one') else CARDINALS.get(word)
    parts = CARDINALS.get(tens), CARDINALS.get(ones)
    return None if None in parts or parts[0] < 20 or not 0 < parts[1] < 10 else sum(parts)


def _word(match: re.Match, line: str, before: Token | None) -> Token:
    text, place = match[0], (match.start(), match.end())
    lower = text.lower()
    if lower == 'x' and before and before.kind in ('number', ')', 'word'):
        follows = re.match(r'\s*[\d($.]', line[match.end() :])
        return Token('operator', '*', *place) if follows else Token('other', text, *place)
    if lower in _VERBS:
        return Token('verb', text, *place)
    if (value := _cardinal(lower)) is not None:
        return Token('number', str(value), *place, value)
    if len(text) == 1 and lower not in 'ai':
        return Token('other', text, *place)
    return Token('word', text, *place)
