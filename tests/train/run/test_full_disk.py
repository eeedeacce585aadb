"""A disk that is full at any byte of a run: one line, nothing half-written, the same result."""

import errno

import pytest

from elenchus.data.files import failures
from tests.support import full_disk, small_run

pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

ENOUGH_KB = 4000


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """The results of a run that nothing disturbs."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    small_run.run(workdir)
    return small_run.results(workdir)


@pytest.fixture(scope='module')
def total_bytes(tmp_path_factory):
    """The bytes that such a run writes itself, without those of libraries."""
    with pytest.MonkeyPatch.context() as patch:
        budget = full_disk.limit_bytes(patch, float('inf'))
        small_run.run(tmp_path_factory.mktemp('counted') / 'run')
    return budget.written


def fails_from_outside(workdir) -> bool:
    """Runs; returns whether the run ended with an error that the user sees as one line."""
    try:
        small_run.run(workdir)
    except OSError as error:
        assert error.errno in failures.OUTSIDE, error
        assert error.filename and str(workdir) in str(error.filename), error
        return True
    return False


def check_any_byte(workdir, share, *, total, number, whole):
    with pytest.MonkeyPatch.context() as patch:
        full_disk.limit_bytes(patch, int(share * total), number=number)
        assert fails_from_outside(workdir)
    small_run.run(workdir)
    assert small_run.results(workdir) == whole
    assert not list(workdir.rglob('*.writing'))


@pytest.mark.slow
@pytest.mark.parametrize(
    'share', [0.4, *(pytest.param(x, marks=pytest.mark.slow) for x in (0.05, 0.99))]
)
def test_a_run_continues_after_a_failed_write(tmp_path, undisturbed, total_bytes, share):
    number = errno.EDQUOT if share == 0.4 else errno.ENOSPC
    options = {'total': total_bytes, 'number': number, 'whole': undisturbed}
    check_any_byte(tmp_path / 'run', share, **options)


@pytest.mark.slow
def test_a_run_continues_after_a_failure_at_any_of_its_bytes(tmp_path, undisturbed, total_bytes):
    """Every 40th byte, which falls into every file and row that we write."""
    for number in range(0, total_bytes, 40):
        options = {'total': total_bytes, 'number': errno.ENOSPC, 'whole': undisturbed}
        check_any_byte(tmp_path / str(number), number / total_bytes, **options)


def check_disk(folder, kilobytes, *, whole) -> bool:
    """Runs on a disk of a size, then on a larger one; returns whether the first was too small."""
    with full_disk.small_disk(folder, kilobytes=kilobytes) as disk:
        failed = fails_from_outside(disk / 'run')
        full_disk.resize(disk, kilobytes=ENOUGH_KB)
        small_run.run(disk / 'run')
        assert small_run.results(disk / 'run') == whole
        names = [p.name for p in (disk / 'run').rglob('*')]
        assert not [name for name in names if 'writing' in name or 'orbax-checkpoint-tmp' in name]
    return failed


@pytest.mark.slow
@pytest.mark.parametrize('kilobytes', [8, 120])
def test_a_run_continues_on_a_real_disk_that_was_full(tmp_path, undisturbed, kilobytes):
    assert check_disk(tmp_path / 'disk', kilobytes, whole=undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize('smallest', range(4, 20, 4))
def test_a_run_continues_whatever_the_size_of_the_disk(tmp_path, undisturbed, smallest):
    """All sizes in steps of a page, in four parts: the writes of Orbax too fail at every page."""
    for kilobytes in range(smallest, ENOUGH_KB, 16):
        if not check_disk(tmp_path / str(kilobytes), kilobytes, whole=undisturbed):
            break
    assert 100 < kilobytes < ENOUGH_KB - 16
