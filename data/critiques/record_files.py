"""Files of critique records: JSONL, the released JSON, and a prepared TFDS dataset.

One record is an attempt, its critique, and what is known of both. JSONL holds one record a line,
with the fields of `CritiqueRecord`; `question`, `response` and `critique` are needed, what else is
left out is unknown. The released form (github.com/WooooDyy/MathCritique) is a JSON array, or JSONL,
of {instruction, input, output}: see `released_record`.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from elenchus.data.files import json_files, tfds_records


@dataclasses.dataclass(frozen=True)
class CritiqueRecord:
    """An attempt and its critique; None stands for what is not known.

    `steps` are the lines of the response, and `location` is an index of them: where the attempt's
    maker put the mistake (see annotate.Path). `refinement_successes` of `refinements` sampled
    refinements were right; `refinement` is the text of one. `correct` says whether the response
    truly is, whatever the critique says.
    """

    question: str
    response: str
    steps: tuple[str, ...]
    construction: str | None
    location: int | None
    kind: str | None
    critique: str
    refinement_successes: int | None
    refinements: int | None
    refinement: str | None
    problem_id: str | None
    level: int | None
    correct: bool | None


FIELDS = types.MappingProxyType(typing.get_type_hints(CritiqueRecord))
NEEDED = ('question', 'response', 'critique')


# JSONL


def write_jsonl(path: str | os.PathLike, records: Iterable[CritiqueRecord]) -> None:
    """Writes one record a line; the file is whole or absent."""
    lines = (json.dumps(dataclasses.asdict(r), ensure_ascii=False) + '\n' for r in records)
    json_files.write_text(path, ''.join(lines))


def read_jsonl(path: str | os.PathLike) -> list[CritiqueRecord]:
    """The records of a JSONL file. Raises ValueError that names the line and the field at fault."""
    return [json_files.at(place, from_fields, fields) for _, place, fields in _objects(path)]


def from_fields(fields: Mapping[str, Any]) -> CritiqueRecord:
    """A record from the values of its fields. Raises ValueError that names the field at fault."""
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.0)[0]
            raise ValueError(f'{name!r} is no field of a critique record; nearest is {near!r}')
    _check_present(NEEDED, fields)
    values = {n: _typed(n, hint, fields[n]) for n, hint in FIELDS.items() if n in fields}
    if 'steps' not in values:
        values['steps'] = tuple(values['response'].split('\n'))
    record = CritiqueRecord(**dict.fromkeys(FIELDS) | values)
    if record.location is not None and not 0 <= record.location < len(record.steps):
        raise ValueError(f'location={record.location} must be from 0 to {len(record.steps) - 1}')
    return record


def _typed(name: str, hint: Any, value: Any) -> Any:
    """The value of a field. Raises ValueError where it is of another type."""
    kinds = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list) and all(type(item) is kinds[0] for item in value):
            return tuple(value)
        raise ValueError(f'{name}={value!r} is no list of {kinds[0].__name__}')
    if type(value) not in kinds:
        raise ValueError(f'{name}={value!r} is no {kinds[0].__name__}')
    return value


def _check_present(names: Iterable[str], fields: Mapping[str, Any]) -> None:
    for name in names:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)
            told = f'; nearest is {near[0]!r}' if near else ''
            raise ValueError(f'no field {name!r} in a critique record{told}')


# The released form


class ReleasedRecord(NamedTuple):
    """The texts of one released record, in the order in which they were said."""

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


def read_released(path: str | os.PathLike) -> list[CritiqueRecord]:
    """The records of a released file, a JSON array or JSONL.

    How their attempts were made is not known. Raises ValueError that names the record.
    """
    return [json_files.at(place, _from_released, fields) for _, place, fields in _objects(path)]


def write_released(path: str | os.PathLike, records: Iterable[CritiqueRecord]) -> None:
    """Writes a JSON array of {instruction, input, output}; the file is whole or absent.

    Raises ValueError, which names the record, where one has no refinement: it is the output.
    """
    texts = [
        json_files.at(f'record {number}', _to_released, record)
        for number, record in enumerate(records, start=1)
    ]
    json_files.write_text(path, json.dumps(texts, ensure_ascii=False, indent=2) + '\n')


def released_record(record: Mapping[str, str]) -> ReleasedRecord:
    """Splits a record of the released JSON, {instruction, input, output}, into its four texts.

    The requests about the answer's format are left out of the question and the critique. Raises
    ValueError where a field or a separator is missing.
    """
    _check_present(_RELEASED_FIELDS, record)
    texts = {name: _unescaped(_typed(name, str, record[name])) for name in _RELEASED_FIELDS}
    asked, answered = _split(texts['instruction'], _ATTEMPT)
    attempt, criticised = _split(answered, _CRITIQUE)
    _, critique = _split(criticised, '\n\n')
    question = asked.partition(_FORMAT)[0].strip()
    return ReleasedRecord(question, attempt.strip(), critique.strip(), texts['output'].strip())


def _unescaped(text: str) -> str:
    r"""The text with its line breaks, where they stand in it as backslash and n."""
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
        raise ValueError('no refinement, which is the output of the released form')
    boxed = r'\boxed{' in record.response + record.refinement
    asked = f"{_FORMAT}{_BOXED if boxed else _SPOKEN}'"
    return {
        'instruction': f'{record.question}{asked}{_ATTEMPT}{record.response}'
        f'{_CRITIQUE}{_ASK_AGAIN}{asked}\n\n{record.critique}\n',
        'input': '',
        'output': record.refinement,
    }


def _split(text: str, separator: str) -> tuple[str, str]:
    """The text before and after the first separator. Raises ValueError where there is none."""
    before, found, after = text.partition(separator)
    if not found:
        raise ValueError(f'no {separator!r} in a released record, after {text[:40]!r}')
    return before, after


# Any form


def read(path: str | os.PathLike) -> list[CritiqueRecord]:
    """The records of a file in either form (told apart by their fields), or of a dataset's folder.

    Raises ValueError that names the file, the line or record, and the field at fault.
    """
    if pathlib.Path(path).is_dir():
        return list(read_dataset(path))
    return [
        json_files.at(place, _from_released if 'instruction' in fields else from_fields, fields)
        for _, place, fields in _objects(path)
    ]


def _objects(path: str | os.PathLike) -> list[json_files.Found]:
    found = json_files.objects(path)
    if not found:
        raise ValueError(f'{path} holds no records')
    return found


# TFDS

SPLIT = 'train'


@dataclasses.dataclass(eq=False)
class CritiquesConfig(tfds.core.BuilderConfig):
    """From which file the records come."""

    path: str = ''


class Critiques(tfds_records.RecordBuilder, skip_registration=True):
    """Critique records of one file."""

    name = 'critiques'
    RECORD = CritiqueRecord
    ABOUT = 'Attempts at reasoning problems with their critiques, step by step.'

    def _split_generators(self, _) -> dict[str, Iterator]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        for index, record in enumerate(read(self.builder_config.path)):
            yield index, tfds_records.to_row(record)


def prepare(path: str | os.PathLike, *, data_dir: str | os.PathLike) -> pathlib.Path:
    """The folder of a dataset made from a file of records, under `data_dir`; made once.

    Its config is named for the file and its content, so a changed file makes another dataset.
    """
    read(path)  # a mistake in the file is told before anything is written
    source = pathlib.Path(path)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    name = f'{re.sub("[^A-Za-z0-9]+", "_", source.stem)}-{digest}'
    config = CritiquesConfig(name=name, path=os.fspath(path))
    return pathlib.Path(tfds_records.prepare(Critiques, config, data_dir).data_path)


def read_dataset(folder: str | os.PathLike) -> Sequence[CritiqueRecord]:
    """Random access to the records of a prepared dataset: the one in or below a folder.

    Raises ValueError where there is none, or more than one.
    """
    found = sorted(pathlib.Path(folder).rglob('dataset_info.json'))
    if len(found) != 1:
        raise ValueError(f'{folder} holds {len(found)} datasets; name the folder of one')
    with tfds_records.quiet():
        source = tfds.builder_from_directory(os.fspath(found[0].parent))
        return tfds_records.Records(CritiqueRecord, source.as_data_source(split=SPLIT))
