"""Every file of configs/methods and configs/evaluations: its form, its configs, its functions."""

import ast
import collections
import functools
import importlib
import re

import pytest

from elenchus.train.config import build, checks, functions
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.report import methods_table
from tests.support.shipped_configs import ROOT, Naming

FILES = sorted(
    path
    for folder in ('methods', 'evaluations')
    for path in (ROOT / 'configs' / folder).glob('*.py')
)
NAMES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in FILES
    if path.stem != '__init__'
]
VARIANTS = (
    'default',
    'qwen3_0p6b_gsm8k',
    pytest.param('smoke', marks=pytest.mark.slow),
    pytest.param('gsm8k:tiny', marks=pytest.mark.slow),
)


def module_of(name):
    return importlib.import_module(f'elenchus.{name}')


@functools.cache
def default_settings(name):
    return build.build(RunSettings, module_of(name).get_config('default'))


@pytest.mark.parametrize('name', NAMES)
def test_a_file_is_short_and_says_formula_source_and_differences(name):
    text = (ROOT / f'{name.replace(".", "/")}.py').read_text()
    assert len(text.splitlines()) < 60
    docstring = ast.get_docstring(ast.parse(text))
    assert re.fullmatch(r'[^\n]{3,}: [^\n]+[.?]', docstring.splitlines()[0])
    parts = re.findall(r'^(Formula|Source|Differs): \S', docstring, re.M)
    assert parts == ['Formula', 'Source', 'Differs']


@pytest.mark.parametrize('name', NAMES)
def test_a_file_has_a_case(name):
    """A worked example with the paper's numbers, and what it must and must not change."""
    assert (
        (ROOT / 'tests' / name.removeprefix('configs.').replace('.', '/test_'))
        .with_suffix('.py')
        .exists()
    )


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('name', NAMES)
def test_every_base_config_becomes_a_run(name, variant):
    with Naming(f'{name}:{variant}'):
        config = module_of(name).get_config(variant)
        is_default = variant == 'default'
        settings = default_settings(name) if is_default else build.build(RunSettings, config)
        checks.check_settings(settings)
        again = build.from_json(build.to_json(config))
        assert build.build(RunSettings, again) == settings


@pytest.mark.parametrize('name', NAMES)
def test_the_functions_that_a_file_names_are_its_own(name):
    for named in functions.functions_of(default_settings(name)):
        assert named.reference == f'elenchus.{name}:{named.function.__name__}'


@pytest.mark.parametrize('name', NAMES)
def test_scores_of_steps_are_part_of_an_actors_reward_only_where_a_file_says_so(name):
    """The default is 0.5: a file that is silent would pay the critic's scores beside its own."""
    settings = default_settings(name)
    if 'reinforce' in settings.stages and settings.reinforce.advantage.step_coef:
        assert 'reinforce.advantage.step_coef' in module_of(name).CHANGES


def test_a_name_of_no_base_config_is_an_error_of_one_line():
    for name in NAMES[:1]:
        for arg in ('', 'smok', 'gsm9k', 'a b', 'gsm8k:tinyy'):
            with pytest.raises(ValueError, match='no such variant; there are') as error:
                module_of(name).get_config(arg)
            assert '\n' not in str(error.value)


def test_the_table_is_that_of_the_files():
    rows = methods_table.systems()
    assert methods_table.INDEX.read_text() == methods_table.index(rows), (
        'run python -m scripts.methods'
    )
    files = [row.module for row in rows if row.file]
    assert sorted(files) == sorted(NAMES)
    counts = {'method': 65, 'evaluation': 17, 'critique': 7, 'neighbour': 12, 'algorithm': 1}
    assert collections.Counter(row.kind for row in rows) == counts
