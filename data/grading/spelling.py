r"""Normalises the spelling of answers: Unicode, LaTeX variants and thousands separators.

Only the spelling changes, never the value: `½` becomes `\frac{1}{2}`, `12\,345` becomes `12345`,
`90^{\text{o}}` becomes `90\degree`. What is ambiguous is left unchanged: `(1,234)` may be a pair.
"""

import functools
import re
import unicodedata

from elenchus.data.grading import extraction

_TABLE = {ord(old): new for old, new in zip('\u2212\u2013\u2010\u2011\uff0d', '-' * 5, strict=True)}
_TABLE |= dict.fromkeys(
    map(ord, '\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062\u2063\ufe0f'), ''
)
_TABLE |= dict.fromkeys([*range(0x2000, 0x200B), 0xA0, 0x202F, 0x205F, 0x3000], ' ')
_TABLE |= {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF0D}
_TABLE |= {
    ord(character): rf' \{name} ' if name.isalpha() else name
    for character, name in {
        '\u00d7': 'times', '\u22c5': 'cdot', '\u00b7': 'cdot', '\u2219': 'cdot', '\u2217': '*',
        '\u00f7': '/', '\u2215': '/', '\u2044': '/', '\u2236': ':', '\u221e': 'infty',
        '\u2264': 'le', '\u2a7d': 'le', '\u2265': 'ge', '\u2a7e': 'ge', '\u2260': 'ne',
        '\u2248': 'approx', '\u00b1': 'pm', '\u2213': 'mp', '\u222a': 'cup', '\u2229': 'cap',
        '\u2208': 'in', '\u2209': 'notin', '\u2205': 'emptyset', '\u00b0': 'degree',
        '\u00ba': 'degree',
        '\u03c0': 'pi', '\u03b1': 'alpha', '\u03b2': 'beta', '\u03b3': 'gamma', '\u03b4': 'delta',
        '\u03b5': 'epsilon', '\u03b8': 'theta', '\u03bb': 'lambda', '\u03bc': 'mu', '\u00b5': 'mu',
        '\u03c1': 'rho', '\u03c3': 'sigma', '\u03c4': 'tau', '\u03c6': 'phi', '\u03d5': 'phi',
        '\u03c9': 'omega', '\u0394': 'Delta', '\u03a9': 'Omega', '\u2220': 'angle',
        '\u2032': "'", '\u2019': "'", '\u2018': "'", '\u02bc': "'",
        '\u27e8': 'langle', '\u27e9': 'rangle', '\u2223': '|', '\u3002': '.',
        '\u201c': '', '\u201d': '', '\u230a': 'lfloor',
        '\u230b': 'rfloor', '\u2308': 'lceil', '\u2309': 'rceil',
    }.items()
}  # fmt: skip
_TABLE |= {
    ord(c): rf' \mathbb{{{n}}} ' for c, n in zip('\u211d\u2124\u2115\u211a', 'RZNQ', strict=True)
}
_TABLE |= {
    code: unicodedata.normalize('NFKC', chr(code))
    for code in [*range(0x1D400, 0x1D6A4), 0x212F, *range(0x3380, 0x33A0)]
    if unicodedata.normalize('NFKC', chr(code)).isascii()
}
_TABLE |= {0x2103: r'\degree C', 0x2109: r'\degree F', 0x1D70B: r' \pi ', 0x1D6D1: r' \pi '}
_RAISED = dict(
    zip(
        '\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207d\u207e\u207f\u02e3',
        '0123456789+-()nx',
        strict=True,
    )
)
_LOWERED = {chr(0x2080 + digit): str(digit) for digit in range(10)}
_FRACTIONS = {
    '\u00bd': '1/2', '\u2153': '1/3', '\u2154': '2/3', '\u00bc': '1/4', '\u00be': '3/4',
    '\u2155': '1/5', '\u2156': '2/5', '\u2157': '3/5', '\u2158': '4/5', '\u2159': '1/6',
    '\u215a': '5/6', '\u2150': '1/7', '\u215b': '1/8', '\u215c': '3/8', '\u215d': '5/8',
    '\u215e': '7/8', '\u2151': '1/9', '\u2152': '1/10',
}  # fmt: skip
_ROOT = re.compile(
    r'(?P<sign>[\u221a\u221b\u221c])\s*(?:\((?P<group>[^()]*)\)|\{(?P<braces>[^{}]*)\}|'
    r'(?P<run>[0-9.]+|[A-Za-z]|\\[a-z]+))'
)
_ROOT_INDEX = {'\u221a': '', '\u221b': '[3]', '\u221c': '[4]'}

_TEXT = re.compile(
    r'\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathord|rm|bf|'
    r'operatorname)'
    r'\s*\{([^{}]*)\}'
)
_LATEX = [
    (re.compile(pattern), new)
    for pattern, new in [
        (r'\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![A-Za-z])', ''),
        (r',(?<!\\)\\!\s*', ','),
        (r'(?<!\\)\\!|\\phantom\{[^{}]*\}', ''),
        (r'(?<!\\)\\(?:[,;: >]|quad|qquad|enspace|thinspace|hspace\{[^{}]*\})|~', ' '),
        (r'\\[dtc]frac(?![A-Za-z])', r'\\frac'),
        (r'\\frac\s*(\d)\s*(\d)(?!\d)', r'\\frac{\1}{\2}'),
        (r'\\(?:leq|leqslant)(?![A-Za-z])', r'\\le '),
        (r'\\(?:geq|geqslant)(?![A-Za-z])', r'\\ge '),
        (r'\\neq(?![A-Za-z])', r'\\ne '),
        (r'\\(?:div)(?![A-Za-z])', '/'),
        (r'\\(?:lbrace)(?![A-Za-z])', r'\\{'),
        (r'\\(?:rbrace)(?![A-Za-z])', r'\\}'),
        (r'\\(?:lvert|rvert|mid|vert)(?![A-Za-z])', '|'),
        (r'\\(?:varnothing|O)(?![A-Za-z])', r'\\emptyset '),
        (r'\\(?:dots|ldots|cdots)(?![A-Za-z])', '...'),
        (
            r'\^\s*(?:\{\s*(?:\\circ|o|\\degree)\s*\}|\\circ(?![A-Za-z])|o(?![A-Za-z]))',
            r'\\degree ',
        ),
        (r'\\(?:degrees?|deg|textdegree)(?![A-Za-z])', r'\\degree '),
        (r'\\(?:[()\[\]]|\$\$)', ' '),
        (r'\\(?:mathbb|Bbb)\s*\{?([A-Z])\}?', r'\\mathbb{\1}'),
        (r'\{,\}', ','),
        (r'(?:^|(?<=[(\[,;=]))\s*\+\s*\\?infty(?![A-Za-z])', r' \\infty '),
        (r'\*\*', '^'),
        (r'\\%', '%'),
        (r'\\?#', '#'),
    ]
]
_GROUPS = re.compile(
    r"(?<![\d.,'])(?P<digits>[1-9]\d{0,2}(?:(?P<sep>[ '])\d{3})(?:(?P=sep)\d{3})*)(?![\d'])(?!\s*/)"
)
_COMMAS = re.compile(r'(?<![\d.,])(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3})(?![\d,])')
_DOTS = re.compile(r'(?<![\d.,])(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+)(?:,(?P<part>\d{1,2}))(?![\d,.])'
                   r'|(?<![\d.,])(?P<only>[1-9]\d{0,2}(?:\.\d{3}){2,})(?![\d,.])')  # fmt: skip
_LETTER_UNITS = {
    'm': 'meter', 's': 'second', 'h': 'hour', 'g': 'gram', 'l': 'liter', 'L': 'liter', 'W': 'watt',
    'N': 'newton', 'J': 'joule', 'V': 'volt', 'A': 'ampere', 'K': 'kelvin', 'C': 'celsius',
    'F': 'fahrenheit',
}  # fmt: skip


@functools.lru_cache(maxsize=20_000)
def normalise(text: str) -> str:
    """Returns an answer in normalised spelling, without math delimiters and outer emphasis."""
    text = read_unicode(extraction.without_end_tokens(text).strip())
    text = _strip_wrappers(text)
    text = _TEXT.sub(_unwrap, _TEXT.sub(_unwrap, text))
    for pattern, new in _LATEX:
        text = pattern.sub(new, text)
    text = ' '.join(_currency(text).split()).strip('*`" ')
    text = re.sub(r"^'([^']+)'$", r'\1', text)
    text = _GROUPS.sub(lambda match: re.sub(r"[ ']", '', match[0]), text)
    text = _DOTS.sub(_without_dots, text)
    text = _join_commas(text)
    text = re.sub(
        r'(?<![\d.,])[1-9]\d{0,2}(?:, 000)+(?![\d,])', lambda m: re.sub(', ', '', m[0]), text
    )
    text = re.sub(r'(?<=\d)\s*[xX]\s*(?=10\s*\^)', r'\\times ', text)
    text = re.sub(r'(?<!\.)\.$', '', text.rstrip(' ,;:')) if not text.endswith('...') else text
    return re.sub(r'\s+(?=[\^_])', '', text).strip()


def read_unicode(text: str) -> str:
    """Replaces Unicode characters by ASCII or LaTeX commands."""
    if text.isascii():
        return text
    for raised, mark in ((_RAISED, '^'), (_LOWERED, '_')):
        characters = ''.join(raised)
        text = re.sub(
            f'[{characters}]+',
            lambda match, m=mark, table=raised: f'{m}{{{"".join(table[c] for c in match[0])}}}',
            text,
        )
    text = re.sub(f'[{"".join(_FRACTIONS)}]', _fraction, text)
    for _ in range(3):  # nested roots
        text = _ROOT.sub(_root, text)
    return text.translate(_TABLE)


def _fraction(match: re.Match) -> str:
    top, bottom = _FRACTIONS[match[0]].split('/')
    return rf'\frac{{{top}}}{{{bottom}}}'


def _root(match: re.Match) -> str:
    content = match['group'] or match['braces'] or match['run'] or ''
    return rf'\sqrt{_ROOT_INDEX[match["sign"]]}{{{content}}}'


def _strip_wrappers(text: str) -> str:
    r"""Removes `$...$`, `\(...\)`, `\[...\]`, `\boxed{...}` around a whole answer."""
    for _ in range(4):
        before = text
        text = text.strip().strip('*`').strip()
        for begin, end in (('$$', '$$'), ('$', '$'), (r'\(', r'\)'), (r'\[', r'\]')):
            inner = text.removesuffix('.').removesuffix(',')
            if len(inner) > 2 and inner.startswith(begin) and inner.endswith(end):
                inner = inner[len(begin) : len(inner) - len(end)]
                text = inner if begin not in inner or begin == '$' and '$' not in inner else text
        if re.match(r'\\f?box(?:ed)?\s*\{', text):
            content = extraction.balanced(text, text.index('{') + 1)
            if content and text.rstrip('.').endswith('}') and len(content) + 10 > len(text) - 4:
                text = content
        if text == before:
            break
    return text


def _unwrap(match: re.Match) -> str:
    """Returns the words of a text command; letters after a number are units, `5\text{ m}`."""
    content, before = match[1], match.string[: match.start()].rstrip()
    if content.strip() in (',', '.'):
        return content.strip()
    if content.strip() == 'o' and re.search(r'\^\s*\{?$', before):
        return 'o'
    after_number = bool(re.search(r'(?:[0-9})]|\\pi|\\degree|\\circ|\\,|\\;|\\ )$', before))
    if after_number and before.endswith(('^', '_', '^{', '_{')) is False:
        words = re.split(r'(?<![A-Za-z])([A-Za-z])(?![A-Za-z.])', content)
        content = ''.join(_LETTER_UNITS.get(word, word) for word in words)
        return f' {content}'
    return content if before.endswith(('_', '^', '{')) else f' {content}'


def _currency(text: str) -> str:
    r"""Removes pairs of `$` around mathematics; a `$` alone and `\$` are the currency."""
    maths = re.compile(r'(?<!\\)\$')
    if len(maths.findall(text)) % 2 == 0 or re.search(r'\\[a-z]+|\^', text):
        text = maths.sub(' ', text)
    return text.replace(r'\$', '$')


def _without_dots(match: re.Match) -> str:
    whole = (match['whole'] or match['only']).replace('.', '')
    return f'{whole}.{match["part"]}' if match['part'] else whole


def _join_commas(text: str) -> str:
    """Removes the comma of `1,234`, except inside brackets, where it may be a pair."""
    pieces, depth, start = [], 0, 0
    for place in re.finditer(r'[()\[\]{}]', text):
        if depth == 0:
            pieces.append(_COMMAS.sub(lambda m: m[0].replace(',', ''), text[start : place.start()]))
        else:
            pieces.append(text[start : place.start()])
        pieces.append(place[0])
        depth = max(0, depth + (1 if place[0] in '([{' else -1))
        start = place.end()
    tail = text[start:]
    return ''.join(pieces) + (
        _COMMAS.sub(lambda m: m[0].replace(',', ''), tail) if not depth else tail
    )
