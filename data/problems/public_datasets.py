"""TFDS builders of published problem sets in JSONL: GSM8K, MATH, SVAMP and ASDiv."""

import dataclasses
import fractions
import functools
import os
import pathlib
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from elenchus.data.files import jsonl, tfds_records
from elenchus.data.grading import answers
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
class LinesConfig(tfds.core.BuilderConfig):
    """Config of a builder of `Lines`: the files and their source."""

    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # split -> file stem
    annotations: bool = False  # keep GSM8K's calculator annotations such as `<<48/2=24>>`
    folder: str | None = None  # folder of `<file>.jsonl`; None = download


class Lines(tfds_records.RecordBuilder, skip_registration=True):
    """Base class of problem sets in JSONL, one file per split.

    A subclass defines `problem(record, id=, annotations=)`, which returns a Problem and raises
    ValueError that names the invalid field. The splits `PUBLIC` can be downloaded from `URL`.
    """

    RECORD = Problem
    URL: ClassVar[str]
    PUBLIC: ClassVar[tuple[str, ...]] = ('test',)
    problem: ClassVar[Callable[..., Problem]]

    def _split_generators(self, downloads) -> dict[str, Iterator]:
        config = self.builder_config
        if config.folder is None:
            paths = downloads.download(
                {split: f'{self.URL}{file}.jsonl' for split, file in config.files.items()}
            )
        else:
            paths = {
                split: pathlib.Path(config.folder, f'{file}.jsonl')
                for split, file in config.files.items()
            }
        return {split: self._generate_examples(split, path) for split, path in paths.items()}

    def _generate_examples(self, split: str, path: os.PathLike) -> Iterator[tuple[int, dict]]:
        text = pathlib.Path(path).read_text(encoding='utf-8')
        file = self.builder_config.files[split]
        for index, line in enumerate(filter(str.strip, text.split('\n'))):
            yield index, tfds_records.to_row(self.read(line, f'{file}/{index}'))

    def read(self, line: str, id: str) -> Problem:
        """Parses one line. Raises ValueError that names the record."""
        return parse_problem(type(self), line, id=id, annotations=self.builder_config.annotations)


def parse_problem(
    builder: type[Lines], line: str, *, id: str, annotations: bool = False
) -> Problem:
    """Parses a problem from one line of a set. Raises ValueError that names the record."""
    place = f'{builder.name}/{id}'
    record = jsonl.at_place(place, jsonl.parse_object, line)
    make = functools.partial(builder.problem, id=place, annotations=annotations)
    return jsonl.at_place(place, make, record)


class Gsm8k(Lines, skip_registration=True):
    """Grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)."""

    name = 'gsm8k'
    URL = GSM8K_URL
    PUBLIC = ('train', 'test')
    DESCRIPTION = 'GSM8K: grade-school mathematics word problems (openai/grade-school-math, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        """Splits `answer` into solution and `#### x`; the level is the number of steps."""
        steps, marker, answer = _text(record, 'answer').rpartition('####')
        answer = answer.strip().replace(',', '')
        if not marker or not answer:
            raise ValueError('missing answer after "####"')
        if not annotations:
            steps = _ANNOTATION.sub('', steps)
        steps = [step.strip() for step in steps.split('\n') if step.strip()]
        return Problem(
            id=id,
            question=_text(record, 'question').strip(),
            answer=answer,
            solution='\n'.join([*steps, f'#### {answer}']),
            level=_level(len(steps)),
            source=cls.name,
        )


class Math(Lines, skip_registration=True):
    """Competition mathematics in LaTeX (Hendrycks et al. 2021, arXiv 2103.03874)."""

    name = 'math'
    URL = f'{TORA_URL}math/'
    DESCRIPTION = 'MATH: competition mathematics, five levels (hendrycks/math, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        r"""Takes the answer from the solution's last \boxed; 'Level ?' becomes level 0."""
        solution, label = _text(record, 'solution').strip(), _text(record, 'level')
        answer = answers.boxed(solution) or next(iter(_BARE_BOX.findall(solution)[-1:]), None)
        if answer is None:
            raise ValueError(r'missing \boxed answer in the solution')
        level = re.fullmatch(r'Level ([1-5?])', label)
        if not level:
            raise ValueError(f"unknown level={label!r}; valid: 'Level 1' to 'Level 5'")
        return Problem(
            id=id,
            question=_text(record, 'problem').strip(),
            answer=answer,
            solution=solution,
            level=0 if level[1] == '?' else int(level[1]),
            source=cls.name,
        )


class Svamp(Lines, skip_registration=True):
    """Elementary word problems with varied structure (Patel et al. 2021, arXiv 2103.07191)."""

    name = 'svamp'
    URL = f'{TORA_URL}svamp/'
    DESCRIPTION = 'SVAMP: elementary word problems, varied (arkilpatel/SVAMP, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        """Uses the equation as the solution; the level is its number of operations."""
        body, equation = _text(record, 'Body').strip(), _text(record, 'Equation')
        answer = _number(record, 'Answer')
        equation = re.sub(r'\.0\b', '', equation).strip()
        body += '' if body.endswith(('.', '?', '!')) else '.'
        return Problem(
            id=id,
            question=f'{body} {_text(record, "Question").strip()}',
            answer=answer,
            solution=f'{equation} = {answer}\n#### {answer}',
            level=_level(len(re.findall(r' [-+*/] ', equation))),
            source=cls.name,
        )


class Asdiv(Lines, skip_registration=True):
    """Elementary word problems of many kinds (Miao et al. 2020, ACL 2020.acl-main.92)."""

    name = 'asdiv'
    URL = f'{TORA_URL}asdiv/'
    DESCRIPTION = 'ASDiv: elementary word problems of many kinds, as carried by microsoft/ToRA.'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        """Removes the unit from the answer; the level is the formula's number of operations."""
        formula = _text(record, 'formula').strip()
        answer = _UNIT.sub('', _text(record, 'answer')).strip()
        if not answer:
            raise ValueError(f'answer={record["answer"]!r} is empty without its unit')
        bare = re.sub(r'\([^()]*[a-z][^()]*\)', '', formula)  # units such as (cent/dime)
        return Problem(
            id=id,
            question=f'{_text(record, "body").strip()} {_text(record, "question").strip()}',
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


def _text(record: dict, name: str) -> str:
    value = _field(record, name)
    if not isinstance(value, str):
        raise ValueError(f'{name}={value!r} is not text')
    return value


def _number(record: dict, name: str) -> str:
    """Returns a number field as text; whole numbers without a decimal point."""
    value = _field(record, name)
    if type(value) not in (int, float):
        raise ValueError(f'{name}={value!r} is not a number')
    exact = fractions.Fraction(str(value))
    return str(exact) if exact.denominator == 1 else str(value)


def _field(record: dict, name: str) -> Any:
    if name not in record:
        raise ValueError(f'missing field {name!r}{jsonl.suggestion(name, record)}')
    return record[name]
