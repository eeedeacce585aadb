"""Every field of a config with 0, -1, NaN, huge values and wrong types: one line, or it works.

A value is refused when the settings are built or checked, with the full name of its field. What is
accepted must be real: everything that the settings feed is built and used on a small input.
"""

import collections
import dataclasses
import functools
import math
import re

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.configs import defaults, lab
from elenchus.model import lora, ranges, transformer
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.engine.engine import Engine
from elenchus.train import optimizer
from elenchus.train.config import build, checks, describe
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import advantages, rewards
from elenchus.train.rl.settings import ReinforceSettings
from elenchus.train.run import directory
from tests.train.config.test_defaults import hints_of, leaves_of

NUMBERS = (0, -1, 1, 0.0, -1.0, 0.5, 1e-30, 1e300, 2**31, 10**400, 10**5000)
NOT_FINITE = (math.nan, math.inf, -math.inf)
WRONG = (True, None, '', 'many', 'a\0b', 'x' * 10_000, (), (0,), (math.nan,), {}, {'a': 1}, 1j, b'')
VALUES = NUMBERS + NOT_FINITE + WRONG
FEW = {0} | {
    i for i, x in enumerate(VALUES) if x is True or (type(x) in (int, float) and not 0 <= x < 1e300)
}
"""Places of the values that no number may be, and of zero: for each leaf of each config."""
SMOKE = lab.get_config('smoke').to_dict()
LEAVES = tuple(leaves_of(defaults.get_config()))


def config_with(config, changes):
    """A copy of a config of nested dicts, with other values at dotted paths."""
    tree = dict(config)
    for path, value in changes.items():
        *sections, name = path.split('.')
        node = tree
        for section in sections:
            node[section] = dict(node[section])
            node = node[section]
        node[name] = value
    return tree


def settings_of(config, changes):
    settings = build.build(RunSettings, config_with(config, changes))
    checks.check_settings(settings)
    return settings


def refusal_of(config, changes):
    """The error of a config with other values at dotted paths; None if they are accepted.

    Only building and checking may refuse: an error of `use` is one that a run would meet later.
    """
    try:
        settings = settings_of(config, changes)
    except ValueError as error:
        return str(error)
    use(settings)
    return None


# Using settings


def use(s: RunSettings) -> None:
    """Builds what settings feed, and uses it on a small input; raises if something cannot work."""
    build.to_json(dataclasses.asdict(s))
    for fit in (s.base.fit, s.actor.fit, s.critic.fit, s.self_talk.fit, s.improve.fit):
        use_schedule(fit.optimizer, fit.num_steps)
    use_schedule(s.reinforce.optimizer, s.reinforce.num_steps * s.reinforce.num_updates)
    c = s.sampling
    for temperature in (
        c.temperature,
        s.critique.raised_temperature,
        *s.improve.candidates.temperatures,
    ):
        use_method(sampling_methods.TemperatureSampling(temperature, c.top_k, c.top_p, c.min_p, ()))
    use_credit(s.reinforce)
    use_model(s.model)
    for stage in (s.actor, s.critic, s.self_talk, s.improve, s.reinforce):
        use_adapters(s.model, stage.lora)
    Engine(c.engine, stop_ids=(1,))
    sizes = [s.train.log_every, s.train.checkpoint_every, s.reinforce.checkpoint_every]
    assert all(10 % size >= 0 for size in [*sizes, s.train.num_microbatches, c.part_size])
    assert directory.RunDirectory(None, '{}', s.stages, c.part_size).part_size > 0


@functools.cache
def use_schedule(settings: optimizer.OptimizerSettings, num_steps: int) -> None:
    for peak in (settings.learning_rate, settings.adam_learning_rate):
        rate = optimizer.make_schedule(settings, peak, num_steps=num_steps)
        for step in (0, num_steps // 2, num_steps):
            assert 0 <= float(rate(np.int32(step))) <= 1.001 * peak


@functools.cache
def use_method(method: sampling_methods.TemperatureSampling) -> None:
    logits = np.array([1.0, 3.0, 2.0, -100.0], np.float32)
    shares = np.asarray(jax.nn.softmax(method.transform(logits)))
    assert np.isfinite(shares).all() and shares.argmax() == 1


@functools.cache
def use_model(config: ModelConfig) -> None:
    """Builds the model's shapes, and those of a step of it, without arrays."""
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((1, 4), np.int32)
    logits = jax.eval_shape(lambda m, t: m.logits(m(t, t)[0]), model, tokens)
    assert logits.shape == (1, 4, config.vocab_size)


@functools.cache
def use_adapters(config: ModelConfig, settings: lora.LoraSettings) -> None:
    if settings.rank:
        adaptation = lora.Adaptation(settings, '', 0, 'none')
        jax.eval_shape(lambda: lora.init_adapters(config, adaptation, jax.random.key(0)))


@functools.cache
def use_credit(s: ReinforceSettings) -> None:
    a = s.advantage
    for values in ([1.0] * s.num_samples, [0.0, 1.0] * s.num_samples)[: 1 + (s.num_samples < 100)]:
        values = values[: s.num_samples]
        estimates = [advantages.group_normalised(values, epsilon=a.epsilon)]
        estimates.append(advantages.leave_one_out(values))
        steps = [[value, value] for value in values]
        options = {'std_floor': a.std_floor, 'baseline': a.baseline}
        estimates += advantages.process_normalised(steps, epsilon=a.epsilon, **options)
        assert all(np.isfinite(estimate).all() for estimate in estimates)
    assert -1 <= rewards.overlong(30, limit=40, overlong_tokens=s.overlong_tokens) <= 0
    if s.importance_cap:
        gap = np.array([-1000.0, 0.0, 1000.0])
        weights = advantages.truncated_importance(gap, 0 * gap, cap=s.importance_cap)
        assert np.isfinite(weights).all()


# One field at a time


@pytest.fixture(scope='module', params=['few', pytest.param('all', marks=pytest.mark.slow)])
def walk(request):
    """(config, path, value) -> error or None, of every leaf of two configs.

    In `all`, each leaf of the first has every value; in `few`, zero and a sixth of the
    others, not the sixth of the leaf before. The second has FEW, or in `few` zeros.
    """
    configs = {'defaults': defaults.get_config().to_dict(), 'smoke': SMOKE}
    return {
        (name, path, i): refusal_of(config, {path: value})
        for name, config in configs.items()
        for place, path in enumerate(LEAVES)
        for i, value in enumerate(VALUES)
        if is_walked(name, place, i, every=request.param == 'all')
    }


def is_walked(config, leaf, value, *, every):
    if config == 'smoke':
        return value in FEW if every else value == 0
    return every or value == 0 or (leaf + value) % 6 == 0


def test_every_value_of_every_leaf_is_accepted_or_one_line(walk):
    counts = collections.Counter('accepted' if e is None else 'refused' for e in walk.values())
    print(f'{len(LEAVES)} leaves, {len(walk)} inputs, {dict(counts)}, tracebacks 0')
    assert len(LEAVES) > 280 and counts['refused'] > 4 * counts['accepted'] > 0
    for (_, path, i), error in walk.items():
        if error is not None:
            assert '\n' not in error and len(error) < 700, (path, i, error)


def test_a_refusal_names_the_field_by_its_full_name(walk):
    """Or the field of another section that it contradicts."""
    named = [path in error for (_, path, _), error in walk.items() if error]
    assert sum(named) > 0.97 * len(named)


def test_no_number_is_nan_infinite_boolean_or_beyond_any_computation(walk):
    kinds = {path: hint for path, hint in hints_of(RunSettings).items() if hint in (int, float)}
    assert len(kinds) > 180
    values = enumerate(VALUES)
    places = [i for i, x in values if x is True or (type(x) in (int, float) and not abs(x) < 1e300)]
    assert len(places) == 7
    for (_, path, i), error in walk.items():
        if path in kinds and i in places:
            assert error and path in error, (path, i, error)


def test_every_number_has_a_range():
    """A new field of a number without a range fails here: declare it in its dataclass."""
    for path, hint in annotated_hints(RunSettings).items():
        if re.search(r'\b(int|float)\b', str(hints_of(RunSettings)[path])):
            assert list(ranges.ranges_of(hint)), path


@functools.cache
def annotated_hints(cls, prefix=''):
    """Dotted path -> type with its range of every leaf of nested settings."""
    leaves = {}
    for name, hint in build.hints_of(cls).items():
        section = build.SETTINGS_OF.get(hint, hint)
        if dataclasses.is_dataclass(section):
            leaves |= annotated_hints(section, f'{prefix}{name}.')
        else:
            leaves[prefix + name] = hint
    return leaves


def test_what_zero_means_is_documented_wherever_it_is_accepted(walk):
    """Of 'off', a comment says so; elsewhere 0 is an ordinary count or share."""
    zero = VALUES.index(0)
    for path, hint in annotated_hints(RunSettings).items():
        limits = next(ranges.ranges_of(hint), None)
        if limits is None or limits.off != 0 or hints_of(RunSettings)[path] not in (int, float):
            continue
        error, comment = walk['smoke', path, zero], comment_of(path)
        assert error is not None or re_zero(comment), f'{path}: {comment!r} does not say what 0 is'


def comment_of(path):
    *sections, name = path.split('.')
    return describe.comments().get((sections[-1] if sections else 'get_config', name), '')


def re_zero(comment):
    return '0:' in comment or 'at 0' in comment or '0 ' in comment


@pytest.mark.parametrize(
    ('path', 'value', 'words'),
    [
        ('sampling.temperature', 0.0, 'sampling.temperature=0.0 must be at least 0.01'),
        ('sampling.temperature', -1, 'sampling.temperature=-1 must be at least 0.01'),
        ('sampling.top_k', -1, 'sampling.top_k=-1 must be at least 1, or 0 for off; nearest: 0'),
        ('sampling.top_p', 0.0, 'sampling.top_p=0.0 must be at least 1e-06 (1.0 is off)'),
        ('sampling.top_p', 2, 'sampling.top_p=2 must be at most 1.0 (1.0 is off); nearest: 1.0'),
        ('sampling.min_p', 1.0, 'sampling.min_p=1.0 must be at most 0.999'),
        ('sampling.part_size', 0, 'sampling.part_size=0 must be at least 1; nearest: 1'),
        ('train.log_every', 0, 'train.log_every=0 must be at least 1; nearest: 1'),
        ('train.checkpoint_every', 0, 'train.checkpoint_every=0 must be at least 1'),
        ('train.num_microbatches', 0, 'train.num_microbatches=0 must be at least 1'),
        ('reinforce.checkpoint_every', 0, 'reinforce.checkpoint_every=0 must be at least 1'),
        ('reinforce.num_samples', 0, 'reinforce.num_samples=0 must be at least 1'),
        ('reinforce.refill_rounds', -1, 'reinforce.refill_rounds=-1 must be at least 0'),
        ('reinforce.advantage.epsilon', 0.0, 'reinforce.advantage.epsilon=0.0 must be at least'),
        ('actor.fit.num_steps', -1, 'actor.fit.num_steps=-1 must be at least 0; nearest: 0'),
        ('actor.lora.rank', -1, 'actor.lora.rank=-1 must be at least 1, or 0 for off; nearest: 0'),
        ('reinforce.objective.clip_low', -0.2, 'reinforce.objective.clip_low=-0.2 must be at'),
        (
            'actor.fit.optimizer.learning_rate',
            math.nan,
            'actor.fit.optimizer.learning_rate=nan must be a number from 1e-12 to 1000.0',
        ),
        ('critic.fit.optimizer.beta1', 1.0, 'critic.fit.optimizer.beta1=1.0 must be at most'),
        (
            'improve.candidates.temperatures',
            (0.5, math.nan),
            'improve.candidates.temperatures[1]=nan must be a number from 0.01',
        ),
        ('model.windows', (0, -5), 'model.windows[1]=-5 must be at least 0; nearest: 0'),
        ('mesh', (0, 1, 1), 'mesh[0]=0 must be at least 1, or -1 for off'),
        ('seed', -1, 'seed=-1 must be at least 0; nearest: 0'),
        ('reinforce.num_samples', 1, 'reinforce.num_samples=1 leaves'),
    ],
)
def test_the_reported_values_are_refused_by_their_full_names(path, value, words):
    error = refusal_of(SMOKE, {path: value, **SAMPLES.get((path, value), {})})
    assert error is not None and words in error


SAMPLES = {('reinforce.num_samples', 1): {'reinforce.samples_per_row': 1}}


# Combinations


sensible = st.one_of(
    st.sampled_from(VALUES),
    st.integers(-3, 4000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 1),
    st.lists(st.integers(-1, 600), max_size=3).map(tuple),
    st.lists(st.floats(0, 2), max_size=3).map(tuple),
    st.text(max_size=5),
)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(st.dictionaries(st.sampled_from(LEAVES), sensible, min_size=1, max_size=6))
def test_every_combination_is_accepted_or_one_line(changes):
    error = refusal_of(SMOKE, changes)
    if error is not None:
        assert '\n' not in error


@st.composite
def within_ranges(draw):
    """Changes of several leaves, each to an end of its range, or what turns it off."""
    hints = annotated_hints(RunSettings)
    chosen = draw(st.lists(st.sampled_from(RANGED), min_size=1, max_size=8, unique=True))
    changes = {}
    for path in chosen:
        limits = next(ranges.ranges_of(hints[path]))
        kind = hints_of(RunSettings)[path]
        ends = [limits.least, limits.most] + [limits.off] * (limits.off is not None)
        value = draw(st.sampled_from(ends))
        changes[path] = float(value) if kind is float else int(value)
    return changes


# Refused by another field in the words of a range.
CONTRADICTED = ('critique.filter_successes',)
RANGED = tuple(path for path, hint in hints_of(RunSettings).items() if hint in (int, float))


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(within_ranges())
def test_ends_of_ranges_work_or_contradict_another_field(changes):
    error = refusal_of(SMOKE, changes)
    if error is not None:
        assert '\n' not in error


@pytest.mark.slow
def test_each_end_of_each_range_is_accepted_by_the_field_itself():
    hints = annotated_hints(RunSettings)
    for path in RANGED:
        limits = next(ranges.ranges_of(hints[path]))
        for value in (limits.least, limits.most, limits.off):
            if value is None:
                continue
            value = float(value) if hints_of(RunSettings)[path] is float else int(value)
            try:
                build.build(RunSettings, config_with(SMOKE, {path: value}))
            except ValueError as error:
                assert f'{path}={value} must be at' not in str(error) or path in CONTRADICTED
