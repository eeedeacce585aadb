"""Published problem sets as TFDS builders: GSM8K, MATH, SVAMP and ASDiv, of JSON lines."""

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

from elenchus.data.files import json_files, tfds_records
from elenchus.data.grading import answers
from elenchus.data.records import Problem

MAX_LEVEL = 8  # of sets whose levels are numbers of reasoning steps
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
    """Which files, from where, and whether GSM8K's solutions keep `<<48/2=24>>`.

    `folder` holds `<file>.jsonl`; None downloads.
    """

    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: bool = False
    folder: str | None = None


class Lines(tfds_records.RecordBuilder, skip_registration=True):
    """Problems of JSON lines, one file a split.

    `problem(record, id=, annotations=)` makes one, and raises ValueError that names the field at
    fault. The splits `PUBLIC` can be downloaded from `URL`.
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
        """The problem of a line. Raises ValueError, which names the record."""
        return problem_of(type(self), line, id=id, annotations=self.builder_config.annotations)


def problem_of(kind: type[Lines], line: str, *, id: str, annotations: bool = False) -> Problem:
    """A problem of a set from its line. Raises ValueError, which names the record."""
    place = f'{kind.name}/{id}'
    record = json_files.at(place, json_files.parse_object, line)
    make = functools.partial(kind.problem, id=place, annotations=annotations)
    return json_files.at(place, make, record)


class Gsm8k(Lines, skip_registration=True):
    """Grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)."""

    name = 'gsm8k'
    URL = GSM8K_URL
    PUBLIC = ('train', 'test')
    ABOUT = 'GSM8K: grade-school mathematics word problems (openai/grade-school-math, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        """`answer` is the solution and a `#### x` line; commas leave x, steps are the level."""
        steps, marker, answer = _text(record, 'answer').rpartition('####')
        answer = answer.strip().replace(',', '')
        if not marker or not answer:
            raise ValueError('no answer after "####"')
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
    ABOUT = 'MATH: competition mathematics, five levels (hendrycks/math, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        r"""The answer stands in the solution's last \boxed; the level is 0 at 'Level ?'."""
        solution, told = _text(record, 'solution').strip(), _text(record, 'level')
        answer = answers.boxed(solution) or next(iter(_BARE_BOX.findall(solution)[-1:]), None)
        if answer is None:
            raise ValueError(r'no \boxed answer in the solution')
        level = re.fullmatch(r'Level ([1-5?])', told)
        if not level:
            raise ValueError(f"level={told!r} is none of 'Level 1' to 'Level 5'")
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
    ABOUT = 'SVAMP: elementary word problems, varied (arkilpatel/SVAMP, MIT).'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        """The solution is the equation; the level is its number of operations."""
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
    ABOUT = 'ASDiv: elementary word problems of many kinds, as carried by microsoft/ToRA.'

    @classmethod
    def problem(cls, record: dict, *, id: str, annotations: bool) -> Problem:
        """Units in brackets leave the answer; the level is the formula's number of operations."""
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
"""Builders by source."""


def _level(steps: int) -> int:
    return min(max(steps, 1), MAX_LEVEL)


def _text(record: dict, name: str) -> str:
    value = _field(record, name)
    if not isinstance(value, str):
        raise ValueError(f'{name}={value!r} is not text')
    return value


def _number(record: dict, name: str) -> str:
    """A number as it is written: 145.0 as 145."""
    value = _field(record, name)
    if type(value) not in (int, float):
        raise ValueError(f'{name}={value!r} is not a number')
    exact = fractions.Fraction(str(value))
    return str(exact) if exact.denominator == 1 else str(value)


def _field(record: dict, name: str) -> Any:
    if name not in record:
        raise ValueError(f'no field {name!r}{json_files.nearest(name, record)}')
    return record[name]
