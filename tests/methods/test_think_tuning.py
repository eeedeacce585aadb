"""ThinkTuning: feedback is in the episode, and only the student's turns are trained."""

from elenchus.configs.methods import think_tuning
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import advantages, credit, rollouts, update_batch
from tests.support import fake_engine
from tests.support.rollout_cases import PROBLEMS, answer, make_rules, make_setup

CHANGES = {
    name.removeprefix('reinforce.').replace('.', '__'): value
    for name, value in think_tuning.CHANGES.items()
    if not callable(value)
}


def test_the_feedback_is_read_but_not_trained(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    setup, _ = make_setup(answer)
    (group,), _ = rollouts.sample_actor_groups(setup, make_rules(**CHANGES), PROBLEMS[:1], seed=7)
    roles = [turn.role for turn in group[0].turns]
    assert roles == ['question', 'attempt', 'critique', 'refinement']
    trained = [turn.role for _, turn in credit.trained_turns(group[0], 'actor')]
    assert trained == ['attempt', 'refinement']
    layout = update_batch.RowLayout('actor', 400, 4, 0.0, False)
    batch = update_batch.batch_without_weights(list(group), layout, fake_engine.CHAT)
    critique = roles.index('critique') + 1
    assert not batch.loss_mask[batch.turns == critique].any()
    assert batch.loss_mask[batch.turns == critique + 1].any()


def test_an_attempt_earns_what_its_continuation_does():
    settings = build.build(RunSettings, think_tuning.get_config('default')).reinforce
    assert advantages.discounted([0.0, 1.0], discount=settings.turns.discount) == [1.0, 1.0]
