"""Text of strangers in Markdown files: shown as it is, whatever it contains.

Source of the rules: CommonMark 0.31.2, sections 2.4 (backslash escapes) and 2.5 (entities); tables
and links without brackets are of GitHub Flavored Markdown.
"""

import re
from collections.abc import Iterable

from elenchus.data.text.printable import printable

_MARKUP = re.compile(r'[\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_])')
_LINKS = re.compile(
    r'(?<=:)//|(?<=[wW]{3})\.|@(?=[\w-]+\.\w)|(?<!\w)@|(?i:(?<=mailto):|(?<=xmpp):)'
)


def text(value: object) -> str:
    """Returns a value as one line of Markdown that shows its text: no markup, HTML or link."""
    line = ' '.join(printable(value).split())
    escaped = _MARKUP.sub(lambda match: '\\' + match[0], line.replace('&', '&amp;'))
    escaped = escaped.replace('\\<', '&lt;').replace('\\>', '&gt;')
    return _LINKS.sub(lambda match: ''.join(f'&#{ord(c)};' for c in match[0]), escaped)


def row(cells: Iterable[object]) -> str:
    """Returns a row of a table, of cells that are Markdown already."""
    return f'| {" | ".join(map(str, cells))} |'
