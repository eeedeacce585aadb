"""A request to stop during an iteration of reinforcement learning: the resumed run is the same."""

import jax
import numpy as np
import pytest

from elenchus.train import preemption
from tests.train.rl import test_trainer as cases

CHANGES = {'num_steps': 2, 'num_minibatches': 2, 'checkpoint_every': 2}


class Interruption:
    """Interrupts the engine at a chunk of decoding, counted from 1; 0: never."""

    def __init__(self, at):
        self.at, self.chunks = at, 0

    def __call__(self):
        self.chunks += 1
        if self.chunks == self.at:
            raise preemption.Interrupted


def run(folder, at):
    """Trains both players; returns (models, totals, rows) or None, and the number of chunks."""
    engine = cases.tiny_models().sampler.engine
    engine.on_chunk = interruption = Interruption(at)
    try:
        return cases.run(folder, ('actor', 'critic'), **CHANGES), interruption.chunks
    except preemption.Preempted as end:
        assert type(end) is preemption.Preempted and end.code == 75
        return None, interruption.chunks
    finally:
        engine.on_chunk = lambda: None


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp('whole'), 0)


@pytest.mark.slow  # test_overlap_resume.py has a fast one
@pytest.mark.parametrize('share', [0.8, 0.0, 0.3, 0.55, 1.0])
def test_a_run_interrupted_while_either_player_samples_continues_bit_for_bit(
    whole, tmp_path, share, capsys
):
    (models, totals, rows), chunks = whole
    ended, _ = run(tmp_path, 1 + round(share * (chunks - 1)))
    assert ended is None
    assert capsys.readouterr().err.count('preempted:') == 1
    (resumed, resumed_totals, resumed_rows), _ = run(tmp_path, 0)
    assert resumed_totals == totals and resumed_rows == rows
    for one, other in zip(*map(jax.tree.leaves, (models, resumed)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_second_interruption_of_the_same_iteration_loses_nothing(whole, tmp_path):
    (models, totals, rows), chunks = whole
    for at in (round(0.8 * chunks), 1, 1):  # in the second iteration, then at once
        assert run(tmp_path, at)[0] is None
    (resumed, resumed_totals, resumed_rows), _ = run(tmp_path, 0)
    assert resumed_totals == totals and resumed_rows == rows
    for one, other in zip(*map(jax.tree.leaves, (models, resumed)), strict=True):
        np.testing.assert_array_equal(one, other)
