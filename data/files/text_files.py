"""Reads text files of users: UTF-8 with or without a byte order mark, with any line ends."""

import codecs
import os
import re

from etils import epath

LINE_ENDS = re.compile(r'\r\n|\r|\n')
_HALF_PAIR = re.compile('[\ud800-\udfff]')
_OTHER_ENCODINGS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, 'UTF-32'),
    (codecs.BOM_UTF32_BE, 'UTF-32'),
    (codecs.BOM_UTF16_LE, 'UTF-16'),
    (codecs.BOM_UTF16_BE, 'UTF-16'),
)


def read_text(path: str | os.PathLike) -> str:
    """Returns the text of a UTF-8 file without its byte order mark; line ends stay.

    Raises ValueError, which names the file and the line, if it is in another encoding.
    """
    return decode(epath.Path(path).read_bytes(), str(path))


def decode(raw: bytes, path: str) -> str:
    """Returns the text of the bytes of a file; see `read_text`."""
    for mark, name in _OTHER_ENCODINGS:
        if raw.startswith(mark):
            raise ValueError(f'{path}: the file is in {name}; save it as UTF-8')
    if b'\0' in raw:  # neither text nor JSON has it; UTF-16 without a mark is full of it
        line = _line(raw, raw.index(b'\0'))
        raise ValueError(f'{path}:{line}: a NUL byte; save the file as UTF-8, not as UTF-16')
    try:
        return raw.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        start = error.start + (len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0)
        raise ValueError(
            f'{path}:{_line(raw, start)}: byte 0x{raw[start]:02X} is not UTF-8; save the file as '
            'UTF-8 (it may be in Latin-1 or in a Windows code page)'
        ) from None


def unix_lines(text: str) -> str:
    r"""Returns a text whose line ends are all `\n`."""
    return LINE_ENDS.sub('\n', text)


def half_pair(text: str) -> str | None:
    """Describes the first half of a surrogate pair in a text; None if all characters are whole.

    JSON can spell half a character (`"\\ud83d"`); UTF-8, and so every tokenizer, cannot.
    """
    half = _HALF_PAIR.search(text)
    if half is None:
        return None
    return (
        f'half a surrogate pair, \\u{ord(half[0]):04x}, at character {half.start() + 1}: write the '
        'whole character, or leave it out'
    )


def check_whole(text: str) -> None:
    """Raises ValueError if a text has half a character, which no tokenizer can encode."""
    if fault := half_pair(text):
        raise ValueError(f'a text has {fault}')


def _line(raw: bytes, position: int) -> int:
    """Returns the number of the line, from 1, in which a byte is."""
    return len(re.findall(rb'\r\n|\r|\n', raw[:position])) + 1
