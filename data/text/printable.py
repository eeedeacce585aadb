"""Text of strangers (problems, models, files) made safe to print, in a terminal and on a page."""

import re
from typing import Any

_UNPRINTABLE = re.compile(
    '['
    '\x00-\x08\x0b-\x1f\x7f-\x9f'  # control characters but tab and line feed; ESC, BEL, CSI, CR
    '\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069'  # change the direction in which text is shown
    '\u2028\u2029\ufff9-\ufffb'  # line ends that only some programs know; annotations
    '\ud800-\udfff'  # half characters, which no stream can encode
    '\U000e0000-\U000e007f'  # invisible copies of ASCII
    ']'
)


def printable(text: object) -> str:
    r"""Returns a text without characters that act on a terminal; they become `\x1b`, `\u202e`, ...

    Line feeds and tabs stay, and so do all letters, also those that are written from right to left.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], str(text))


def printable_json(value: Any) -> Any:
    """Returns JSON whose texts, keys too, have no characters that act on a terminal."""
    if isinstance(value, dict):
        return {printable_json(key): printable_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(printable_json, value))
    return printable(value) if isinstance(value, str) else value
