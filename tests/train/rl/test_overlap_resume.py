"""Rollouts sampled ahead of the updates: a run that ends anywhere continues to the same result."""

import random

import pytest

from elenchus.train import preemption
from elenchus.train.rl import iterations
from tests.support import overlapped_run
from tests.train.rl import test_interruption
from tests.train.rl import test_trainer as cases
from tests.train.rl.test_overlap import CHANGES, STEPS, assert_equal, stored_episodes


@pytest.mark.slow
@pytest.mark.parametrize('share', [0.5, 0.9])
def test_a_request_to_stop_saves_at_once_and_the_run_continues_bit_for_bit(
    tmp_path, monkeypatch, share, capsys
):
    """The thread hears it at a chunk; the checkpoint has the weights of what it was sampling."""
    whole = {}

    def run(name, at):
        engine = cases.tiny_models().sampler.engine
        interruption = test_interruption.Interruption(at)
        monkeypatch.setattr(engine, 'on_chunk', interruption)
        changes = CHANGES | {'checkpoint_every': 4, 'staleness': 2}
        result = cases.run(tmp_path / name, ('actor',), **changes)
        return result, interruption.chunks

    whole, chunks = run('whole', 0)
    with pytest.raises(preemption.Preempted) as end:
        run('parted', 1 + round(share * (chunks - 1)))
    assert type(end.value) is preemption.Preempted and end.value.code == 75
    assert capsys.readouterr().err.count('preempted:') == 1
    assert_equal(run('parted', 0)[0], whole)


def run_killed(fork, folder, *, staleness, every, kills, rng):
    """Kills a run so many times on its way; returns the number of those that hit it."""
    module, hits = 'tests.support.overlapped_run', 0
    folder.mkdir()
    arguments = [str(folder / 'run'), str(staleness), str(every)]
    for _ in range(kills):
        event, delay_s = rng.randint(1, 9), rng.choice((0.0, rng.uniform(0, 0.3)))
        hits += fork(module, folder, [*arguments, str(event), str(delay_s)]).code == -9
    result = fork(module, folder, arguments)
    assert result.code == 0, result.errors
    return hits


KILLS = [
    (1, 1, 10, 8),
    (1, 2, 10, 8),
    (2, 2, 8, 6),
]


@pytest.mark.slow
@pytest.mark.parametrize(('staleness', 'every', 'kills', 'least'), KILLS)
def test_a_run_killed_at_random_moments_is_the_same(fork, tmp_path, staleness, every, kills, least):
    """Weights, rows, episodes and their values; each iteration has the problems of its draw."""
    rng = random.Random(f'{staleness} {every}')
    options = {'staleness': staleness, 'every': every, 'rng': rng}
    hits = run_killed(fork, tmp_path / 'killed', kills=kills, **options)
    assert hits >= least
    run_killed(fork, tmp_path / 'whole', kills=0, **options)
    expected, actual = (
        overlapped_run.results(tmp_path / name / 'run') for name in ('whole', 'killed')
    )
    assert actual == expected and len(actual) >= 2 + 2 * NUM_STORED[every]


NUM_STORED = {1: STEPS, 2: 4}
"""Iterations whose episodes are stored: the first, the last, and those before a checkpoint."""


@pytest.mark.slow
def test_every_prompt_of_every_iteration_is_sampled_once(tmp_path):
    """Those that the seed draws, in order, however far ahead they are sampled."""
    cases.run(tmp_path, ('actor',), **CHANGES, staleness=2)
    sampled = [sorted({e.problem_id for e in part}) for part in stored_episodes(tmp_path)]
    for step, ids in enumerate(sampled, start=1):
        order = iterations.make_rng(3, step, 'actor').permutation(len(cases.PROBLEMS))
        assert ids == sorted(cases.PROBLEMS[i].id for i in order[:2])
    assert len(sampled) == STEPS and {len(part) for part in stored_episodes(tmp_path)} == {2 * 4}
