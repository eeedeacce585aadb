"""Rollouts sampled ahead of the updates: what the weights and the samples are, whatever happens."""

import concurrent.futures
import dataclasses
import errno
import math
import threading
import time

import jax
import numpy as np
import pytest

from elenchus.data.files import episode_files
from elenchus.model import placement, sharding
from elenchus.train.checkpoints import training_state
from elenchus.train.config import cli
from elenchus.train.metrics import writers
from elenchus.train.rl import overlap, rollout_devices, trainer
from tests.support import overlapped_run
from tests.train.rl import test_trainer as cases

STEPS = overlapped_run.NUM_STEPS
CHANGES = overlapped_run.CHANGES | {'checkpoint_every': 1}


class InTurns:
    """Takes the place of `Ahead`: no thread, and the weights after every iteration in a list."""

    def __init__(self, trainings, *, implicit, **_):
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
        return sampled, {overlap.OLDER: states[overlap.OLDER]}


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


def stored_tokens(folder):
    return [[e.attempt.tokens for e in part] for part in stored_episodes(folder)]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith('rollouts')]


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_players_with_all_that_an_iteration_can_have_are_sampled_ahead(tmp_path):
    """Minibatches, a refill, rows that share a prompt, SCoRe's first phase, importance weights."""
    changes = cases.BOTH | {'staleness': 1}
    players = ('actor', 'critic')
    result = cases.run(tmp_path / 'ahead', players, **changes)
    assert_equal(result, in_turns(tmp_path / 'turns', players, **changes))
    for player in players:
        ages = [row[f'sampler/{player}/staleness'] for row in result[2]]
        assert ages == [0, 2, 2]  # updates, two an iteration


def test_without_staleness_nothing_is_sampled_ahead(tmp_path, monkeypatch):
    """Nor do a checkpoint, a row or an episode have anything of it."""
    saved = []

    def save(self, step, state, cursor):
        saved.append(set(state))

    monkeypatch.setattr(overlap.Ahead, '__enter__', None)
    monkeypatch.setattr(training_state.Checkpointer, 'save', save)
    _, totals, rows = cases.run(tmp_path, ('actor',), **CHANGES | {'num_steps': 2})
    assert saved == [{'actor'}] and totals['updates'] == {'actor': 2}
    assert not any(name == 'sampler/staleness' for row in rows for name in row)
    facts = [e.attempt.facts for part in stored_episodes(tmp_path) for e in part]
    assert {fact.policy_step for fact in facts} == {None}


@pytest.mark.slow
def test_the_next_iteration_is_sampled_while_the_updates_are_taken(tmp_path, monkeypatch):
    """An update waits until the rollouts of the next iteration have begun."""
    started = [threading.Event() for _ in range(STEPS + 2)]
    update, sample = trainer.update_player, overlap.sample_player
    numbers = iter(range(1, STEPS + 1))

    def waiting_update(*args, **options):
        number = next(numbers)
        assert number == STEPS or started[number + 1].wait(60), f'iteration {number + 1}'
        return update(*args, **options)

    def counted_sample(training, step, *args, **options):
        started[step].set()
        return sample(training, step, *args, **options)

    monkeypatch.setattr(trainer, 'update_player', waiting_update)
    monkeypatch.setattr(overlap, 'sample_player', counted_sample)
    cases.run(tmp_path, ('actor',), **CHANGES, staleness=1)
    assert next(numbers, None) is None


class Gone(Exception):
    """What a broken verifier raises."""


@pytest.mark.slow
@pytest.mark.parametrize('kind', [ValueError, pytest.param(OSError, marks=pytest.mark.slow), Gone])
def test_an_error_of_the_thread_ends_the_run_as_one_of_the_main_thread(
    tmp_path, monkeypatch, capsys, kind
):
    """In one line with the exit code of its kind; what is no fault of the user keeps its trace."""
    judged, judge = [], cases.tiny_models().judge

    def failing(pairs):
        judged.append(len(pairs))
        if len(judged) == 3:
            if kind is ValueError:  # one of our own packages, which has the user's mistakes
                cases.settings_of(num_samples=1)
            raise OSError(errno.ENOSPC, 'no space') if kind is OSError else kind
        return judge(pairs)

    models = dataclasses.replace(cases.tiny_models(), judge=failing)
    engine = models.sampler.engine
    on_chunk = engine.on_chunk

    def fail():
        with cli.one_line_errors():
            cases.run(tmp_path, ('actor',), initial=models, **CHANGES, staleness=1)

    with pytest.raises(Gone if kind is Gone else SystemExit) as error:
        fail()
    assert kind is Gone or error.value.code == {ValueError: 2, OSError: 1}[kind]
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith('error:') for line in lines].count(True) == (kind is not Gone)
    assert not threads() and engine.on_chunk is on_chunk


def test_an_error_of_the_main_thread_ends_the_other_one_at_its_next_chunk(tmp_path, monkeypatch):
    engine, started, ended = cases.tiny_models().sampler.engine, threading.Event(), []
    sample = overlap.sample_player

    def endless_sample(training, step, *args, **options):
        """Only what is raised at a chunk ends the second iteration."""
        if step == 1:
            return sample(training, step, *args, **options)
        started.set()
        try:
            for _ in range(6000):
                engine.on_chunk()
                time.sleep(0.01)
        except concurrent.futures.CancelledError:
            ended.append(step)
            raise

    def fail(*_, **__):
        assert started.wait(60)
        raise FloatingPointError('loss nan')

    monkeypatch.setattr(overlap, 'sample_player', endless_sample)
    monkeypatch.setattr(trainer, 'update_player', fail)
    with pytest.raises(FloatingPointError, match='loss nan'):
        cases.run(tmp_path, ('actor',), **CHANGES, staleness=2)
    assert not threads() and ended == [2]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'staleness': -1}, r'staleness=-1 must be at least 0; nearest: 0'),
        ({'staleness': 101}, r'staleness=101 must be at most 100; nearest: 100'),
        ({'staleness': 1, 'objective__on_policy': True}, r'on_policy=True with .* staleness=1'),
        ({'staleness': 1, 'objective__surrogate': 'logprob'}, r'staleness=1, which needs a ratio'),
        ({'replay_groups': 2, 'objective__surrogate': 'logprob'}, r'replay_groups=2, which needs'),
        ({'turns__hint_share': 0.5, 'objective__surrogate': 'logprob'}, r'turns.hint_share=0.5, w'),
        (
            {'turns__hint_share': 0.5, 'objective__on_policy': True},
            r'on_policy=True .*hint_share=0.5',
        ),
    ],
)
def test_episodes_of_another_policy_need_a_ratio_to_it(changes, message):
    with pytest.raises(ValueError, match=message):
        cases.settings_of(**changes)


@pytest.mark.parametrize(
    ('shape', 'changes', 'message'),
    [
        ((2, 1, 1), {'rollout_devices': 1}, r'rollout_devices=1 needs staleness above 0, not 0'),
        ((2, 1, 2), {'staleness': 1}, r'staleness=1 on 4 .*rollout_devices=2'),
        ((1, 4, 1), {'staleness': 1}, r'staleness=1 on 4 devices .*: nearest: 0'),
        ((2, 1, 2), {'staleness': 1, 'rollout_devices': 1}, r'rollout_devices=1 .* of 2, .*: 0'),
        ((4, 1, 1), {'staleness': 1, 'rollout_devices': 4}, r'rollout_devices=4 .* nearest: 3'),
    ],
)
def test_devices_that_threads_cannot_share_are_refused(shape, changes, message):
    mesh = sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])
    with pytest.raises(ValueError, match=message):
        rollout_devices.check_overlap(cases.settings_of(**changes), mesh)
    rollout_devices.check_overlap(cases.settings_of(), mesh)


def test_a_mesh_divides_between_rows_present_or_planned():
    for mesh in (
        sharding.make_mesh((4, 1, 2), jax.devices()[:8]),
        jax.sharding.AbstractMesh((4, 1, 2), sharding.AXES),
    ):
        trainer_mesh, sampler_mesh = rollout_devices.parts(mesh, 2)
        assert dict(trainer_mesh.shape) == {'data': 3, 'fsdp': 1, 'tensor': 2}
        assert dict(sampler_mesh.shape) == {'data': 1, 'fsdp': 1, 'tensor': 2}


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    mesh = sharding.current_mesh()
    rollout_devices.check_overlap(cases.settings_of(), mesh)
    with pytest.raises(ValueError, match=r'reinforce\.staleness=1 .* one process, not of 2; near'):
        rollout_devices.check_overlap(cases.settings_of(staleness=1), mesh)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 1, 1), (2, 1, 2)])
def test_rollouts_on_devices_of_their_own_are_those_of_the_same_weights(tmp_path, shape):
    """2 + 2 devices with tensor parallelism, or 1 + 1: as one device does, up to rounding."""
    size = math.prod(shape)
    mesh = sharding.make_mesh(shape, jax.devices()[:size])
    changes = CHANGES | {'num_steps': 3, 'staleness': 1, 'drop_zero_advantage_rows': False}
    expected, totals, rows = cases.run(tmp_path / 'one', ('actor',), **changes)
    changes['rollout_devices'] = size // 2
    initial = rollout_devices.place_pair(cases.tiny_models(), placement.Placement(mesh))
    folder = tmp_path / 'apart'
    with writers.Writer(folder, tensorboard=folder / 'board') as writer, jax.set_mesh(mesh):
        apart, apart_totals = trainer.reinforce(
            initial,
            cases.PROBLEMS,
            trained=('actor',),
            settings=cases.settings_of(**changes),
            loop=cases.LOOP,
            scorer=cases.SCORER,
            method=cases.METHOD,
            folder=folder,
            writer=writer,
            seed=3,
        )
        assert [x.sharding for x in jax.tree.leaves(apart)] == jax.tree.leaves(
            placement.current().shardings(apart)
        )
    assert apart_totals == totals
    for one, other in zip(rows, writers.read_rows(folder / writers.METRICS), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    for x, y in zip(*map(jax.tree.leaves, (expected, apart)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    assert stored_tokens(folder) == stored_tokens(tmp_path / 'one')
