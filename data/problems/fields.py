"""Reads the fields of a problem's row: texts, numbers as texts, levels and reference answers.

All functions raise ValueError that names the field; the caller adds the file and the line.
"""

import decimal
import json
import re
from collections.abc import Mapping
from typing import Any

from elenchus.data.files import jsonl, text_files

_LEVEL = re.compile(r'(?:level\s*)?(\d{1,9}|\?)', re.IGNORECASE)
_SWALLOWED = re.compile(
    r'\x08(?=inom|eta\b|ar\b|oxed|egin|ig|mod|ullet)|\f(?=rac|orall|lat|box)'
    r'|\t(?=ext\{|ext(?:bf|it|rm)|imes\b|heta\b|frac[{\d]|au\b|ilde\{|riangle\b|binom\{)'
    r'|\r(?=ight[)\]}|.\\]|ho\b|angle\b)'
)
_MAX_DIGITS = 400  # of a number as it is written out; float64 has no more


def required(record: Mapping[str, Any], name: str) -> Any:
    """Returns the value of a field. Raises ValueError, with a similar name, if it is missing."""
    if name not in record:
        raise ValueError(f'missing field {name!r}{jsonl.suggestion(name, record)}')
    return record[name]


def text(record: Mapping[str, Any], name: str) -> str:
    r"""Returns a text with `\n` as its only line end. Raises ValueError if it is blank."""
    value = required(record, name)
    if not isinstance(value, str):
        raise ValueError(f'{name}={_shown(value)} is not text')
    if not value.strip():
        raise ValueError(f'{name}={_shown(value)} is empty')
    return text_files.unix_lines(value)


def optional_text(record: Mapping[str, Any], name: str) -> str:
    """Returns a text; '' if the field is missing, null or blank."""
    value = record.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ''
    return text(record, name)


def check_latex(record: Mapping[str, Any], name: str) -> None:
    r"""Raises ValueError if a JSON escape has swallowed the beginning of a LaTeX command.

    `"\frac"` with one backslash is a form feed and `rac`: no answer equals it, and it is trained.
    """
    value = record.get(name)
    swallowed = _SWALLOWED.search(value) if isinstance(value, str) else None
    if swallowed is None:
        return
    escape = json.dumps(swallowed[0])[1:-1]
    rest = value[swallowed.end() :][:4]
    raise ValueError(
        f'{name} has the control character {escape} at character {swallowed.start() + 1}: in JSON '
        f'write the backslash of LaTeX twice, as in "\\{escape}{rest}..."'
    )


def text_or_number(record: Mapping[str, Any], name: str) -> str:
    """Returns a text, or a number as text; whole numbers without a decimal point."""
    value = required(record, name)
    if is_number(value):
        return number_text(value, name)
    if not isinstance(value, str):
        raise ValueError(f'{name}={_shown(value)} is neither text nor a number')
    return text(record, name)


def number(record: Mapping[str, Any], name: str) -> str:
    """Returns a number, or a text that is one, as text; whole ones without a decimal point."""
    value = required(record, name)
    if isinstance(value, str):
        try:
            return number_text(decimal.Decimal(value.strip().replace(',', '')), name)
        except decimal.InvalidOperation:
            pass
    elif is_number(value):
        return number_text(value, name)
    raise ValueError(f'{name}={_shown(value)} is not a number')


def is_number(value: Any) -> bool:
    """Returns whether a value of JSON or Parquet is a number; true and false are none."""
    return isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool)


def number_text(value: int | float | decimal.Decimal, name: str) -> str:
    """Writes a number as people do: without exponent, whole ones without a decimal point."""
    exact = decimal.Decimal(str(value))
    if not exact.is_finite() or abs(exact.adjusted()) > _MAX_DIGITS:
        raise ValueError(f'{name}={_shown(value)} is not a finite number')
    plain = f'{exact:f}'
    plain = plain.rstrip('0').rstrip('.') if '.' in plain else plain
    return '0' if plain == '-0' else plain


def level(record: Mapping[str, Any]) -> int:
    """Returns `level`: 5, 5.0, '5' and 'Level 5' are 5; missing, null and 'Level ?' are 0."""
    value = record.get('level')
    if value is None:
        return 0
    if isinstance(value, str) and (match := _LEVEL.fullmatch(value.strip())):
        return 0 if match[1] == '?' else int(match[1])
    if not is_number(value) or value < 0 or value != int(value) or value > 10**9:
        raise ValueError(
            f"level={_shown(value)} must be a whole number, at least 0, such as 3 or 'Level 3'"
        )
    return int(value)


def _shown(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 80 else f'{shown[:77]}...'
