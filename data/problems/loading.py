"""Problem sources: JSONL files, published sets and the generated task, the latter two by TFDS.

TFDS is used without TensorFlow: builders write array_record files and are read at random.
"""

import dataclasses
import functools
import hashlib
import inspect
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from elenchus.data.files import json_files, tfds_records
from elenchus.data.problems import published
from elenchus.data.records import Problem

SOURCES = ('lab', *published.SETS, 'jsonl')
LAB_SPLITS = ('train', 'validation', 'test', 'ood')
LINES_SPLITS = ('train', 'test')


def jsonl(path: str | os.PathLike) -> list[Problem]:
    """Problems of a JSONL file: `question`, `answer`, optional `solution`, `level`, `id`.

    Other fields are ignored; `level` is 0 and `id` `<file>/<line>` where absent. Raises ValueError
    with the path and the line of what is malformed, and on an id that occurs twice.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f'path={str(path)!r} is no file: give a JSONL file of problems')
    problems, lines = [], {}
    for number, place, record in json_files.objects(path):
        make = functools.partial(_problem, default_id=f'{path.stem}/{number}')
        problem = json_files.at(place, make, record)
        first = lines.setdefault(problem.id, number)
        if first != number:
            raise ValueError(f'{place}: id {problem.id!r} is that of line {first}')
        problems.append(problem)
    if not problems:
        raise ValueError(f'{path} holds no problems')
    return problems


def _problem(record: dict, *, default_id: str) -> Problem:
    """A Problem from its fields. Raises ValueError that names the field at fault."""
    for name in ('question', 'answer'):
        if name not in record:
            raise ValueError(f'no field {name!r}{json_files.nearest(name, record)}')
    answer = record['answer']
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        record['answer'] = str(answer)
    texts = {'id': default_id, 'solution': ''} | record
    for name in ('question', 'answer', 'solution', 'id'):
        if not isinstance(texts[name], str):
            raise ValueError(f'{name}={texts[name]!r} is not text')
    level = record.get('level', 0)
    if type(level) is not int or level < 0:
        raise ValueError(f'level={level!r} is not a whole number from 0')
    return Problem(
        id=texts['id'],
        question=texts['question'],
        answer=texts['answer'],
        solution=texts['solution'],
        level=level,
        source='jsonl',
    )


@dataclasses.dataclass(eq=False)
class LabConfig(tfds.core.BuilderConfig):
    """How many problems of which seed; `num_problems` has one entry a split."""

    seed: int = 0
    num_problems: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Lab(tfds_records.RecordBuilder, skip_registration=True):
    """Problems of the generated task."""

    name = 'lab'
    RECORD = Problem
    ABOUT = 'Chained arithmetic modulo 10 with distractors, generated with checkable steps.'

    def _split_generators(self, _) -> dict[str, Iterator]:
        return {
            split: self._generate_examples(split, count)
            for split, count in self.builder_config.num_problems.items()
        }

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict]]:
        from elenchus.data.lab import task

        for index in range(count):
            problem = task.problem(seed=self.builder_config.seed, split=split, index=index)
            yield index, tfds_records.to_row(problem)


def load(
    source: str,
    *,
    split: str,
    data_dir: str | os.PathLike | None = None,
    path: str | os.PathLike | None = None,
    seed: int | None = None,
    num_problems: Mapping[str, int] | None = None,
    annotations: bool | None = None,
) -> Sequence[Problem]:
    """The problems of one split, prepared under `data_dir` where they are not there yet.

    - lab: needs `data_dir`, `seed` and `num_problems`, the number of problems by split.
    - gsm8k, gsm8k_socratic: need `data_dir` and `annotations` (whether solutions keep calculator
      annotations); `path` is a folder of train.jsonl and test.jsonl (train_socratic.jsonl,
      test_socratic.jsonl). Without it they are downloaded; with it no network is touched.
    - math, svamp, asdiv: need `data_dir`; `path` as above. The test split can be downloaded.
    - jsonl: needs `path`, a file (any split) or a folder of `<split>.jsonl`.

    Raises ValueError on an unknown source or split, an option that is missing or not the
    source's, and a path that is not there, before anything is written.
    """
    given = {
        'data_dir': data_dir,
        'path': path,
        'seed': seed,
        'num_problems': num_problems,
        'annotations': annotations,
    }
    _check_options(source, {name for name, value in given.items() if value is not None})
    if source == 'jsonl':
        path = pathlib.Path(path)
        return jsonl(path / f'{split}.jsonl' if path.is_dir() else path)
    if source == 'lab':
        builder, config = Lab, _lab_config(split, seed, num_problems)
    else:
        builder = published.SETS[source]
        config = _lines_config(source, split, path, bool(annotations))
    rows = tfds_records.prepare(builder, config, data_dir).as_data_source(split=split)
    return tfds_records.Records(Problem, rows)


def options_of(source: str, *, data_dir: str, path: str) -> dict[str, Any]:
    """What `load` needs for a set that is not generated; '' as the path downloads it."""
    told = {'data_dir': data_dir, 'path': path or None}
    return told | ({'annotations': False} if source.startswith('gsm8k') else {})


_OPTIONS = {  # needed, optional
    'lab': ({'data_dir', 'seed', 'num_problems'}, set()),
    'gsm8k': ({'data_dir', 'annotations'}, {'path'}),
    'gsm8k_socratic': ({'data_dir', 'annotations'}, {'path'}),
    **{name: ({'data_dir'}, {'path'}) for name in ('math', 'svamp', 'asdiv')},
    'jsonl': ({'path'}, {'data_dir'}),
}


def _check_options(source: str, given: set[str]) -> None:
    _check_member('source', source, SOURCES)
    needed, optional = _OPTIONS[source]
    if needed - given:
        raise ValueError(f'source={source!r} needs {", ".join(sorted(needed - given))}')
    if given - needed - optional:
        raise ValueError(
            f'source={source!r} does not read {", ".join(sorted(given - needed - optional))}'
        )


def _check_member(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        near = json_files.nearest(value, valid)
        raise ValueError(f'{name}={value!r} is none of {", ".join(valid)}{near}')


def _lab_config(split: str, seed: int, num_problems: Mapping[str, int]) -> LabConfig:
    for name, count in num_problems.items():
        _check_member('num_problems', name, LAB_SPLITS)
        if count < 1:
            raise ValueError(f'num_problems[{name!r}]={count}, expected at least 1')
    _check_member('split', split, tuple(num_problems))
    sizes = {name: int(num_problems[name]) for name in LAB_SPLITS if name in num_problems}
    from elenchus.data.lab import task

    # The generator's own text is part of the name: problems of an older one are not reused.
    digest = hashlib.sha256(inspect.getsource(task).encode()).hexdigest()[:8]
    name = '-'.join([f'seed{seed}', *(f'{name}{count}' for name, count in sizes.items()), digest])
    return LabConfig(name=name, seed=seed, num_problems=sizes)


def _lines_config(
    source: str, split: str, path: str | os.PathLike | None, annotations: bool
) -> published.LinesConfig:
    """The config; its name tells apart variants, and files a user gives by their content."""
    ending = '_socratic' if source == 'gsm8k_socratic' else ''
    name = ('socratic' if ending else 'main') + ('_annotated' if annotations else '')
    if path is None:
        public = published.SETS[source].PUBLIC
        if split in LINES_SPLITS and split not in public:
            raise ValueError(
                f'split={split!r} of {source} is not published: give as path a folder with '
                f'{split}.jsonl; {", ".join(public)} can be downloaded'
            )
        _check_member('split', split, public)
        files = {name: f'{name}{ending}' for name in public}
        return published.LinesConfig(name=name, files=files, annotations=annotations)
    _check_member('split', split, LINES_SPLITS)
    file = f'{split}{ending}'
    wanted = pathlib.Path(path, f'{file}.jsonl')
    if not wanted.is_file():
        raise ValueError(
            f'path={str(path)!r} has no {wanted.name}: '
            'put the file there, or leave path out to download it'
        )
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()[:16]
    return published.LinesConfig(
        name=f'{name}_{split}_{digest}',
        files={split: file},
        annotations=annotations,
        folder=os.fspath(path),
    )
