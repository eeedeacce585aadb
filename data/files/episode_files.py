"""Reads and writes episodes as array_record files, one JSON record per episode."""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from array_record.python import array_record_module
from etils import epath

from elenchus.data.files import atomic
from elenchus.data.records import Episode, EpisodeFacts, Step, Turn, TurnFacts

REMEDY = "delete it and its stage's summary.json, if there is one, and run the same command again"
"""The advice that ends error messages about damaged outputs of a stage."""

DAMAGE_ERRORS = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,  # of RecursionError too: JSON that is nested too deeply
    TypeError,
    ValueError,
)
"""What reading a record raises that is not an episode."""


def to_json(episode: Episode) -> bytes:
    """Returns an episode as compact JSON; `from_json` is the inverse.

    Fields with their default value, such as unknown facts, are left out.
    """
    return json.dumps(_known_fields(episode), separators=(',', ':')).encode()


def from_json(record: bytes) -> Episode:
    """Returns the episode of a JSON record."""
    fields = json.loads(record)
    turns = tuple(map(_turn, fields.pop('turns')))
    facts = EpisodeFacts(**fields.pop('facts', {}))
    return Episode(turns=turns, facts=facts, **fields)


def _turn(fields: dict) -> Turn:
    steps = tuple(Step(**step) for step in fields.pop('steps', ()))
    facts = TurnFacts(**_with_tuples(fields.pop('facts', {})))
    return Turn(**_with_tuples(fields), steps=steps, facts=facts)


def _with_tuples(fields: dict) -> dict:
    """Returns the fields with tuples for lists: JSON has no tuples, and a Turn must be hashable."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}


def _known_fields(value: Any) -> Any:
    """Returns a dataclass as nested dicts, without the fields that have their default value."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _known_fields(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
    return [_known_fields(item) for item in value] if isinstance(value, tuple) else value


def write_episodes(path: str | os.PathLike, episodes: Iterable[Episode]) -> None:
    """Writes an array_record file atomically; see atomic.write_bytes."""
    if not atomic.may_write():
        return
    with tempfile.TemporaryDirectory() as folder:
        # The writer needs a local file; write_bytes then also reaches buckets.
        local = pathlib.Path(folder) / 'part'
        # A group of 1 keeps every record separate, so that readers have random access.
        writer = array_record_module.ArrayRecordWriter(str(local), 'group_size:1')
        for episode in episodes:
            writer.write(to_json(episode))
        writer.close()
        atomic.write_bytes(path, local.read_bytes())


def read_episodes(folder: str | os.PathLike) -> Iterator[Episode]:
    """Yields the episodes of every *.array_record file in a folder, in order of file names.

    Raises ValueError if the folder has no such file, or if a file is damaged.
    """
    paths = sorted(epath.Path(folder).glob('*.array_record'))
    if not paths:
        raise ValueError(f'no *.array_record files in {folder}')
    for path in paths:
        yield from read_episode_file(path)


def read_episode_file(path: str | os.PathLike) -> list[Episode]:
    """Returns the episodes of one file. Raises ValueError if the file is damaged."""
    path = epath.Path(path)
    with _local_copy(path) as local:
        try:
            reader = array_record_module.ArrayRecordReader(local)
            episodes = [from_json(record) for record in reader.read_all()]
        except DAMAGE_ERRORS as error:
            reason = ' '.join(str(error).split())[:100] or 'cut short'
            raise ValueError(f'{path} is damaged ({reason}): {REMEDY}') from None
        reader.close()
        return episodes


@contextlib.contextmanager
def _local_copy(path: epath.Path) -> Iterator[str]:
    """Yields a path on this machine: the path itself, or that of a copy of a bucket's object."""
    if not atomic.is_remote(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield os.fspath(copy)
