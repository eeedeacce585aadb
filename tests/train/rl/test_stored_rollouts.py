"""The stored episodes of an iteration, with rewards, advantages and numbers of tokens."""

import functools
import types

import numpy as np
import pytest
from etils import epath

from elenchus.train.report.browser import rows, sources
from elenchus.train.rl import rollouts, stored_rollouts
from tests.support import rollout_cases
from tests.support.rollout_cases import PROBLEMS, answer, batch_of, make_rules, make_setup


def groups_of(num_groups=2):
    """Groups of right and wrong attempts in alternation."""
    setup, _ = make_setup(answer)
    groups, _ = rollouts.sample_actor_groups(setup, make_rules(), PROBLEMS[:num_groups], seed=0)
    return groups


def stored(tmp_path, **options):
    """(source, values, groups, batch) of an iteration that was stored in stage 07-reinforce."""
    groups = groups_of()
    place = tmp_path / 'stages/07-reinforce/rollouts/actor/step-00020'
    keep = functools.partial(stored_rollouts.write, epath.Path(place))
    batch, _ = batch_of(groups, keep=keep, **{'informative': 2} | options)
    (source,) = sources.find_sources(epath.Path(tmp_path))
    return source, sources.read_values(source), groups, batch


def test_every_episode_has_its_reward_terms_and_advantages(tmp_path):
    source, values, groups, _ = stored(tmp_path)
    assert (source.stage, source.round, source.part) == ('07-reinforce', 20, 'rollouts/actor')
    episodes = [e for group in groups for e in group]
    expected = [v for g in groups for v in rollout_cases.assign_credit(g, make_rules()).rewards]
    assert [line['reward'] for line in values] == expected
    assert len(set(expected)) > 1
    for line, episode in zip(values, episodes, strict=True):
        assert line['terms']['attempt']['correct'] == float(episode.attempt.facts.correct)
        assert len(line['advantages']['2']) == len(episode.attempt.steps)
        sign = 1 if episode.attempt.facts.correct else -1
        assert all(np.sign(line['advantages']['2']) == sign)


def test_tokens_have_the_weight_of_the_loss_and_the_trainer_before_the_update(tmp_path):
    _, values, groups, batch = stored(tmp_path)
    episodes = [e for group in groups for e in group]
    for row, (line, episode) in enumerate(zip(values, episodes, strict=True)):
        (numbers,) = line['tokens'].values()
        assert set(numbers) == {'weight', 'trainer'}
        assert len(numbers['weight']) == len(episode.attempt.tokens)
        trained = batch.loss_mask[row] > 0
        np.testing.assert_allclose(numbers['weight'], batch.weights[row, trained], atol=1e-6)
        assert set(numbers['trainer']) == {-2.0}
        channels = rows.make_tokens(episode, line)[0]['channels']
        gaps = [round(1000 * (-2.0 - p)) for p in episode.attempt.logprobs]
        assert channels['mismatch'] == gaps and set(channels) == {'logprob', 'weight', 'mismatch'}


def test_what_is_not_computed_or_not_trained_is_absent(tmp_path):
    _, values, *_ = stored(tmp_path, policy=None, informative=1)
    first, second = values[:4], values[4:]
    assert all(set(line['tokens']['2']) == {'weight'} for line in first)
    assert all(line['tokens'] == {} for line in second)  # the second group only fills the shape


def test_unknown_numbers_are_null(tmp_path):
    _, values, *_ = stored(tmp_path, policy=float('-inf'))
    assert {p for line in values for p in line['tokens']['2']['trainer']} == {None}


@pytest.mark.parametrize(
    ('step', 'is_stored'), [(1, True), (2, False), (20, True), (39, False), (45, True)]
)
def test_the_first_the_last_and_those_of_checkpoints_are_stored(tmp_path, step, is_stored):
    settings = types.SimpleNamespace(num_steps=45, checkpoint_every=20)
    keep = stored_rollouts.make_keep(tmp_path, 'critic', step, settings=settings)
    assert (keep is not None) == is_stored
    assert stored_rollouts.make_keep(None, 'critic', 1, settings=settings) is None
    if keep:
        assert keep.args[0] == epath.Path(tmp_path) / f'rollouts/critic/step-{step:05d}'


def test_storing_changes_no_number_of_the_batch(tmp_path):
    plain, metrics = batch_of(groups_of(), informative=2)
    *_, kept = stored(tmp_path)
    for name, first, second in zip(plain._fields, plain, kept, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=name)
    assert metrics
