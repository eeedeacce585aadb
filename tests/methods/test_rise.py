"""RISE: rewards of answers and verdicts, and one model that both kinds of samples train."""

import types

import jax
import numpy as np
import pytest

from elenchus.configs import method
from elenchus.configs.methods import rise
from elenchus.data import records
from elenchus.train import stages
from elenchus.train.config import build, checks, players
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import dry_run
from elenchus.train.rl import rewards
from tests.support import method_cases
from tests.train.rl.test_trainer import run, tiny_models

ONE = {
    'advantage__step_coef': 0.0,
    'one_model': True,
    'num_steps': 2,
    'objective__kl': 'k1',
    'objective__kl_coef': 0.01,
    'critic_rewards__helpful': 0.0,
}


def settings(**changes):
    config = rise.get_config('default')
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return build.build(RunSettings, config)


@pytest.mark.parametrize(
    ('answer', 'correct', 'reward'), [('1', True, 1.0), ('2', False, -0.5), (None, False, -1.0)]
)
def test_an_answer_earns_what_the_authors_give_but_for_a_constant(answer, correct, reward):
    s = settings().reinforce.rewards
    (values,) = rewards.terms(s, method_cases.turns({'answer': answer, 'correct': correct}))
    assert rewards.total(s, values) - 1 == reward


@pytest.mark.parametrize('correct', [True, False])
@pytest.mark.parametrize(('says', 'reward'), [('truth', 1.0), ('lie', -0.5), ('neither', -1.0)])
def test_a_verdict_earns_the_same_against_the_truth_of_the_answer(correct, says, reward):
    s = settings().reinforce.critic_rewards
    verdict = {'truth': correct, 'lie': not correct, 'neither': None}[says]
    attempt = records.Turn('attempt', (6,), (5,), facts=records.TurnFacts(correct=correct))
    critique = records.Turn('critique', (7,), (5,), facts=records.TurnFacts(verdict=verdict))
    turn = rewards.JudgedTurn(critique, attempt, method_cases.PROBLEM, 9, 4, str)
    (values,) = rewards.terms(s, [turn])
    assert rewards.total(s, values) - 1 == reward


def test_both_players_start_from_the_model_that_learnt_both_tasks():
    s = settings(reinforce__critic_start='')
    players.check_stages(s)
    checks.check_lora(s)
    for player in ('actor', 'critic'):
        assert players.start_of(s, 'reinforce_both', player) == 'critic'
    assert players.start_of(s, 'critic', 'critic') == 'actor'
    assert 'actor' not in players.stages_read(s, 'reinforce_both')
    assert not players.is_one_model(s, 'reinforce') and players.is_one_model(s, 'reinforce_both')
    with pytest.raises(ValueError, match="reinforce.start='actor' is not read") as error:
        players.check_stages(settings(reinforce__start='actor'))
    assert '\n' not in str(error.value)
    two = settings(reinforce__one_model=False)
    assert players.start_of(two, 'reinforce_both', 'actor') == 'actor'
    for player in ('actor', 'critic'):  # on the lab, where the base does both
        assert players.start_of(settings(), 'reinforce_both', player) == 'base'


@pytest.mark.parametrize('is_one', [True, False])
def test_the_stage_loads_one_model_once(is_one):
    loads = []

    def load_to_train(folder, lora, *, seed):
        loads.append(folder)
        return object()

    s = settings(reinforce__one_model=is_one, reinforce__critic_start='')
    run_ = types.SimpleNamespace(
        settings=s,
        inputs=types.SimpleNamespace(train_problems=[], test_problems=[]),
        store=types.SimpleNamespace(load_to_train=load_to_train),
        start_folder=lambda stage, player: players.start_of(s, stage, player),
        samplers=types.SimpleNamespace(pair=lambda actor, critic: (actor, critic)),
    )
    actor, critic = stages.reinforce_arguments(run_, stage='reinforce_both')['pair']
    assert loads == (['critic'] if is_one else ['actor', 'critic'])
    assert (actor is critic) == is_one


def test_a_plan_has_one_state_and_its_reference():
    one, two = (
        dry_run.plan_of(settings(reinforce__one_model=is_one)).trainings[-1]
        for is_one in (True, False)
    )
    assert (one.others, two.others) == (1, 4) and one.name == 'reinforce_both'


def test_off_it_is_the_alternation_of_two_models():
    base, config = method.lab.get_config('default'), rise.get_config('default')
    for field in rise.CHANGES | rise.LAB:
        node, original = config, base
        *sections, name = field.split('.')
        for section in sections:
            node, original = node[section], original[section]
        node[name] = original[name]
    base.stages = config.stages
    assert build.build(RunSettings, config) == build.build(RunSettings, base)


@pytest.mark.slow
def test_one_model_takes_the_updates_of_both(tmp_path):
    models, totals, rows = run(tmp_path / 'one', ('actor', 'critic'), **ONE)
    assert totals['updates'] == {'actor': 4}  # two iterations of two players
    jax.tree.map(np.testing.assert_array_equal, models['actor'], models['critic'])
    before = jax.tree.leaves(tiny_models().critic)  # with which it began
    after = jax.tree.leaves(models['actor'])
    assert all(np.any(x != y) for x, y in zip(before, after, strict=True))
    # The first attempts are alike and teach nothing: what has moved the actor before its second
    # iteration is the update of the critic.
    assert rows[0]['grads/actor/norm'] == 0 < rows[0]['grads/critic/norm']
    assert abs(rows[0]['loss/actor/kl']) < 1e-6 and rows[1]['loss/actor/kl'] > 1e-3


@pytest.mark.slow
def test_a_stopped_run_of_one_model_continues_bit_for_bit(tmp_path):
    whole = run(tmp_path / 'whole', ('actor', 'critic'), **ONE)
    run(tmp_path / 'parted', ('actor', 'critic'), **ONE, token_budget=1)
    parted = run(tmp_path / 'parted', ('actor', 'critic'), **ONE)
    assert whole[1:] == parted[1:]
    jax.tree.map(np.testing.assert_array_equal, whole[0], parted[0])
