"""A run whose work directory is a bucket: the same results, whatever request fails."""

import pytest
from etils import epath

from elenchus.data.files import failures
from elenchus.train.run import lease
from tests.support import small_run

fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

WORKDIR = epath.Path('gs://bucket/run')


@pytest.fixture(autouse=True)
def quick_leases(monkeypatch):
    """Leases of dead runs that are waited for half a second."""
    monkeypatch.setattr(lease, 'STALE_S', 0.5)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """The results of a run on a disk."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    small_run.run(workdir)
    return small_run.results(workdir)


def results(fake, folder):
    """Returns the results of the run in the bucket."""
    return small_run.results(fake.objects.save(folder) / 'run')


@pytest.fixture(scope='module')
def total(undisturbed, tmp_path_factory):
    """The number of requests of a run that nothing disturbs; its results are those on a disk."""
    with fake_gcs.in_this_process() as fake:
        small_run.run(WORKDIR)
        assert results(fake, tmp_path_factory.mktemp('saved')) == undisturbed
        assert 'run/lock.json' not in fake.objects.names()
        return len(fake.requests)


def fails_from_outside() -> bool:
    """Runs; returns whether the run ended with an error that the user sees as one line."""
    try:
        small_run.run(WORKDIR)
    except OSError as error:
        assert error.errno in failures.OUTSIDE, error
        assert 'gs://bucket' in str(error), error
        return True
    return False


def check_request(fake, number, *, whole, folder) -> bool:
    """Refuses all requests from one on, then none; returns whether the first run failed."""
    fake.fail('', status=403, skip=number, times=float('inf'))
    failed = fails_from_outside()
    fake.faults.clear()
    small_run.run(WORKDIR)
    assert results(fake, folder) == whole
    return failed


SHARES = [pytest.param(share, marks=pytest.mark.slow) for share in (0.02, 0.3, 0.8)]


@pytest.mark.parametrize('share', [0.55, *SHARES])
def test_a_run_continues_after_requests_that_were_refused(tmp_path, undisturbed, total, share):
    with fake_gcs.in_this_process() as fake:
        assert check_request(fake, int(share * total), whole=undisturbed, folder=tmp_path)


@pytest.mark.slow
def test_a_run_continues_after_a_failure_at_any_request(tmp_path, undisturbed, total):
    failed = 0
    for number in range(1, total, 7):
        with fake_gcs.in_this_process() as fake:
            options = {'whole': undisturbed, 'folder': tmp_path / str(number)}
            failed += check_request(fake, number, **options)
    assert failed > total // 7 * 0.8
