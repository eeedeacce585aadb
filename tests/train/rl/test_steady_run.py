"""A process does not grow with the iterations of reinforcement: memory, arrays, programs, files."""

import pytest

from tests.support import steady_run

ITERATIONS = 200
WARM = 51  # by then every shape has been met, and the allocator has its pools


@pytest.mark.slow
def test_a_process_does_not_grow_with_its_iterations(tmp_path):
    """What grows by a thing an iteration grows by 150 here; checkpoints come every fifth time."""
    rows = steady_run.run(tmp_path, ITERATIONS)
    warm = [row for row in rows if row['iteration'] >= WARM]
    assert len(warm) == 15
    for name in ('arrays', 'array_kib', 'compilations'):
        assert len({row[name] for row in warm}) == 1, (name, rows)
    half = len(warm) // 2
    for name, room in (
        ('descriptors', 15),
        ('threads', 10),
        ('objects', 5000),
        ('anonymous_mib', 10),
    ):
        early, late = (max(row[name] for row in part) for part in (warm[:half], warm[half:]))
        assert late <= early + room, (name, rows)
