"""Turns that were cut off at their token limit: overlong filtering."""

import numpy as np
import pytest

from elenchus.train import objective
from elenchus.train.rl import rollouts, update_batch
from tests.support import fake_engine
from tests.support.rollout_cases import PROBLEMS, answer, batch_of, make_rules, make_setup


def unfinished(role, request, seed):
    """As `answer`, but the attempts of every second request are cut off before the end token."""
    ids = answer(role, request, seed)
    return ids[:-1] if role == 'attempt' and request.id % 2 else ids


@pytest.mark.parametrize('episode', ['attempt', 'correction'])
def test_turns_that_were_cut_off_are_in_no_loss_but_in_the_baseline_of_their_group(episode):
    setup, _ = make_setup(unfinished)
    rules = make_rules(turns__episode=episode)
    groups = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)[0]
    layout = update_batch.RowLayout('actor', 400, 4, 0.0, mask_truncated=True)
    plain = update_batch.batch_without_weights(groups[0], layout, fake_engine.CHAT)
    cut = update_batch.in_truncated_turns(plain, groups[0], fake_engine.CHAT)
    is_attempt = plain.turns == 2
    np.testing.assert_array_equal(cut[::2], False)
    np.testing.assert_array_equal(cut[1::2], is_attempt[1::2])


def test_masked_turns_leave_the_weights_of_the_others_as_they_are():
    """TRL too masks after the advantages, so that what is cut off lowers the group's mean."""
    setup, _ = make_setup(unfinished)

    def groups():
        return rollouts.sample_actor_groups(setup, make_rules(), PROBLEMS[:2], seed=7)[0]

    plain, _ = batch_of(groups(), informative=2)
    masked, metrics = batch_of(groups(), informative=2, mask_truncated=True)
    np.testing.assert_array_equal(masked.weights, plain.weights)
    np.testing.assert_array_equal(masked.loss_mask[::2], plain.loss_mask[::2])
    assert plain.loss_mask[1::2].any(axis=1).all() and not masked.loss_mask[1::2].any()
    assert metrics['reward/unfinished'] == 0.5


def test_a_batch_of_turns_that_were_all_cut_off_has_no_loss_and_no_gradient():
    setup, _ = make_setup(lambda *arguments: answer(*arguments)[:-1])
    groups = rollouts.sample_actor_groups(setup, make_rules(), PROBLEMS[:2], seed=7)[0]
    batch, metrics = batch_of(groups, informative=2, mask_truncated=True)
    assert not batch.loss_mask.any() and np.isfinite(list(metrics.values())).all()
    dropped = update_batch.drop_zero_advantage_rows(
        batch, objective.GRPO, parts=1, samples_per_row=1
    )
    logprobs = np.full(dropped.tokens.shape, -1.0, np.float32)
    sums = objective.loss(objective.GRPO, dropped, logprobs=logprobs, entropy=0 * logprobs)
    assert sums.total == sums.weight == 0
