"""Rollouts sampled ahead of the updates: what the weights and the samples are, whatever happens."""

import threading

import jax
import numpy as np
import pytest

from elenchus.data.files import episode_files
from elenchus.train.rl import overlap, trainer
from tests.train.rl import test_trainer as cases

STEPS = 4
CHANGES = {'num_steps': STEPS, 'checkpoint_every': 1, **cases.PLAIN}


class InTurns:
    """Takes the place of `Ahead`: no thread, and the weights after every iteration in a list."""

    def __init__(self, trainings, *, implicit, engine):
        self.trainings, self.implicit, self.weights = trainings, implicit, []
        self.staleness = next(iter(trainings.values())).settings.staleness

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def take(self, step, states, *, advantage_states):
        newest = {key: s for key, s in states.items() if key != overlap.OLDER}
        self.weights.append(overlap.copy_weights(newest))
        chosen = self.weights[max(0, step - 1 - self.staleness)]
        sampled = {}
        for player, training in self.trainings.items():
            taken = overlap.sample_player(
                training,
                step,
                chosen,
                trainings=self.trainings,
                advantage_state=advantage_states.get(player, {}),
                implicit=self.implicit,
            )
            number = int(chosen[training.key].step)
            marked = overlap.with_policy_step(taken.sampled, player, number)
            sampled[player] = taken._replace(sampled=marked)
        return sampled, states[overlap.OLDER]


def in_turns(folder, trained, **changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, 'Ahead', InTurns)
        return cases.run(folder, trained, **changes)


def assert_equal(one, other):
    (models, totals, rows), (other_models, other_totals, other_rows) = one, other
    assert totals == other_totals and rows == other_rows
    for x, y in zip(*map(jax.tree.leaves, (models, other_models)), strict=True):
        np.testing.assert_array_equal(x, y)


def stored_episodes(folder, player='actor'):
    """Episodes of each iteration, of a run that stores all of them."""
    folders = sorted((folder / 'rollouts' / player).iterdir())
    paths = [path / 'episodes' / 'part-00000.array_record' for path in folders]
    return [list(episode_files.read_episode_file(path)) for path in paths]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith('rollouts')]


@pytest.mark.parametrize('staleness', [1, 2])
def test_each_iteration_is_sampled_by_the_weights_so_many_iterations_before(tmp_path, staleness):
    changes = CHANGES | {'staleness': staleness}
    result = cases.run(tmp_path / 'ahead', ('actor',), **changes)
    assert not threads()
    assert_equal(result, in_turns(tmp_path / 'turns', ('actor',), **changes))
    versions = [max(0, k - staleness) for k in range(STEPS)]
    for version, episodes in zip(versions, stored_episodes(tmp_path / 'ahead'), strict=True):
        assert {e.attempt.facts.policy_step for e in episodes} == {version}
    rows = result[2]
    assert [row['sampler/staleness'] for row in rows] == [k - v for k, v in enumerate(versions)]
    # The weights that recompute the log-probabilities are those that sampled.
    assert all(row['sampler/gap_max'] < 1e-4 for row in rows)
    assert rows[0]['loss/ratio_max'] == pytest.approx(1) and rows[2]['loss/ratio_max'] > 1.0001
