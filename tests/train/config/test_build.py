"""Strict building of settings: every mistake names its field."""

import dataclasses
from typing import Literal

import ml_collections
import pytest
from ml_collections import config_dict

from elenchus.train.config import build


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
        ({'step': 3}, r'config\.step of TrainSettings; did you mean config\.steps\?'),
        (
            {'optimizer': {'rat': 1.0}},
            r'unknown field config\.optimizer\.rat .* mean config\.optimizer\.rate\?',
        ),
        ({'optimizer': 3}, r'config\.optimizer=3 must be a section .* OptimizerSettings'),
        ({'steps': True}, r'config\.steps=True is of type bool; expected int'),
        ({'steps': 3.5}, r'config\.steps=3\.5 is of type float; expected int'),
        ({'resume': 1}, r'config\.resume=1 is of type int; expected bool'),
        ({'name': 3}, r'config\.name=3 is of type int; expected str'),
        ({'mesh': (1, 2)}, r'config\.mesh=\(1, 2\) has 2 values; expected 3'),
        ({'levels': ('a',)}, r"config\.levels\[0\]='a' is of type str; expected int"),
        ({'optimizer': {'schedule': 'cosin'}}, r"'cosin' must be one of .*mean 'cosine'\?"),
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

    with pytest.raises(ValueError, match=r'missing field config\.rate'):
        build.build(Defaulted, ml_collections.ConfigDict())


def test_an_empty_required_placeholder_names_the_flag_that_sets_it():
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


def test_of_a_new_section_only_what_turns_it_on_is_compared_with_a_config_that_lacks_it():
    def explain(*configs):
        return build.explain_diff(
            *configs, earlier={'tools.use': ()}, new_sections=('tools', 'pairs')
        )

    old, new = {'a': 1}, {'a': 1, 'tools': {'use': (), 'limit': 4}, 'pairs': {'count': 2}}
    used = {**new, 'tools': {'use': ('python',), 'limit': 4}}
    for first, second in ((old, new), (new, old)):
        assert explain(first, second) == ''
    assert explain(old, used) == "field tools.use was [], now ['python']"
    limited = {**new, 'tools': {'use': (), 'limit': 5}}
    assert explain(new, limited) == 'field tools.limit was 4, now 5'
    assert explain({'a': 1, 'tools': new['tools']}, limited) == 'field tools.limit was 4, now 5'


def test_a_value_that_json_cannot_hold_is_named():
    with pytest.raises(ValueError, match=r'config\.a='):
        build.to_json({'a': object()})


def test_a_file_of_functions_may_move_and_not_change_its_name():
    def explain(was, now):
        return build.explain_diff(
            {'rule': was, 'many': [[was, 1.0]]}, {'rule': now, 'many': [[now, 1.0]]}
        )

    assert explain('/a/mine.py:f', 'b/c/mine.py:f') == ''
    assert 'field rule was' in explain('/a/mine.py:f', '/a/other.py:f')
    assert 'field many was' in explain('/a/mine.py:f', '/a/mine.py:g')
    assert explain('a.b:f', 'b:f') and explain('/a/data', '/b/data')  # of modules and other paths
