"""Slots: functions by name, from modules and files; what counts as a change of a function."""

import dataclasses
import sys
from typing import Annotated

import pytest

from elenchus.sampling import slots
from elenchus.train.config import build, functions

SLOT = slots.Slot('(x) -> number', {'double': lambda x: 2 * x, 'triple': lambda x: 3 * x})
SOURCE = """
import math

SCALE = 2.0

def helper(x):
    return SCALE * x

def unused(x):
    return x

def scaled(x):
    return helper(x) + math.floor(0.5)

def nested(x):
    return [helper(y) for y in (x,)][0]
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    rule: Annotated[str, SLOT]
    weighted: tuple[tuple[Annotated[str, SLOT], float], ...]


@pytest.fixture
def write(tmp_path):
    """write(source) -> path of a module of its own, so that each is imported anew."""
    count = iter(range(100))

    def write(source):
        path = tmp_path / f'mine{next(count)}' / 'mine.py'
        path.parent.mkdir()
        path.write_text(source)
        return path

    yield write
    slots.load.cache_clear()
    for name in [name for name in sys.modules if name.startswith('mine_')]:
        del sys.modules[name]


def test_a_built_in_name_a_module_and_a_file_name_functions(write):
    assert SLOT['double'](3) == 6
    assert SLOT['math:floor'](3.5) == 3
    path = write(SOURCE)
    assert SLOT[f'{path}:scaled'](3) == 6
    assert SLOT[f'{path}:scaled'] is SLOT[f'{path}:scaled']


@pytest.mark.parametrize(
    ('reference', 'message'),
    [
        ('doubel', "nearest: 'double'"),
        ('', "must be one of 'double', 'triple', or a function of yours"),
        ('no_such_module:f', 'no_such_module cannot be imported'),
        ('math:flor', "math has no function 'flor'; nearest: 'floor'"),
        ('math:pi', "has no function 'pi'"),
        ('nowhere.py:f', 'file not found'),
        (':f', 'cannot be imported'),
        ('math:', "has no function ''"),
        ('a:b:c', 'cannot be imported'),
        ('.relative:f', 'cannot be imported'),
    ],
)
def test_what_names_no_function_is_an_error_of_one_line(reference, message):
    with pytest.raises(ValueError) as error:
        build.build(Settings, {'rule': reference, 'weighted': ()})
    assert message in str(error.value) and '\n' not in str(error.value)
    assert str(error.value).startswith(f'rule={reference!r}')


@pytest.mark.parametrize(
    'source',
    ['def f(:', 'raise ImportError("a\\nb")', 'import nothing_of_this_name', 'f = g', 'f.x'],
)
def test_a_file_that_cannot_be_imported_says_why_in_one_line(write, source):
    path = write(source)
    for _ in range(2):  # not even half of it stays imported
        with pytest.raises(ValueError, match='cannot be imported') as error:
            SLOT[f'{path}:f']
        assert '\n' not in str(error.value)


def test_the_functions_of_settings_are_those_that_are_not_built_in(write):
    mine = f'{write(SOURCE)}:scaled'
    settings = build.build(Settings, {'rule': 'double', 'weighted': ((mine, 1.0), ('triple', 2.0))})
    (named,) = functions.functions_of(settings)
    assert (named.field, named.reference, named.function(1)) == ('weighted', mine, 2)


@pytest.mark.parametrize(
    ('old', 'new', 'changes'),
    [
        ('0.5', '0.7', {'scaled'}),
        ('SCALE = 2.0', 'SCALE = 3.0', {'scaled', 'nested'}),
        ('SCALE * x', 'x * SCALE', {'scaled', 'nested'}),
        ('helper(y)', 'helper(2 * y)', {'nested'}),
        ('return x', 'return 5', set()),
    ],
)
def test_a_function_changes_with_what_it_reads_of_its_module(write, old, new, changes):
    before, after = write(SOURCE), write(SOURCE.replace(old, new))
    changed = {
        name
        for name in ('scaled', 'nested')
        if len({slots.source_hash(SLOT[f'{path}:{name}']) for path in (before, after)}) == 2
    }
    assert changed == changes


def test_an_attribute_of_a_function_is_part_of_it(write):
    source = 'def f(x):\n    return x\n\ndef update(x):\n    return {}\n\nf.update = update\n'
    paths = [write(source), write(source.replace('{}', '{1: 2}')), write(source + 'f.on = True\n')]
    assert len({slots.source_hash(SLOT[f'{path}:f']) for path in paths}) == 3


def test_a_place_and_a_module_name_are_no_part_of_a_function(write):
    assert len({slots.source_hash(SLOT[f'{write(SOURCE)}:scaled']) for _ in range(2)}) == 1
