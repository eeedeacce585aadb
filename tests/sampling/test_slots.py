"""Slots: functions by name, from modules and files; what counts as a change of a function."""

import dataclasses
import re
import sys
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.text import tokenizer
from elenchus.sampling import slots
from elenchus.sampling.engine import token_rules
from elenchus.sampling.metrics import measures
from elenchus.sampling.writing import Notes
from elenchus.train.config import build, functions
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases
from tests.support.shipped_configs import ROOT

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


EVERY_KIND = (
    SOURCE
    + """
import functools, re
import numpy as np

TABLE = np.array([1.0])
PATTERN = re.compile('abc')
CACHE = {}

def make(k):
    def inner(x):
        return k * x
    return inner

made = make(1)

def twice(f):
    @functools.wraps(f)
    def wrapped(x):
        return 2 * f(x)
    return wrapped

@twice
def table(x=SCALE):
    return x * TABLE[0] if PATTERN else 0

def remembering(x):
    return CACHE.setdefault(x, object()) and x

class Instance:
    K = 4

    def __call__(self, x):
        return self.K * x

instance = Instance()
part = functools.partial(scaled)
scaled.update = lambda x: x + 1

def get_config(arg='default'):
    num_steps = 3
"""
)


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


def hash_of(path, name='scaled'):
    return slots.load(f'{path}:{name}').source_hash


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('0.5', '0.7'), ('SCALE = 2.0', 'SCALE = 3.0'), ('SCALE * x', 'x * SCALE'),
        ('TABLE = np.array([1.0])', 'TABLE = np.array([2.0])'), ("'abc'", "'xyz'"),
        ('x=SCALE', 'x=SCALE + 1'), ('made = make(1)', 'made = make(2)'), ('K = 4', 'K = 5'),
        ('2 * f(x)', '3 * f(x)'), ('lambda x: x + 1', 'lambda x: x + 2'), ('import math\n', ''),
    ],
)  # fmt: skip
def test_any_change_of_the_file_is_a_change_of_its_functions(write, old, new):
    assert old in EVERY_KIND
    assert hash_of(write(EVERY_KIND)) != hash_of(write(EVERY_KIND.replace(old, new)))


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('SCALE = 2.0', '# twice\nSCALE = 2.0'), ('return helper', '"""Why."""\n    return helper'),
        ('SCALE * x', '(SCALE\n            * x)'), ('num_steps = 3', 'num_steps = 4'),
    ],
)  # fmt: skip
def test_words_layout_and_the_config_are_no_change(write, old, new):
    assert old in EVERY_KIND
    assert hash_of(write(EVERY_KIND)) == hash_of(write(EVERY_KIND.replace(old, new)))


def test_what_a_function_keeps_in_memory_is_no_change(write):
    path = write(EVERY_KIND)
    before = hash_of(path)
    for name in ('remembering', 'part', 'instance', 'made', 'table'):
        assert callable(SLOT[f'{path}:{name}'])
        assert hash_of(path, name) == before
    SLOT[f'{path}:remembering'](3)
    slots.load.cache_clear()
    assert hash_of(path) == before


def test_the_example_of_the_guide_is_a_run_with_four_functions(write):
    guide = (ROOT / 'docs/extending.md').read_text()
    source, *_ = re.findall(r'```python\n(.*?)```', guide, re.DOTALL)
    config = slots.load(f'{write(source)}:get_config').function()
    named = functions.functions_of(build.build(RunSettings, config))
    names = [f.function.__name__ for f in named]
    assert names == ['characters', 'above_best', 'last_line', 'brief']
    _, outcome, follow, reward = (f.function for f in named)
    assert follow(None, Notes(critique='first\nlast', verdict=False)) == 'last'
    assert follow(None, Notes(critique='first', verdict=True)) is None
    assert follow(None, Notes(verdict=None)) == '' and follow.reads_critique
    group = method_cases.turns(
        {'correct': True}, {'correct': True}, {'correct': False}, tokens=[3, 2, 1]
    )
    assert reward(group) == [0.0, 0.0, 0.0]
    assert reward(group[:2]) == [0.0, 1.0]
    values, context = method_cases.outcome(outcome, [[0.5], [1.0]], state={'best': 0.5})
    assert values.tolist() == [[0.0], [0.5]]
    assert outcome.update(np.array([[0.5], [1.0]]), context) == {'best': 1.0}


def test_the_rules_of_the_guide_are_a_run_with_three_functions(write):
    guide = (ROOT / 'docs/extending.md').read_text()
    _, source, *_ = re.findall(r'```python\n(.*?)```', guide, re.DOTALL)
    path = write(source)
    config = slots.load(f'{path}:get_config').function()
    named = functions.functions_of(build.build(RunSettings, config))
    assert [f.field for f in named] == [
        *('sampling.logits', 'sampling.after_pause', 'improve.controller')
    ]
    lab = tokenizer.lab_tokenizer()
    rule = token_rules.logits_rule(f'{path}:wave', lab, lab.vocab_size)
    place = token_rules.Place(np.zeros(4, int), np.array([0, 15, 30, 45]), None)
    changed = rule.logits(jnp.zeros((4, lab.vocab_size)), place)
    ids = lab.encode('? wrong')[-1:]
    np.testing.assert_allclose(changed[:, ids[0]], [0, 5, 0, -5], atol=1e-6)
    assert rule.roles == ('attempt', 'refinement', 'critique')
    _, until_answer, warmer = (f.function for f in named)
    assert until_answer('ben 3', None) is True and until_answer('#### 3', None) is False
    assert warmer([{}, {}], None) == {'sampling.temperature': pytest.approx(0.9)}


@pytest.mark.parametrize(
    'reply', [None, 1.0, [1.0], {'a': None}, {'a': 'x'}, {'a': float('inf')}, {'a': 10**400}]
)
def test_a_measure_that_returns_no_numbers_by_name_is_named(write, reply):
    reference = (
        f'{write(f"def mine(groups, read):  return {reply!r}".replace("inf", "1e999"))}:mine'
    )
    with pytest.raises(ValueError, match='mine.*it must return numbers by name'):
        measures.measure([reference], [], str)


def test_figures_are_numbers_or_unknown_by_the_name_of_their_function(write):
    source = (
        'import numpy as np\ndef mine(groups, read):\n    return {"a": np.float32(1), "b": np.nan}'
    )
    figures = measures.measure([f'{write(source)}:mine'], [], str)
    assert figures == {'own_measures': {'mine': {'a': 1.0, 'b': None}}}
    with pytest.raises(ValueError, match="evaluate.measures has two functions 'mine'"):
        measures.check_names('evaluate', measures=('a:mine', 'b:mine'), conditions=())
