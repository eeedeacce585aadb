"""RL^V: true verdicts on sampled solutions, imitated beside the rewards of the solver."""

import dataclasses
from unittest import mock

import jax
import numpy as np
import pytest

from elenchus.configs import method
from elenchus.configs.methods import rl_v
from elenchus.data.critiques import grammars
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import credit, rollouts, trainer
from elenchus.train.rl.true_verdicts import write_true_verdicts
from elenchus.train.rl.update_batch import RowLayout, batch_without_weights
from tests.support import fake_engine, method_cases, tiny_model
from tests.train.rl import test_trainer
from tests.train.rl.test_trainer import METHOD, PROBLEMS, SCORER, run, settings_of, tiny_models

PLAIN = {
    'critiques': 'true',
    'critic_rewards__verdict': 0.5,
    'critic_rewards__helpful': 0.0,
    'critic_rewards__length': 0.0,
}
SETUP = rollouts.RolloutSetup(tiny_models(), SCORER, METHOD, 4, 1, 'always')


def critic_rules(**changes):
    return settings_of(**PLAIN | changes).reward_rules('critic')


def judged_group():
    """Two attempts, one of them right, with their true verdicts."""
    episodes = []
    for correct in (True, False):
        attempt = method_cases.written('attempt', (5, 6), scores=(None, None), correct=correct)
        critique = method_cases.written('critique', (7,), scores=(None,), verdict=correct)
        episodes.append(method_cases.talk(attempt, critique))
    return method_cases.group(*episodes)


def test_every_sampled_attempt_gets_its_true_verdict_which_nobody_sampled():
    groups, tokens = write_true_verdicts(SETUP, critic_rules(), PROBLEMS[:2], seed=1)
    episodes = [episode for group in groups for episode in group]
    assert [len(group.episodes) for group in groups] == [4, 4]
    assert tokens == sum(len(episode.attempt.tokens) for episode in episodes)
    for episode in episodes:
        text = fake_engine.CHAT.text(episode.critique)
        reading = grammars.LAB.parse(text)
        assert reading.final_correct is bool(episode.attempt.facts.correct) and not reading.steps
        assert episode.critique.facts.verdict is reading.final_correct
        assert episode.critique.logprobs == () and episode.attempt.logprobs


def test_the_advantage_is_the_weight_and_equal_rewards_are_learnt_from():
    values = credit.assign_credit(
        judged_group(), critic_rules(), limits={'critique': 9}, read=str, first_phase=False,
        penalties=None, seed=0,
    )  # fmt: skip
    assert [list(steps.values())[0].tolist() for steps in values.advantages] == [[0.5], [0.5]]
    assert not values.zero_variance
    sampled = credit.assign_credit(
        judged_group(), critic_rules(critiques='sampled'), limits={'critique': 9}, read=str,
        first_phase=False, penalties=None, seed=0,
    )  # fmt: skip
    assert sampled.zero_variance


def verdict_logprob(critic):
    """Mean log-probability of the true verdicts on fixed attempts."""
    groups, _ = write_true_verdicts(SETUP, critic_rules(), PROBLEMS[:2], seed=7)
    episodes = [episode for group in groups for episode in group]
    batch = batch_without_weights(
        episodes, RowLayout('critic', 96, 4, 0.0, False), fake_engine.CHAT
    )
    logprobs = trainer.make_logprobs(transform=METHOD.transform, shared=None, rows=8)
    with jax.set_mesh(tiny_model.one_device()):
        return float(logprobs(critic, batch)[batch.loss_mask > 0].mean())


@pytest.mark.slow
def test_iterations_raise_the_likelihood_of_true_verdicts(tmp_path):
    before = tiny_models().critic
    models, totals, rows = run(tmp_path, ('critic',), **PLAIN)
    assert verdict_logprob(models['critic']) > verdict_logprob(before) + 0.5
    assert totals['updates'] == {'critic': 3}
    assert all(row['reward/verdict'] == 1 and row['advantage/mean'] == 0.5 for row in rows)
    assert not any('sampler/gap' in row for row in rows)  # there is no sampler to differ from


def test_a_correction_of_the_samplers_importance_has_nothing_to_correct(tmp_path):
    changes = PLAIN | {'num_steps': 1}
    plain, _, _ = run(tmp_path / 'plain', ('critic',), **changes)
    capped, _, rows = run(tmp_path / 'capped', ('critic',), importance_cap=2.0, **changes)
    assert rows[0]['sampler/gap'] == 0 and rows[0]['advantage/max'] == 0.5
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), plain['critic'], capped['critic']
    )


def test_one_model_takes_the_updates_of_both(tmp_path):
    changes = PLAIN | {'one_model': True, 'advantage__step_coef': 0.0, 'num_steps': 2}
    models, totals, rows = run(tmp_path, ('actor', 'critic'), **changes)
    assert totals['updates'] == {'actor': 4}
    jax.tree.map(np.testing.assert_array_equal, models['actor'], models['critic'])
    assert rows[-1]['grads/critic/norm'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('changes', [{'staleness': 1}, {'num_minibatches': 2, 'num_epochs': 2}])
def test_old_weights_clip_nothing(tmp_path, changes):
    """The likelihood has a gradient however far the weights have moved since the attempts."""
    _, _, rows = run(tmp_path, ('critic',), **PLAIN | changes)
    assert all(row['grads/norm'] > 0 for row in rows)
    assert all(row['loss/ratio'] == 1 and row['loss/clipped_high'] == 0 for row in rows)


def test_tokens_that_the_sampler_would_leave_out_are_learnt(tmp_path):
    method = dataclasses.replace(METHOD, top_k=2)
    with mock.patch.object(test_trainer, 'METHOD', method):
        _, _, rows = run(tmp_path, ('critic',), **PLAIN)
    assert not any(row.get('loss/excluded') for row in rows)


@pytest.mark.parametrize(
    ('changes', 'error'),
    [
        ({'critic_rewards.helpful': 1.0}, r'helpful=1.0 .* nearest: 0.0'),
        ({'critic_rewards.located': 1.0}, r'located=1.0 .* nearest: 0.0'),
        ({'critic_rewards.verdict': -1.0}, r'verdict=-1.0 .* nearest: 1.0'),
        ({'critic_rewards.verdict_of': 'steps'}, r"verdict_of='steps' .* nearest: 'answer'"),
        ({'samples_per_row': 4}, r'samples_per_row=4 .* nearest: 1'),
        ({'advantage.outcome': 'gae'}, r"outcome='gae' .* nearest: 'grpo'"),
    ],
)
def test_what_needs_sampled_critiques_is_refused(changes, error):
    config = rl_v.get_config('default')
    config.reinforce.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=f'reinforce.*{error}'):
        checks.check_true_verdicts(build.build(RunSettings, config))


def test_a_run_that_trains_no_critic_has_no_use_for_true_verdicts():
    config = rl_v.get_config('default')
    checks.check_true_verdicts(build.build(RunSettings, config))
    config.stages = method.REINFORCE
    with pytest.raises(ValueError, match=r"critiques='true' is read by .*; nearest: 'sampled'"):
        checks.check_true_verdicts(build.build(RunSettings, config))


def test_off_it_is_the_alternation_of_two_models():
    base, config = method.lab.get_config('default'), rl_v.get_config('default')
    method_cases.undo(config, base, rl_v.CHANGES | rl_v.LAB)
    assert build.build(RunSettings, config) == build.build(RunSettings, base)
