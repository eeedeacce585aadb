"""TFDS builders of published problem sets: GSM8K, MATH, SVAMP and ASDiv.

Their files are JSONL, JSON or Parquet, as their authors, microsoft/ToRA or the Hub publish them.
"""

import dataclasses
import functools
import itertools
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from elenchus.data.files import jsonl, row_files, tfds_records
from elenchus.data.grading import answers
from elenchus.data.problems import downloads, fields, references
from elenchus.data.records import Problem

MAX_LEVEL = 8  # cap of levels that count reasoning steps
GSM8K_URL = (
    'https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/'
)
TORA_URL = 'https://raw.githubusercontent.com/microsoft/ToRA/main/src/data/'

_ANNOTATION = re.compile(r'<<[^<>]*>>')
_OPERATOR = re.compile(r'[-+*/]')
_UNIT = re.compile(r'\s+\([^()]*\)')
_BARE_BOX = re.compile(r'\\(?:boxed|fbox)\s+([^\s$]+)')


@dataclasses.dataclass(eq=False)
class RowsConfig(tfds.core.BuilderConfig):
    """Config of a builder of `Rows`: the files and their source."""

    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # split -> file stem
    folder: str | None = None  # folder of the files (row_files.find_split); None = download


class Rows(tfds_records.RecordBuilder, skip_registration=True):
    """Base class of problem sets whose splits are files of rows.

    A subclass defines `problem(record, id=)`, which returns a Problem and raises ValueError that
    names the invalid field. The splits `PUBLIC` can be downloaded from `URL`.
    """

    VERSION = tfds.core.Version('1.1.0')
    RECORD = Problem
    URL: ClassVar[str]
    PUBLIC: ClassVar[tuple[str, ...]] = ('test',)
    problem: ClassVar[Callable[..., Problem]]

    def _split_generators(self, manager) -> dict[str, Iterator]:
        config = self.builder_config
        if config.folder is None:
            urls = {split: f'{self.URL}{file}.jsonl' for split, file in config.files.items()}
            with downloads.downloading(self.name, urls.values()):
                paths = {split: [path] for split, path in manager.download(urls).items()}
        else:
            paths = {
                split: row_files.find_split(config.folder, file)
                for split, file in config.files.items()
            }
        return {split: self._generate_examples(split, files) for split, files in paths.items()}

    def _generate_examples(
        self, split: str, paths: list[os.PathLike]
    ) -> Iterator[tuple[int, dict]]:
        file = self.builder_config.files[split]
        rows = itertools.chain.from_iterable(map(row_files.read_rows, paths))
        for index, row in enumerate(rows):
            yield index, tfds_records.to_row(self.read(row, f'{file}/{index}'))

    def read(self, row: jsonl.PlacedObject, id: str) -> Problem:
        """Parses one row. Raises ValueError that names its file and line."""
        return parse_row(type(self), row.value, place=row.place, id=id)


def parse_row(builder: type[Rows], record: dict, *, place: str, id: str) -> Problem:
    """Builds a problem from a row of a set. Raises ValueError that begins with the place."""
    make = functools.partial(builder.problem, id=f'{builder.name}/{id}')
    problem = jsonl.at_place(place, make, record)
    jsonl.at_place(place, references.check_reference, problem.answer)
    return problem


class Gsm8k(Rows, skip_registration=True):
    """Grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)."""

    name = 'gsm8k'
    URL = GSM8K_URL
    PUBLIC = ('train', 'test')
    DESCRIPTION = 'GSM8K: grade-school mathematics word problems (openai/grade-school-math, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str) -> Problem:
        """Splits `answer` into solution and `#### x`; the level is the number of steps.

        Calculator annotations such as `<<48/2=24>>` are removed.
        """
        steps, marker, answer = fields.text(record, 'answer').rpartition('####')
        answer = answer.strip().replace(',', '')
        if not marker or not answer:
            raise ValueError('missing answer after "####"')
        lines = _ANNOTATION.sub('', steps).split('\n')
        steps = [line.strip() for line in lines if line.strip()]
        return Problem(
            id=id,
            question=fields.text(record, 'question').strip(),
            answer=answer,
            solution='\n'.join([*steps, f'#### {answer}']),
            level=_level(len(steps)),
            source=cls.name,
        )


class Math(Rows, skip_registration=True):
    """Competition mathematics in LaTeX (Hendrycks et al. 2021, arXiv 2103.03874)."""

    name = 'math'
    URL = f'{TORA_URL}math/'
    DESCRIPTION = 'MATH: competition mathematics, five levels (hendrycks/math, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str) -> Problem:
        r"""Takes the field `answer` of MATH-500, or else the solution's last \boxed.

        The level is 1 to 5, or 'Level 1' to 'Level 5'; 'Level ?' becomes 0.
        """
        solution = fields.text(record, 'solution').strip()
        answer = fields.optional_text(record, 'answer').strip() or answers.boxed(solution)
        answer = answer or next(iter(_BARE_BOX.findall(solution)[-1:]), None)
        if answer is None:
            raise ValueError(r'missing \boxed answer in the solution')
        fields.required(record, 'level')
        level = fields.level(record)
        if level > 5:
            raise ValueError(f"unknown level={level}; valid: 1 to 5, or 'Level 1' to 'Level 5'")
        return Problem(
            id=id,
            question=fields.text(record, 'problem').strip(),
            answer=answer,
            solution=solution,
            level=level,
            source=cls.name,
        )


class Svamp(Rows, skip_registration=True):
    """Elementary word problems with varied structure (Patel et al. 2021, arXiv 2103.07191)."""

    name = 'svamp'
    URL = f'{TORA_URL}svamp/'
    DESCRIPTION = 'SVAMP: elementary word problems, varied (arkilpatel/SVAMP, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str) -> Problem:
        """Uses the equation as the solution; the level is its number of operations."""
        body, equation = fields.text(record, 'Body').strip(), fields.text(record, 'Equation')
        answer = fields.number(record, 'Answer')
        equation = re.sub(r'\.0\b', '', equation).strip()
        body += '' if body.endswith(('.', '?', '!')) else '.'
        return Problem(
            id=id,
            question=f'{body} {fields.text(record, "Question").strip()}',
            answer=answer,
            solution=f'{equation} = {answer}\n#### {answer}',
            level=_level(len(re.findall(r' [-+*/] ', equation))),
            source=cls.name,
        )


class Asdiv(Rows, skip_registration=True):
    """Elementary word problems of many kinds (Miao et al. 2020, ACL 2020.acl-main.92)."""

    name = 'asdiv'
    URL = f'{TORA_URL}asdiv/'
    DESCRIPTION = 'ASDiv: elementary word problems of many kinds, as carried by microsoft/ToRA.'

    @classmethod
    def problem(cls, record: dict, *, id: str) -> Problem:
        """Removes the unit from the answer; the level is the formula's number of operations."""
        formula = fields.text(record, 'formula').strip()
        answer = _UNIT.sub('', fields.text_or_number(record, 'answer')).strip()
        if not answer:
            raise ValueError(f'answer={record["answer"]!r} is empty without its unit')
        bare = re.sub(r'\([^()]*[a-z][^()]*\)', '', formula)  # units such as (cent/dime)
        return Problem(
            id=id,
            question=' '.join(fields.text(record, name).strip() for name in ('body', 'question')),
            answer=answer,
            solution=f'{formula}\n#### {answer}',
            level=_level(len(_OPERATOR.findall(bare))),
            source=cls.name,
        )


SETS = types.MappingProxyType(
    {'gsm8k': Gsm8k, 'gsm8k_socratic': Gsm8k, 'math': Math, 'svamp': Svamp, 'asdiv': Asdiv}
)
"""Source name -> builder."""


def _level(steps: int) -> int:
    return min(max(steps, 1), MAX_LEVEL)
