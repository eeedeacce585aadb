"""Credit of steps: options against numbers worked out by hand, defaults against old numbers."""

import numpy as np
import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.rl import advantages, credit, rewards, settings
from tests.support import fake_engine

SCORES = [(0.9, 0.8, 0.97), (0.95, 0.1, 0.0, 0.0), (0.6, 0.55, 0.05), (0.985, 1.0, 0.99, 0.2)]
RIGHT = (True, False, False, True)
GOLDEN = {
    'normalised': [
        ['0x1.1456b20000000p+1', '0x1.c298700000000p+0', '0x1.7c3cb60000000p+0'],
        [
            '-0x1.4849360000000p+1', '-0x1.8341fe0000000p+1', '-0x1.37678e0000000p+1',
            '-0x1.b761000000000p+0',
        ],
        ['-0x1.a98e780000000p+0', '-0x1.b077bc0000000p+0', '-0x1.a784640000000p+0'],
        [
            '0x1.08b9c00000000p+1', '0x1.90677e0000000p+0', '0x1.0a994e0000000p+0',
            '0x1.0fee7c0000000p-1',
        ],
    ],
    'difference': [
        ['0x1.3326180000000p+0', '0x1.e64c300000000p-1', '0x1.15b5740000000p+0'],
        [
            '-0x1.8cb2980000000p-1', '-0x1.6cbfb20000000p+0', '-0x1.0cbfb20000000p+0',
            '-0x1.ffe5ca0000000p-1',
        ],
        ['-0x1.e64c300000000p-1', '-0x1.06594c0000000p+0', '-0x1.3ff2e40000000p+0'],
        [
            '0x1.3e07600000000p+0', '0x1.01de6a0000000p+0', '0x1.fd566e0000000p-1',
            '0x1.35a8580000000p-1',
        ],
    ],
}  # fmt: skip
"""Advantages of the default settings, before std_floor, unreached, baseline and shuffle_scores."""


def group_of(scores, *, right, reached):
    """Attempts at one problem with these step scores, two tokens a step."""
    group = []
    for values, is_right, count in zip(scores, right, reached, strict=True):
        steps = tuple(records.Step(2 * i, value) for i, value in enumerate(values, 1))
        facts = records.TurnFacts(correct=is_right, answer='1', score=1.0, num_reached=count)
        tokens = tuple(range(2 * len(values)))
        attempt = records.Turn('attempt', (6,), tokens, steps=steps, facts=facts)
        question = records.Turn('question', (5,), (1,))
        group.append(records.Episode('p', 2, (question, attempt)))
    problem = records.Problem('p', 'question', '1', '1', 2, 'lab')
    return records.RolloutGroup(problem, tuple(group))


def advantage_settings(**changes):
    config = lab_config.get_config('default').reinforce.advantage
    config.update(changes)
    return build.build(settings.AdvantageSettings, config)


def step_advantages(group, *, seed=0, **changes):
    """The advantages of the attempts' steps."""
    config = lab_config.get_config('default').reinforce
    rules = settings.RewardRules(
        'actor',
        build.build(rewards.ActorRewards, config.rewards),
        advantage_settings(**changes),
        build.build(settings.TurnSettings, config.turns),
        config.overlong_tokens,
    )
    values = credit.assign_credit(
        group,
        rules,
        limits=fake_engine.LIMITS,
        read=str,
        first_phase=False,
        penalties=None,
        seed=seed,
    )
    return [turns[2] for turns in values.advantages]


STEPS_ONLY = {'outcome_coef': 0.0, 'step_coef': 1.0, 'epsilon': 1e-9}


@pytest.mark.parametrize('steps', GOLDEN)
@pytest.mark.parametrize('reached', [(3, 2, 3, 4), (None,) * 4])
def test_by_default_advantages_are_those_of_before(steps, reached):
    group = group_of(SCORES, right=RIGHT, reached=reached)
    actual = step_advantages(group, steps=steps)
    assert [[float(a).hex() for a in values] for values in actual] == GOLDEN[steps]
    assert all(values.dtype == np.float32 for values in actual)


def test_unknown_steps_have_no_step_advantage_and_are_in_no_mean():
    """Known: 0.8, 0 and 0.8, 0.8, with mean 0.6 and deviation 0.12 ** 0.5 = 0.3464."""
    scores = [(0.8, 0.0, None, None), (0.8, None, 0.8)]
    group = group_of(scores, right=(False, True), reached=(2, 3))
    for unreached in ('zero', 'mask'):
        wrong, right = step_advantages(group, **STEPS_ONLY, unreached=unreached)
        np.testing.assert_allclose(wrong, [-1.1547, -1.7321, 0, 0], atol=1e-4)
        np.testing.assert_allclose(right, [1.1547, 0, 0.5774], atol=1e-4)
        wrong, right = step_advantages(group, **STEPS_ONLY, unreached=unreached, steps='difference')
        np.testing.assert_allclose(wrong, [0.3, -0.8, 0, 0], atol=1e-6)
        np.testing.assert_allclose(right, [0.3, 0, 0], atol=1e-6)


@pytest.mark.parametrize('steps', ['normalised', 'difference'])
@pytest.mark.parametrize('baseline', ['group', 'position'])
def test_a_critique_that_is_cut_off_never_makes_an_attempt_worse(steps, baseline):
    """The same right attempt and the same opinion, whole and cut off after any number of lines."""
    if (steps, baseline) == ('difference', 'position'):
        pytest.skip('these settings do not go together')
    for known in range(5):
        short = (0.97,) * known + (None,) * (4 - known)
        group = group_of([(0.97,) * 4, short], right=(True, True), reached=(4, known))
        whole, cut = step_advantages(group, **STEPS_ONLY, steps=steps, baseline=baseline)
        if steps == 'normalised':
            np.testing.assert_allclose(whole, 0, atol=1e-6)
        np.testing.assert_allclose(cut[:known], whole[:known], atol=1e-6)
        assert not cut[known:].any()


def test_a_group_of_unknown_scores_has_no_step_advantages():
    group = group_of([(None,) * 3, (None,) * 2], right=(True, False), reached=(0, 0))
    for changes in (
        {},
        {'baseline': 'position'},
        {'steps': 'difference'},
        {'shuffle_scores': True},
    ):
        assert not np.concatenate(step_advantages(group, **STEPS_ONLY, **changes)).any()


def test_masked_steps_have_no_step_advantage_and_are_in_no_mean():
    """Reached: 0.8, 0 and 0.8, 0.8, with mean 0.6 and deviation 0.12 ** 0.5 = 0.3464."""
    group = group_of([(0.8, 0.0, 0.0, 0.0), (0.8, 0.8)], right=(False, True), reached=(2, 2))
    wrong, right = step_advantages(group, **STEPS_ONLY, unreached='mask')
    np.testing.assert_allclose(wrong, [-1.1547, -1.7321, 0, 0], atol=1e-4)
    np.testing.assert_allclose(right, [1.1547, 0.5774], atol=1e-4)
    # By default the six scores have mean 0.4 and deviation 0.4.
    wrong, right = step_advantages(group, **STEPS_ONLY)
    np.testing.assert_allclose(wrong, [-2, -3, -2, -1], atol=1e-4)
    np.testing.assert_allclose(right, [2, 1], atol=1e-4)


def test_masked_steps_keep_the_advantage_of_the_outcome():
    group = group_of([(0.8, 0.0, 0.0), (0.8, 0.8, 0.8)], right=(False, True), reached=(2, 3))
    wrong, _ = step_advantages(group, unreached='mask')
    assert wrong[2] == pytest.approx(-1, abs=1e-3) and wrong[1] < wrong[2]


def test_a_masked_difference_ends_with_the_last_reached_step():
    group = group_of([(0.8, 0.3, 0.0), (0.9, 0.9, 0.9)], right=(False, True), reached=(2, 3))
    wrong, _ = step_advantages(group, **STEPS_ONLY, steps='difference', unreached='mask')
    np.testing.assert_allclose(wrong, [0.3, -0.5, 0.0], atol=1e-6)
    wrong, _ = step_advantages(group, **STEPS_ONLY, steps='difference')
    np.testing.assert_allclose(wrong, [0.3, -0.5, -0.3], atol=1e-6)


def test_floor_and_baseline_of_the_settings_are_used():
    group = group_of([(0.99, 1.0), (1.0, 0.99)], right=(True, True), reached=(2, 2))
    floored = step_advantages(group, **STEPS_ONLY, std_floor=0.05)
    np.testing.assert_allclose(floored, [[0, 0.1], [0, -0.1]], atol=1e-4)
    group = group_of([(1.0, 0.2), (0.0, 0.6)], right=(True, True), reached=(2, 2))
    placed = step_advantages(group, **STEPS_ONLY, baseline='position')
    np.testing.assert_allclose(placed, [[0, -1], [0, 1]], atol=1e-4)


def test_shuffled_scores_are_the_same_for_one_seed_and_in_other_places_for_another():
    group = group_of(SCORES, right=RIGHT, reached=(3, 2, 3, 4))
    shuffled = [
        np.concatenate(step_advantages(group, **STEPS_ONLY, shuffle_scores=True, seed=seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(shuffled[0], shuffled[1])
    assert not np.array_equal(shuffled[0], shuffled[2])
    plain = np.concatenate(step_advantages(group, **STEPS_ONLY))
    assert not np.array_equal(shuffled[0], plain)


def test_only_reached_scores_are_shuffled_where_others_are_masked():
    """The scores that are left are equal: their order changes nothing."""
    group = group_of([(0.8, 0.8, 0.0), (0.8, 0.2)], right=(False, True), reached=(2, 1))
    options = {**STEPS_ONLY, 'steps': 'difference', 'unreached': 'mask', 'shuffle_scores': True}
    wrong, right = step_advantages(group, **options)
    np.testing.assert_allclose(wrong, [0.3, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(right, [0.3, 0.0], atol=1e-6)


def test_steps_that_were_not_scored_are_an_error():
    group = group_of([(None, None), (0.8, 0.2)], right=(False, True), reached=(None, 2))
    with pytest.raises(AssertionError, match='not scored'):
        step_advantages(group)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'std_floor': -0.1}, r'std_floor=-0\.1 must be at least 0'),
        ({'steps': 'difference', 'std_floor': 0.05}, r"steps='difference' reads neither std_floor"),
        ({'steps': 'difference', 'baseline': 'position'}, r"nor baseline='position'"),
        ({'unreached': 'maks'}, r"did you mean 'mask'"),
        ({'epsilon': 0.0}, r'epsilon=0\.0 must be at least 1e-12.*nearest: 1e-12'),
        ({'epsilon': -1e-4}, r'epsilon=-0\.0001 must be at least 1e-12'),
        ({'epsilon': float('nan')}, r'epsilon=nan must be a number from 1e-12'),
    ],
)
def test_settings_that_do_nothing_or_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        advantage_settings(**changes)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('reply', 'message'),
    [
        (None, 'outcome: <lambda> .*returned None'), ([1.0], 'returned'), ('abc', "returned 'abc'"),
        ([[1.0], [2.0, 3.0]], r'it must return finite numbers of shape \[4, 1\]'),
        (np.full((4, 1), np.nan), 'nan.*it must return finite numbers'),
    ],
)  # fmt: skip
def test_an_advantage_of_ones_own_that_is_no_matrix_is_named(monkeypatch, reply, message):
    functions = advantages.OUTCOMES.functions
    monkeypatch.setitem(functions, 'mine', lambda returns, context: reply)
    group = group_of(SCORES, right=RIGHT, reached=[3, 4, 3, 4])
    with pytest.raises(ValueError, match=message):
        step_advantages(group, outcome='mine')


@pytest.mark.parametrize('state', [None, 0.5, {3: 1}, {'a': float('nan')}, {'a': (1, 2)}, [1]])
def test_a_state_that_a_checkpoint_would_change_is_refused(monkeypatch, state):
    def mine(returns, context):
        return returns

    mine.update = lambda returns, context: state
    monkeypatch.setitem(advantages.OUTCOMES.functions, 'mine', mine)
    group = group_of(SCORES, right=RIGHT, reached=[3, 4, 3, 4])
    with pytest.raises(ValueError, match=r'the update of .*outcome: .*returned'):
        step_advantages(group, outcome='mine')


def test_a_function_that_changes_its_arguments_changes_nothing_else(monkeypatch):
    """Returns, and a state of the groups before, are its own copies."""
    seen = []

    def mine(returns, context):
        returns -= returns.mean()
        context.rewards[:] = 99.0
        context.state['best'] = -1.0
        return returns

    def update(returns, context):
        seen.append((returns.tolist(), context.rewards.tolist(), dict(context.state)))
        return {'best': float(returns.max())}

    mine.update = update
    monkeypatch.setitem(advantages.OUTCOMES.functions, 'mine', mine)
    group = group_of(SCORES, right=RIGHT, reached=[3, 4, 3, 4])
    step_advantages(group, outcome='mine')
    rights = [[float(right)] for right in RIGHT]
    assert seen == [(rights, rights, {})]
