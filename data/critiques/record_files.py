"""Files of critique records: JSONL, the released JSON, and a prepared TFDS dataset.

A record is an attempt, its critique and known facts about both. A JSONL file has one record per
line, with the fields of `CritiqueRecord`: `question`, `response` and `critique` are required, other
fields may be absent, which means unknown. The released form (github.com/WooooDyy/MathCritique) is a
JSON array, or JSONL, of {instruction, input, output}: see `released_record`. Rows of ProcessBench,
PRM800K and TRL are read as records too (step_labels.py), from JSON, JSONL or Parquet.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from etils import epath

from elenchus.data.critiques import step_labels
from elenchus.data.files import (
    atomic,
    jsonl,
    prepared_datasets,
    row_files,
    text_files,
    tfds_records,
)


@dataclasses.dataclass(frozen=True)
class CritiqueRecord:
    """An attempt and its critique; None = unknown."""

    question: str
    response: str
    steps: tuple[str, ...]  # the lines of the response
    construction: str | None  # 'RG1', 'RG2' or 'RG3': see oracle.ConstructedAttempt
    location: int | None  # index of `steps`; see oracle.ConstructedAttempt
    kind: str | None  # of mistakes.kinds
    critique: str
    refinement_successes: int | None  # number of right ones among `refinements`
    refinements: int | None  # number of sampled refinements
    refinement: str | None  # text of one refinement
    problem_id: str | None
    level: int | None
    correct: bool | None  # the response is truly correct, whatever the critique claims


FIELDS = types.MappingProxyType(typing.get_type_hints(CritiqueRecord))
REQUIRED = ('question', 'response', 'critique')
_LEAST, _MOST = -(2**31), 2**31 - 1  # whole numbers that a data set stores


# JSONL


def write_jsonl(path: str | os.PathLike, records: Iterable[CritiqueRecord]) -> None:
    """Writes one record per line, atomically."""
    lines = (json.dumps(dataclasses.asdict(r), ensure_ascii=False) + '\n' for r in records)
    atomic.write_text(path, ''.join(lines))


def from_fields(fields: Mapping[str, Any]) -> CritiqueRecord:
    """Builds a record from its fields. Raises ValueError that names the invalid field."""
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.0)[0]
            raise ValueError(f'unknown field {name!r} of a critique record; did you mean {near!r}?')
    _check_present(REQUIRED, fields)
    values = {n: _typed(n, hint, fields[n]) for n, hint in FIELDS.items() if n in fields}
    if 'steps' not in values:
        values['steps'] = tuple(values['response'].split('\n'))
    record = CritiqueRecord(**dict.fromkeys(FIELDS) | values)
    if record.location is not None and not 0 <= record.location < len(record.steps):
        raise ValueError(f'location={record.location} must be in 0 to {len(record.steps) - 1}')
    return record


def _typed(name: str, hint: Any, value: Any) -> Any:
    """Returns the value of a field, lists as tuples and all line ends as those of Unix.

    Raises ValueError if the type is wrong.
    """
    kinds = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list) and all(type(item) is kinds[0] for item in value):
            return tuple(_typed(name, kinds[0], item) for item in value)
        raise ValueError(f'{name}={value!r} must be a list of {kinds[0].__name__}')
    if type(value) not in kinds:
        raise ValueError(f'{name}={value!r} must be of type {kinds[0].__name__}')
    if type(value) is int and not _LEAST <= value <= _MOST:
        raise ValueError(f'{name}={value} must be in {_LEAST} to {_MOST}')
    return text_files.unix_lines(value) if isinstance(value, str) else value


def _check_present(names: Iterable[str], fields: Mapping[str, Any]) -> None:
    for name in names:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)
            hint = f'; the nearest present field is {near[0]!r}' if near else ''
            raise ValueError(f'missing field {name!r} in a critique record{hint}')


# The released form


class ReleasedRecord(NamedTuple):
    """The texts of one released record, in the order of the conversation."""

    question: str
    attempt: str
    critique: str
    refinement: str


_RELEASED_FIELDS = ('instruction', 'input', 'output')
_ATTEMPT = '\n\nAssistant:'
_CRITIQUE = '\n<|end_of_text|>\nHuman: I have made a step-by-step critic for your solution.'
_ASK_AGAIN = (
    ' Please read the following critic and use this critic as a reference to provide a new '
    'detailed, step-by-step solution, including all reasoning and intermediate steps.'
)
_FORMAT = " Please also give your final number in the format of '"
_SPOKEN, _BOXED = 'The answer is [your answer].', r'The answer is $\boxed{[your answer]}$.'


def write_released(path: str | os.PathLike, records: Iterable[CritiqueRecord]) -> None:
    """Writes a JSON array of {instruction, input, output}, atomically.

    Raises ValueError, which names the record, if one has no refinement: the output is required.
    """
    texts = [
        jsonl.at_place(f'record {number}', _to_released, record)
        for number, record in enumerate(records, start=1)
    ]
    atomic.write_text(path, json.dumps(texts, ensure_ascii=False, indent=2) + '\n')


def released_record(record: Mapping[str, str]) -> ReleasedRecord:
    """Splits a record of the released JSON, {instruction, input, output}, into its four texts.

    Instructions about the format of the answer are removed from the question and the critique.
    Raises ValueError if a field or a separator is missing.
    """
    _check_present(_RELEASED_FIELDS, record)
    texts = {name: _unescaped(_typed(name, str, record[name])) for name in _RELEASED_FIELDS}
    request, answer = _split(texts['instruction'], _ATTEMPT)
    attempt, feedback = _split(answer, _CRITIQUE)
    _, critique = _split(feedback, '\n\n')
    question = request.partition(_FORMAT)[0].strip()
    return ReleasedRecord(question, attempt.strip(), critique.strip(), texts['output'].strip())


def _unescaped(text: str) -> str:
    r"""Restores the line breaks of released records that spell them as backslash and n."""
    return text.replace(r'\n', '\n') if '\n' not in text and r'\n\n' in text else text


def _from_released(fields: Mapping[str, str]) -> CritiqueRecord:
    question, response, critique, refinement = released_record(fields)
    return from_fields(
        {
            'question': question,
            'response': response,
            'critique': critique,
            'refinement': refinement,
        }
    )


def _to_released(record: CritiqueRecord) -> dict[str, str]:
    if record.refinement is None:
        raise ValueError('the released form needs a refinement as its output')
    boxed = r'\boxed{' in record.response + record.refinement
    request = f"{_FORMAT}{_BOXED if boxed else _SPOKEN}'"
    return {
        'instruction': f'{record.question}{request}{_ATTEMPT}{record.response}'
        f'{_CRITIQUE}{_ASK_AGAIN}{request}\n\n{record.critique}\n',
        'input': '',
        'output': record.refinement,
    }


def _split(text: str, separator: str) -> tuple[str, str]:
    """Returns the text before and after the first separator. Raises ValueError without one."""
    before, match, after = text.partition(separator)
    if not match:
        raise ValueError(f'missing {separator!r} in a released record, after {text[:40]!r}')
    return before, after


# Any form


def read(path: str | os.PathLike) -> list[CritiqueRecord]:
    """Reads a file of any form (the fields of a row tell which), or the folder of a dataset.

    Raises ValueError that names the file, the line or record, and the invalid field.
    """
    if epath.Path(path).is_dir():
        return list(read_dataset(path))
    return [jsonl.at_place(place, from_row, row) for _, place, row in _read_objects(path)]


def from_row(row: Mapping[str, Any]) -> CritiqueRecord:
    """Builds a record from a row of any form.

    Raises ValueError that names the invalid field, or the nearest form if the row is of none.
    """
    form = max(_FORMS, key=lambda form: (_is_of(row, form), _num_present(row, form)))
    if _is_of(row, form) or (form.name == 'critique record' and _num_present(row, form)):
        try:
            return form.convert(row)
        except ValueError as error:
            name = '' if form.name == 'critique record' else f'as a row of {form.name}: '
            raise ValueError(f'{name}{error}') from None
    if not _num_present(row, form):
        known = '; '.join(f'{form.name} ({", ".join(form.needed)})' for form in _FORMS)
        raise ValueError(f'the fields {_names(row)} are those of no known form; known: {known}')
    missing = [name for name in form.needed if name not in row]
    near = difflib.get_close_matches(missing[0], row, n=1)
    raise ValueError(
        f'the fields {_names(row)} are those of no known form; nearest is {form.name}, which needs '
        f'{", ".join(map(repr, missing))} too' + (f'; did you mean {near[0]!r}?' if near else '')
    )


class _Form(NamedTuple):
    """A form of rows: its name, the fields that it needs, and how it becomes a record."""

    name: str
    needed: tuple[str, ...]
    convert: Callable[[Mapping[str, Any]], CritiqueRecord]


def _labelled(form: step_labels.RowForm) -> _Form:
    return _Form(form.name, form.needed, lambda row: from_fields(form.fields(row)))


_FORMS = (
    _Form('critique record', REQUIRED, from_fields),
    _Form('released', _RELEASED_FIELDS, _from_released),
    *map(_labelled, step_labels.FORMS),
)
"""All forms; of two that fit equally well the first is taken."""


def _is_of(row: Mapping[str, Any], form: _Form) -> bool:
    return all(name in row for name in form.needed)


def _num_present(row: Mapping[str, Any], form: _Form) -> int:
    return sum(name in row for name in form.needed)


def _names(row: Mapping[str, Any]) -> str:
    return ', '.join(map(ascii, list(row)[:8])) or '(none)'


def _read_objects(path: str | os.PathLike) -> list[jsonl.PlacedObject]:
    objects = row_files.read_rows(path)
    if not objects:
        raise ValueError(f'{path} contains no records')
    return objects


# TFDS

SPLIT = 'train'


@dataclasses.dataclass(eq=False)
class CritiquesConfig(tfds.core.BuilderConfig):
    """Config of the TFDS builder `Critiques`."""

    path: str = ''  # the file of records


class Critiques(tfds_records.RecordBuilder, skip_registration=True):
    """Critique records of one file."""

    name = 'critiques'
    RECORD = CritiqueRecord
    DESCRIPTION = 'Attempts at reasoning problems with their critiques, step by step.'

    def _split_generators(self, _) -> dict[str, Iterator]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        for index, record in enumerate(read(self.builder_config.path)):
            yield index, tfds_records.to_row(record)


def prepare(path: str | os.PathLike, *, data_dir: str | os.PathLike) -> pathlib.Path:
    """Converts a file of records to a dataset under `data_dir`, once; returns its folder.

    The name of the config contains a hash of the file, so a changed file gives a new dataset.
    """
    read(path)  # reports an invalid record before anything is written
    source = epath.Path(path)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    name = f'{re.sub("[^A-Za-z0-9]+", "_", source.stem)}-{digest}'
    config = CritiquesConfig(name=name, path=os.fspath(path))
    return pathlib.Path(tfds_records.prepare(Critiques, config, data_dir).data_path)


def read_dataset(folder: str | os.PathLike) -> Sequence[CritiqueRecord]:
    """Opens the one prepared dataset in or below a folder, for random access to its records.

    Nothing that the folder names is imported. Raises ValueError if there is no dataset, or more
    than one, or another than of critique records.
    """
    dataset = prepared_datasets.find_dataset(folder)
    return prepared_datasets.read_records(CritiqueRecord, dataset, split=SPLIT, build=_from_values)


def _from_values(values: Mapping[str, Any]) -> CritiqueRecord:
    return from_fields(values | {'steps': list(values['steps'])})
