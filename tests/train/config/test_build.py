"""Strict settings: every mistake at the border names its field, in one line."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import Literal

import ml_collections
import pytest
from ml_collections import config_dict

from elenchus.train.config import build

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    rate: float
    schedule: Literal['cosine', 'linear']


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    steps: int
    resume: bool
    name: str | None
    mesh: tuple[int, int, int]
    levels: tuple[int, ...]
    optimizer: OptimizerSettings
    stages: tuple[OptimizerSettings, ...]


def make_config(**changes):
    config = ml_collections.ConfigDict(
        {
            'steps': 3,
            'resume': True,
            'name': None,
            'mesh': (1, 2, 4),
            'levels': (1,),
            'optimizer': {'rate': 0.1, 'schedule': 'cosine'},
            'stages': (ml_collections.ConfigDict({'rate': 1.0, 'schedule': 'linear'}),),
        }
    )
    config.update(changes)
    return config.lock()


def test_a_config_becomes_nested_frozen_values():
    built = build.build(TrainSettings, make_config())
    assert built.optimizer == OptimizerSettings(0.1, 'cosine')
    assert built.stages == (OptimizerSettings(1.0, 'linear'),)
    assert hash(built)


def test_an_int_is_taken_for_a_float_and_becomes_one():
    built = build.build(OptimizerSettings, {'rate': 1, 'schedule': 'linear'})
    assert type(built.rate) is float


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'step': 3}, r'config\.step is no field of TrainSettings; nearest: config\.steps'),
        ({'optimizer': {'rat': 1.0}}, r'config\.optimizer\.rat is no .*config\.optimizer\.rate'),
        ({'optimizer': 3}, r'config\.optimizer=3 must be a section .* OptimizerSettings'),
        ({'steps': True}, r'config\.steps=True is of type bool; expected int'),
        ({'steps': 3.5}, r'config\.steps=3\.5 is of type float; expected int'),
        ({'resume': 1}, r'config\.resume=1 is of type int; expected bool'),
        ({'name': 3}, r'config\.name=3 is of type int; expected str'),
        ({'mesh': (1, 2)}, r'config\.mesh=\(1, 2\) has 2 values; expected 3'),
        ({'levels': ('a',)}, r"config\.levels\[0\]='a' is of type str; expected int"),
        ({'optimizer': {'schedule': 'cosin'}}, r"'cosin' is none of .*; nearest: cosine"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_expected(changes, message):
    config = make_config().to_dict()
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message):
        build.build(TrainSettings, config)


def test_a_missing_field_is_an_error_even_where_the_class_has_a_default():
    @dataclasses.dataclass(frozen=True)
    class Defaulted:
        rate: float = 1.0

    with pytest.raises(ValueError, match=r'config\.rate is missing'):
        build.build(Defaulted, ml_collections.ConfigDict())


def test_a_required_placeholder_left_empty_says_how_to_give_it():
    config = ml_collections.ConfigDict({'schedule': 'linear'})
    config.rate = config_dict.required_placeholder(float)
    with pytest.raises(ValueError, match=r'--config\.rate='):
        build.build(OptimizerSettings, config)


def test_a_config_survives_json():
    config = make_config()
    again = build.from_json(build.to_json(config))
    assert build.build(TrainSettings, again) == build.build(TrainSettings, config)
    assert build.config_hash(again) == build.config_hash(config)
    assert build.diff(config, again) == []


def test_a_changed_field_changes_the_hash_and_is_named():
    was, now = make_config(), make_config(steps=4)
    assert build.config_hash(was) != build.config_hash(now)
    assert build.diff(was, now) == ['steps']
    assert build.explain_diff(was, now) == 'field steps was 3, now 4'


def test_an_added_field_is_a_difference():
    assert build.diff({'a': {}}, {'a': {'b': None}}) == ['a', 'a.b']
    assert build.explain_diff({}, {'b': None}) == 'field b was absent, now None'


def test_a_value_that_json_cannot_hold_is_named():
    with pytest.raises(ValueError, match=r'config\.a='):
        build.to_json({'a': object()})


@pytest.fixture
def run_script(tmp_path):
    """Runs a small script with an absl main on a small config; returns the finished process."""
    (tmp_path / 'small.py').write_text(
        textwrap.dedent("""
        import ml_collections

        def get_config(arg='plain'):
            if arg != 'plain':
                raise ValueError(f'no variant {arg!r}')
            return ml_collections.ConfigDict(
                {'train': {'rate': 0.1, 'schedule': 'linear', 'steps': 3}, 'seed': 0})
        """)
    )
    (tmp_path / 'script.py').write_text(
        textwrap.dedent("""
        import dataclasses, pathlib
        from absl import flags
        from ml_collections import config_flags
        from train import settings

        CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
        OUTSIDE = flags.DEFINE_bool('outside', False, 'Write where nothing is.')
        FAULT = flags.DEFINE_bool('fault', False, 'Raise in a library.')

        @dataclasses.dataclass(frozen=True)
        class Train:
            rate: float
            steps: int

        def main(argv):
            if FAULT.value:
                import json
                json.loads('[')
            if OUTSIDE.value:
                open('/nowhere/at/all', 'w')
            settings.build(Train, CONFIG.value.train, 'config.train')
            pathlib.Path('written').touch()

        settings.run_main(main)
        """)
    )

    def run(*arguments):
        return subprocess.run(
            [sys.executable, 'script.py', *arguments],
            cwd=tmp_path,
            env=os.environ | {'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('--config=small.py', '--config.train.stepz=1'), ('--config.train.stepz', '.steps')),
        (('--config', 'small.py', '--config.trein.steps=1'), ('--config.trein', '--config.train')),
        (('--config=small.py', '--config.train.steps=x'), ('--config.train.steps=x', 'int')),
        (('--config=smal.py',), ('--config=smal.py', 'nearest: small.py')),
        (('--config=small.py:plian',), ('--config=small.py:plian', "no variant 'plian'")),
        (('--confg=small.py',), ('confg',)),
        (('--config=small.py',), ('config.train.schedule is no field of Train', 'nearest')),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_that_names_it(
    run_script, tmp_path, arguments, words
):
    done = run_script(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / 'written').exists()


def test_a_fault_of_a_library_keeps_its_traceback(run_script):
    done = run_script('--config=small.py', '--fault')
    assert done.returncode == 1
    assert 'Traceback' in done.stderr and 'JSONDecodeError' in done.stderr


def test_what_a_file_system_says_is_one_line_and_the_same_command_continues(run_script):
    done = run_script('--config=small.py', '--outside')
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    for words in ('error: ', "'/nowhere/at/all'", 'the same command continues'):
        assert words in done.stderr
