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

from elenchus.data.files import atomic, failures
from elenchus.data.records import Episode, EpisodeFacts, Step, ToolTurn, Turn, TurnFacts

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
    tools = tuple(ToolTurn(**tool) for tool in fields.pop('tools', ()))
    facts = TurnFacts(**_with_tuples(fields.pop('facts', {})))
    return Turn(**_with_tuples(fields), steps=steps, facts=facts, tools=tools)


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
    with atomic.replaced(path) as local:
        # A group of 1 keeps every record separate, so that readers have random access.
        writer = array_record_module.ArrayRecordWriter(str(local), 'group_size:1')
        try:
            for episode in episodes:
                writer.write(to_json(episode))
        finally:
            writer.close()


def read_episodes(folder: str | os.PathLike) -> Iterator[Episode]:
    """Yields the episodes of every *.array_record file in a folder, in order of file names.

    Raises ValueError if the folder has no such file, or if a file is damaged.
    """
    for path in list_files(folder):
        yield from read_episode_file(path)


def list_files(folder: str | os.PathLike) -> list[epath.Path]:
    """Returns the *.array_record files of a folder in order. Raises ValueError without one."""
    paths = sorted(epath.Path(folder).glob('*.array_record'))
    if not paths:
        raise ValueError(f'no *.array_record files in {folder}')
    return paths


def count_episodes(path: str | os.PathLike) -> int:
    """Returns the number of episodes in a file. Raises ValueError if the file is damaged."""
    with _reader(path) as reader:
        return reader.num_records()


def read_episode_file(path: str | os.PathLike) -> list[Episode]:
    """Returns the episodes of one file. Raises ValueError if the file is damaged."""
    with _reader(path) as reader:
        return [from_json(record) for record in reader.read_all()]


@contextlib.contextmanager
def _reader(path: str | os.PathLike) -> Iterator[array_record_module.ArrayRecordReader]:
    """Opens a file. Raises ValueError if it, or a record that the body reads, is damaged."""
    path = epath.Path(path)
    with failures.named_errors(path), _local_copy(path) as local:
        try:
            reader = array_record_module.ArrayRecordReader(local)
            yield reader
        except DAMAGE_ERRORS as error:
            reason = ' '.join(str(error).split())[:100] or 'cut short'
            if failures.errno_of(reason) is not None:
                raise
            raise ValueError(f'{path} is damaged ({reason}): {REMEDY}') from None
        reader.close()


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
