"""configs/defaults.py: each field once, with a comment; derived lengths; short configs; presets."""

import dataclasses
import functools
import re
import sys
import textwrap
import typing
from unittest import mock

import hypothesis
import pytest
from absl import flags
from hypothesis import strategies as st
from ml_collections import config_flags

from elenchus.configs import defaults, derive, lab
from elenchus.data.grading import verify
from elenchus.train import objective
from elenchus.train.config import build, checks, describe
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run import session
from tests.support import multi_process

# How ml_collections loads a config file.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


@functools.cache
def hints_of(cls, prefix=''):
    """Dotted path -> type of every leaf of nested settings, as a config has them."""
    leaves = {}
    for name, hint in typing.get_type_hints(cls).items():
        section = build.SETTINGS_OF.get(hint, hint)
        if dataclasses.is_dataclass(section):
            leaves |= hints_of(section, f'{prefix}{name}.')
        else:
            leaves[prefix + name] = hint
    return leaves


def leaves_of(config, prefix=''):
    """Dotted path -> value of every leaf of a config."""
    leaves = {}
    for name in config:
        if hasattr(config[name], 'items'):
            leaves |= leaves_of(config[name], f'{prefix}{name}.')
        else:
            leaves[prefix + name] = config[name]
    return leaves


def config_of_flags(*arguments):
    """The config that the command line of a script would have."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', lock_config=True, flag_values=values)
    with mock.patch.object(sys, 'argv', ['run.py', *arguments]):  # it looks for overrides there
        values(sys.argv)
    return values.config


SMOKE = f'--config={multi_process.ROOT}/configs/lab.py:smoke'


# Fields and their comments


def test_the_leaves_are_those_of_the_settings():
    assert set(leaves_of(defaults.get_config())) == set(hints_of(RunSettings))


def comment_of(path):
    *sections, name = path.split('.')
    return describe.comments().get((sections[-1] if sections else 'get_config', name), '')


def test_every_leaf_has_a_comment():
    assert not [path for path in leaves_of(defaults.get_config()) if not comment_of(path)]


def test_a_comment_quotes_only_values_that_its_field_can_have():
    choices = {
        path: set(typing.get_args(hint))
        for path, hint in hints_of(RunSettings).items()
        if typing.get_origin(hint) is typing.Literal
    }
    assert len(choices) > 15
    for path, values in choices.items():
        quoted = set(re.findall(r"'(\w*)'", comment_of(path)))
        assert quoted <= values, f'{path}: {quoted - values}'


@pytest.mark.parametrize('config', [defaults.get_config(), lab.get_config('smoke')])
def test_describe_prints_every_leaf_with_its_value_and_comment(config):
    printed, sections = {}, []
    for line in describe.describe(config).splitlines():
        text, _, comment = line.partition('  # ')
        name, equals, value = text.strip().partition(' = ')
        sections = [*sections[: (len(text) - len(text.lstrip())) // 4], name]
        if equals:
            printed['.'.join(sections)] = value, comment
    expected = {path: (repr(value), comment_of(path)) for path, value in leaves_of(config).items()}
    assert printed == expected


# Lengths


def settings_with_lengths(**lengths):
    config = defaults.get_config()
    derive.set_lengths(config, **lengths)
    return build.build(RunSettings, config)


def with_field(settings, path, value):
    """The settings with another value at a dotted path."""
    name, _, rest = path.partition('.')
    if rest:
        value = with_field(getattr(settings, name), rest, value)
    return dataclasses.replace(settings, **{name: value})


turns = st.fixed_dictionaries(
    {name: st.integers(1, 1500) for name in ('question', 'attempt', 'critique', 'refinement')}
)


@hypothesis.given(turns, st.integers(1, 9), st.sampled_from([1, 8, 32, 256]))
@hypothesis.example(dict.fromkeys(('question', 'attempt', 'critique', 'refinement'), 1), 1, 256)
def test_derived_lengths_have_room_for_the_longest_turns(lengths, overhead, multiple):
    s = settings_with_lengths(**lengths, overhead=overhead, multiple=multiple)
    checks.check_lengths(s, lengths['question'], overhead=overhead)
    engine = s.sampling.engine
    for length in (
        engine.max_length,
        s.train.length,
        s.reinforce.length,
        *s.sampling.score.lengths,
    ):
        assert length % multiple == 0


@hypothesis.given(turns, st.integers(1, 9))
def test_derived_lengths_are_no_longer_than_needed(lengths, overhead):
    s = settings_with_lengths(**lengths, overhead=overhead, multiple=1)
    for path in (
        'reinforce.length',
        'reinforce.critic_length',
        'sampling.score.lengths',
        'sampling.engine.prompt_buckets',
        'sampling.engine.max_length',
        'model.max_length',
        'self_talk.tokens',
    ):
        name, _, rest = path.rpartition('.')
        value = getattr(functools.reduce(getattr, name.split('.'), s), rest)
        if path == 'self_talk.tokens':  # the only one that is too long, not too short
            other = value + 1
        else:
            other = (value[-1] - 1,) if isinstance(value, tuple) else value - 1
        with pytest.raises(ValueError, match='must be at least'):
            tight = with_field(s, path, other)
            checks.check_lengths(tight, lengths['question'], overhead=overhead)


# Configs of one's own


@pytest.mark.slow
def test_a_config_that_changes_three_fields_is_a_run(tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text(
        textwrap.dedent("""
        from elenchus.configs import defaults


        def get_config(arg: str = 'default'):
            config = defaults.get_config()
            config.data.source = 'lab'
            config.tokenizer.kind = 'lab'
            config.model.embed_dim = 96
            return config
        """)
    )
    monkeypatch.chdir(tmp_path)  # the lab's problems are written to data.data_dir
    config = config_of_flags('--config=mine.py')
    assert len(build.diff(defaults.get_config(), config)) == 3
    with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
        run = session.open_run(config, tmp_path / 'run', verifier=verifier)
    assert run.settings.model.embed_dim == 96 and run.inputs.tokenizer.vocab_size < 8192
    assert len(run.inputs.train_problems) == run.settings.data.num_train
    assert not (tmp_path / 'run').exists()


def test_two_configs_share_no_value():
    one, other = defaults.get_config(), defaults.get_config()
    one.reinforce.objective.clip_high = 0.3
    one.reinforce.optimizer.beta1 = 0.5
    one.actor.fit.num_steps = 1
    assert not build.diff(other, defaults.get_config())
    assert other.reinforce.objective.clip_high is None
    changed = ['actor.fit.num_steps', 'reinforce.objective.clip_high', 'reinforce.optimizer.beta1']
    assert build.diff(one, other) == changed


def test_a_preset_is_overridden_from_the_command_line():
    config = config_of_flags(
        SMOKE,
        '--config.reinforce.objective.preset=dapo',
        '--config.reinforce.objective.clip_high=0.3',
    )
    expected = dataclasses.replace(objective.DAPO, clip_high=0.3)
    assert build.build(RunSettings, config).reinforce.objective == expected


def test_every_preset_resolves_to_the_objective_of_its_name():
    for preset, expected in objective.PRESETS.items():
        config = config_of_flags(SMOKE, f'--config.reinforce.objective.preset={preset}')
        settings = build.build(objective.ObjectiveSettings, config.reinforce.objective)
        assert settings.resolve() == expected, preset


def test_dr_grpo_needs_its_constant_length():
    arguments = (SMOKE, '--config.reinforce.objective.preset=dr_grpo')
    with pytest.raises(ValueError, match=r"preset='dr_grpo' needs .*constant_length") as error:
        build.build(RunSettings, config_of_flags(*arguments))
    assert '\n' not in str(error.value)
    config = config_of_flags(*arguments, '--config.reinforce.objective.constant_length=76')
    settings = build.build(RunSettings, config)
    assert settings.reinforce.objective == objective.dr_grpo(76)
