"""One run at a time on a work directory; a killed one does not block the next."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from elenchus.data.files import atomic
from elenchus.train.run import lease, lock
from tests.support import multi_process

HOLDER = """
import sys, time
from elenchus.train.run import lock
with lock.locked(sys.argv[1]):
    print('locked', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """(work directory, the process that has locked it)."""
    workdir = tmp_path / 'run'
    with subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(workdir)],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == 'locked\n'
        yield workdir, process
        process.kill()


def test_a_second_run_is_refused_with_the_owner_of_the_work_directory(holder):
    workdir, process = holder
    message = rf'in use by process {process.pid} on {socket.gethostname()} since .*new --workdir'
    with pytest.raises(ValueError, match=message), lock.locked(workdir):
        pass


def test_runs_below_a_work_directory_keep_what_they_write(holder):
    """--workdir=runs by mistake for runs/x: the checkpoint that another run writes stays."""
    workdir, _ = holder
    half = workdir / 'stages' / f'2{lock.ORBAX_UNFINISHED}'
    half.mkdir(parents=True)
    (workdir.parent / 'summary.json.7.writing').write_text('half')
    with lock.locked(workdir.parent):
        assert half.exists() and not (workdir.parent / 'summary.json.7.writing').exists()


def test_a_lock_of_a_killed_process_is_taken_over_and_its_half_written_files_are_deleted(holder):
    workdir, process = holder
    (workdir / 'summary.json.7.writing').write_text('half')
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock.locked(workdir):
        assert json.loads((workdir / lock.LOCK).read_text())['process'] == os.getpid()
        assert [path.name for path in workdir.iterdir()] == [lock.LOCK]


# Locks and other descriptors, damaged names, earlier versions

EARLIER = """
import fcntl, sys, time
file = open(sys.argv[1] + '/lock.json', 'a+')
fcntl.lockf(file, fcntl.LOCK_EX)
file.truncate(0)
file.write(sys.argv[2])
file.flush()
print('locked', flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize('content', ['', '{"host', '[]', '{}', 'null', '\0\0\0'])
def test_a_lock_whose_name_is_cut_short_is_in_use_all_the_same(tmp_path, content):
    """Also one of `lockf`, which runs of an earlier version take."""
    command = [sys.executable, '-c', EARLIER, str(tmp_path), content.replace('\0', '\\0')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'locked\n'
        message = 'in use by another run.*new --workdir'
        with pytest.raises(ValueError, match=message), lock.locked(tmp_path):
            pass
        process.kill()


def try_lock(workdir) -> subprocess.CompletedProcess:
    """Locks a directory for a moment in another process."""
    program = (
        f'from elenchus.train.run import lock\nwith lock.locked({str(workdir)!r}): print("got")'
    )
    return subprocess.run(
        [sys.executable, '-c', program],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )


def test_closing_another_descriptor_does_not_drop_the_lock(tmp_path):
    with lock.locked(tmp_path):
        (tmp_path / lock.LOCK).read_text()
        open(tmp_path / lock.LOCK, 'a').close()
        second = try_lock(tmp_path)
        assert 'in use by process' in second.stderr and 'got' not in second.stdout
        with pytest.raises(ValueError, match='in use'), lock.locked(tmp_path):
            pass
    assert try_lock(tmp_path).stdout == 'got\n'


# Leases


@pytest.fixture
def quick(monkeypatch):
    """Leases that go stale within a second."""
    monkeypatch.setattr(lease, 'RENEW_S', 0.05)
    monkeypatch.setattr(lease, 'STALE_S', 0.6)
    monkeypatch.setattr(lease, 'SETTLE_S', 0.05)


@pytest.mark.parametrize(
    'number', [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL]
)
def test_a_file_system_without_locks_has_a_lease(tmp_path, monkeypatch, capsys, quick, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    for name in ('fcntl', 'flock', 'lockf'):
        monkeypatch.setattr(fcntl, name, refuse)
    with lock.locked(tmp_path):
        assert 'without locks' in capsys.readouterr().err
        message = f'in use by process {os.getpid()} on'
        with pytest.raises(ValueError, match=message), lock.locked(tmp_path):
            pass
    assert 'waiting' in capsys.readouterr().err
    with lock.locked(tmp_path):  # at once: the lease is gone
        assert 'waiting' not in capsys.readouterr().err
        assert (tmp_path / 'lease.json').exists()
    assert not (tmp_path / 'lease.json').exists()


@pytest.mark.parametrize('number', [errno.EROFS, errno.EIO, errno.ENOSPC])
def test_other_failures_of_a_lock_are_errors_with_its_path(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, '_lock_description', refuse)
    with pytest.raises(OSError, match=tmp_path.name) as raised, lock.locked(tmp_path):
        pass
    assert raised.value.errno == number


class MemoryStore:
    """Stand-in for the object of a lease, with its generation."""

    path = pathlib.PurePosixPath('/bucket/run/lock.json')

    def __init__(self):
        self.content, self.generation, self.lost_answers = None, 0, 0

    def read(self):
        """Returns (content, generation) or None."""
        return None if self.content is None else (self.content, self.generation)

    def write(self, content, version):
        """Writes if the generation is the same; may lose the answer, as a network does."""
        if version != (None if self.content is None else self.generation):
            return None
        self.content, self.generation = content, self.generation + 1
        if self.lost_answers:
            self.lost_answers -= 1
            return self.write(content, version)  # the client tries again
        return self.generation

    def remove(self, version):
        """Deletes the generation."""
        if version == self.generation:
            self.content = None


@pytest.mark.parametrize('lost', [0, 1])
def test_of_two_hosts_one_gets_the_lease_and_the_other_a_name(quick, lost):
    store = MemoryStore()
    store.lost_answers = lost
    with lease.leased(store):
        time.sleep(0.3)  # it is renewed meanwhile
        message = f'in use by process {os.getpid()} on'
        with pytest.raises(ValueError, match=message), lease.leased(store):
            pass
    assert store.content is None


def test_a_lease_of_a_killed_run_is_taken_over_when_it_stays_the_same(quick):
    store = MemoryStore()
    store.write('{"host": "gone", "cut sho', None)
    start = time.monotonic()
    with lease.leased(store):
        assert time.monotonic() - start >= 0.55
        assert json.loads(store.content)['process'] == os.getpid()


def test_a_run_that_lost_its_lease_writes_no_more(tmp_path, quick, capsys):
    store = MemoryStore()
    (tmp_path / 'config.json').write_text('{}')
    with lease.leased(store):
        atomic.check_exists(tmp_path / 'config.json')
        store.content, store.generation = '{"host": "b", "process": 7, "since": "now"}', 99
        end = time.monotonic() + 5
        while time.monotonic() < end and 'stops' not in capsys.readouterr().err:
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match='taken over.*process 7 on b'):
            atomic.check_exists(tmp_path / 'config.json')
    assert store.content is not None  # that of the other run
    atomic.check_exists(tmp_path / 'config.json')


def test_of_many_that_wait_for_a_dead_run_one_gets_its_lease(tmp_path, quick):
    (tmp_path / 'lease.json').write_text('{"host": "gone"}')
    results = []

    def attempt():
        try:
            with lease.leased(lease.DiskStore(tmp_path / 'lease.json')):
                results.append('got')
                end = time.monotonic() + 30.0  # until the others are refused, however busy it is
                while len(results) < 4 and time.monotonic() < end:
                    time.sleep(0.01)
        except ValueError as error:
            results.append(str(error))

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count('got') == 1 and len(results) == 4


def test_folders_of_a_killed_process_are_deleted(tmp_path):
    (tmp_path / 'stages' / '05-vanilla' / 'model.4711.writing' / 'd').mkdir(parents=True)
    (tmp_path / 'stages' / '00-base' / f'model{lock.ORBAX_UNFINISHED}' / 'd').mkdir(parents=True)
    with lock.locked(tmp_path):
        assert [p.name for p in (tmp_path / 'stages').glob('*/*')] == []


def test_orbax_still_names_unfinished_folders_so():
    from orbax.checkpoint._src.path import temporary_paths

    assert temporary_paths.TMP_DIR_SUFFIX == lock.ORBAX_UNFINISHED
