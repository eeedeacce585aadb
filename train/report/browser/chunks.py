"""Data of the browser as files of JavaScript, each of which calls one function with JSON.

A page that is opened from disk may load scripts and nothing else: fetch is refused there.
"""

import json
from typing import Any

from etils import epath

from elenchus.data.files import atomic

FUNCTION = 'elenchus.receive'
SIZE = 200
"""Episodes in a file of texts or tokens."""
_ESCAPES = {ord(c): f'\\u{ord(c):04x}' for c in '<>&\u2028\u2029'}


def to_script(name: str, value: Any) -> str:
    """Returns `elenchus.receive("name", JSON);`. No character of the JSON means anything to HTML.

    Raises ValueError for a number that JSON does not have.
    """
    text = json.dumps(value, separators=(',', ':'), ensure_ascii=False, allow_nan=False)
    return f'{FUNCTION}({json.dumps(name)},{text.translate(_ESCAPES)});\n'


class ChunkWriter:
    """Writes the data of one run, named by `key`, into the folder `data`."""

    def __init__(self, folder: epath.Path, *, key: str):
        self._folder, self._key = folder, key
        self.names: set[str] = set()

    def write(self, name: str, value: Any) -> None:
        """Writes the file KEY-NAME.js."""
        full = f'{self._key}-{name}'
        atomic.write_text(self._folder / f'{full}.js', to_script(full, value))
        self.names.add(f'{full}.js')


def delete_others(folder: epath.Path, names: set[str]) -> None:
    """Deletes the files of data that an earlier call wrote and this one did not."""
    for path in folder.glob('*.js'):
        if path.name not in names:
            path.unlink()
