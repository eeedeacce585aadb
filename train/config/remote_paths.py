"""Paths in buckets on a command line: checked before anything is read or written."""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

KINDS = {'gs': ('gcsfs', "pip install 'elenchus[gcs]'"), 's3': ('s3fs', 'pip install s3fs')}
"""Kind of bucket -> the module that reads it, and how it is installed."""

_SCHEMES = re.compile(r'(?:^|(?<==))([A-Za-z][A-Za-z0-9+.-]*)(:/+)')
_MISSPELT = {'gcs': 'gs', 'GS': 'gs', 'GCS': 'gs', 'S3': 's3', 's3a': 's3', 's3n': 's3'}


def check_flags(values: Mapping[str, Any]) -> None:
    """Raises ValueError for a bucket in a flag, or in a field of a config, that cannot be used.

    Its client may be missing, or its path misspelt: gs:/BUCKET is a folder of this machine.
    """
    for name, value in values.items():
        for field, text in _texts(name, value):
            _check(f'--{field}', text)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of all texts in a value, with dotted names."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping) or hasattr(value, 'items'):
        for key, item in value.items():
            yield from _texts(f'{name}.{key}', item)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for item in value:
            yield from _texts(name, item)


def _check(name: str, text: str) -> None:
    for match in _SCHEMES.finditer(text):
        kind, slashes = match.groups()
        right = _MISSPELT.get(kind, kind)
        if right not in KINDS:
            continue  # an address of the web, a drive, a text
        rest = text[match.end() :]
        if kind != right or slashes != '://' or not rest or rest.startswith('/'):
            place = rest.lstrip('/') or 'BUCKET/FOLDER'
            raise ValueError(f'{name}={text}: nearest: {right}://{place}')
        module, install = KINDS[right]
        if importlib.util.find_spec(module) is None:
            raise ValueError(f'{name}={text}: {right}:// paths need {module}: {install}')
