"""Files are whole or absent whatever fails while they are written, and every error has a path."""

import errno
import os
import signal
import subprocess
import sys
import threading

import hypothesis
import hypothesis.strategies as st
import pytest

from elenchus.data.files import atomic, episode_files, failures
from elenchus.data.records import Episode
from tests.support import full_disk, multi_process

EPISODES = [Episode(problem_id=f'p{i}', level=1, turns=()) for i in range(50)]


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize('num_bytes', [0, 1, 5, 9])
def test_a_failing_write_keeps_the_file_before_and_names_the_path(
    tmp_path, monkeypatch, num_bytes, number
):
    path = tmp_path / 'folder' / 'a.json'
    atomic.write_text(path, 'before')
    full_disk.limit_bytes(monkeypatch, num_bytes, number=number)
    with pytest.raises(OSError, match=r'folder/a\.json') as raised:
        atomic.write_text(path, '0123456789')
    assert raised.value.errno == number
    assert path.read_text() == 'before'
    assert [p.name for p in path.parent.iterdir()] == ['a.json']


@hypothesis.given(st.binary(max_size=200), st.integers(1, 7))
def test_a_system_that_takes_few_bytes_at_a_time_gets_all(content, most):
    class Slow:
        taken = b''

        def write(self, view):
            self.taken += bytes(view[:most])
            return min(most, len(view))

    file = Slow()
    atomic.store(file, content)
    assert file.taken == content


@pytest.mark.parametrize('failing', ['file', 'folder'])
def test_files_are_flushed_before_and_folders_after_the_rename(tmp_path, monkeypatch, failing):
    events = []

    def fsync(descriptor):
        name = os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))
        events.append((name, (tmp_path / 'a').exists()))
        if failing == 'folder' and not name.endswith(atomic.UNFINISHED):
            raise OSError(errno.EINVAL, 'no folders here')

    monkeypatch.setattr(os, 'fsync', fsync)
    atomic.write_text(tmp_path / 'a', 'text')
    writer = f'{os.getpid()}-{threading.get_ident()}'
    assert events == [(f'a.{writer}.writing', False), (tmp_path.name, True)]


def test_an_error_while_flushing_is_no_success(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(OSError, match=r"Input/output error: '.*/a'"):
        atomic.write_text(tmp_path / 'a', 'text')
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_episodes_is_an_error_of_the_system(tmp_path):
    with full_disk.small_disk(tmp_path / 'disk', kilobytes=12) as disk:
        with pytest.raises(OSError, match='part-00000') as raised:
            episode_files.write_episodes(disk / 'part-00000.array_record', EPISODES * 40)
        assert raised.value.errno == errno.ENOSPC
        assert not list(disk.iterdir())


def test_episodes_need_no_room_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', '/nonexistent')
    episode_files.write_episodes(tmp_path / 'part', EPISODES)
    assert episode_files.read_episode_file(tmp_path / 'part') == EPISODES


# Links


def make_tree(folder):
    (folder / 'd').mkdir(parents=True)
    (folder / 'a').write_text('1')
    (folder / 'd' / 'b').write_text('2' * 10)
    (folder / 'config.json').write_text('{}')
    return folder


def tree_of(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('number', [*sorted(atomic.NO_LINKS), 0])
def test_a_tree_is_linked_or_copied(tmp_path, monkeypatch, number):
    source = make_tree(tmp_path / 'source')

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr(os, 'link', refuse)
    atomic.link_tree(source, tmp_path / 'model')
    assert tree_of(tmp_path / 'model') == tree_of(source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model', 'source']
    assert ((tmp_path / 'model' / 'a').stat().st_nlink == 2) == (not number)


@pytest.mark.parametrize('number', [errno.EIO, errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_a_tree_that_fails_leaves_nothing(tmp_path, monkeypatch, number):
    source, links = make_tree(tmp_path / 'source'), []

    def link(old, new):
        if links:
            raise OSError(number, os.strerror(number), str(old))
        links.append(new)
        os.symlink(old, new)

    monkeypatch.setattr(os, 'link', link)
    with pytest.raises(OSError) as raised:
        atomic.link_tree(source, tmp_path / 'model')
    assert raised.value.errno == number and raised.value.filename
    assert [p.name for p in tmp_path.iterdir()] == ['source']


@pytest.mark.parametrize('num_bytes', [0, 1, 6])
def test_a_disk_that_fills_up_under_a_copy_leaves_nothing(tmp_path, monkeypatch, num_bytes):
    source = make_tree(tmp_path / 'source')
    monkeypatch.setattr(atomic, '_link_or_copy', atomic._copy)
    full_disk.limit_bytes(monkeypatch, num_bytes)
    with pytest.raises(OSError, match='model') as raised:
        atomic.link_tree(source, tmp_path / 'model')
    assert raised.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ['source']


KILLED = """
import os, signal, sys
from elenchus.data.files import atomic
link = os.link
def link_and_die(*names):
    link(*names)
    os.kill(os.getpid(), signal.SIGKILL)
os.link = link_and_die
atomic.link_tree(sys.argv[1] + '/source', sys.argv[1] + '/model')
"""


def test_what_a_kill_inside_a_tree_leaves_is_deleted_by_the_next_start(tmp_path):
    make_tree(tmp_path / 'source')
    killed = subprocess.run(
        [sys.executable, '-c', KILLED, str(tmp_path)],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1),
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert any(p.name.endswith('.writing') and p.is_dir() for p in tmp_path.iterdir())
    atomic.delete_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['source']


def test_unfinished_files_and_folders_at_any_depth_are_deleted(tmp_path):
    make_tree(tmp_path / 'x' / 'model.4711.writing')
    make_tree(tmp_path / 'x' / 'checkpoints' / '3.tmp')
    make_tree(tmp_path / 'x' / 'whole')
    (tmp_path / 'x' / 'whole' / 'b.7.writing').write_text('half')
    atomic.delete_unfinished(tmp_path, endings=('.tmp',))
    assert sorted(tree_of(tmp_path)) == ['x/whole/a', 'x/whole/config.json', 'x/whole/d/b']


def test_a_deleted_folder_is_never_half_there(tmp_path, monkeypatch):
    make_tree(tmp_path / 'checkpoints')

    def fail(*_, **__):
        raise OSError(errno.EIO, 'while deleting')

    monkeypatch.setattr('shutil.rmtree', fail)
    with pytest.raises(OSError):
        atomic.delete_tree(tmp_path / 'checkpoints')
    assert not (tmp_path / 'checkpoints').exists()


# Errors of libraries


class HttpError(Exception):
    """As of gcsfs."""


HttpError.__module__ = 'gcsfs.retry'


@pytest.mark.parametrize(
    ('error', 'number'),
    [
        (ValueError("... os_error_code='28' ..."), errno.ENOSPC),
        (RuntimeError('write() failed: No space left on device; writing x'), errno.ENOSPC),
        (RuntimeError('Disk quota exceeded'), errno.EDQUOT),
        (OSError('Forbidden: https://... 403'), errno.EIO),
        (FileNotFoundError('gs://b/x'), errno.ENOENT),
        (OSError(errno.EMFILE, 'Too many open files'), errno.EMFILE),
        (HttpError('503'), errno.EIO),
        (ValueError('UNKNOWN: Error opening "zarr3" driver: Error reading gs://b/x/manifest.ocdbt: '
                    'CURL error Weird server reply: Invalid status line [x=1]'), errno.EIO),
        (ValueError('UNAVAILABLE: All retry attempts failed: Error writing "gs://b/x": \n CURL '
                    "error Couldn't connect to server"), errno.EIO),
        (ValueError('ABORTED: Error reading gs://b/x: HTTP response code: 503'), errno.EIO),
        (ValueError('PERMISSION_DENIED: Error writing "gs://b/x"'), errno.EIO),
    ],
)  # fmt: skip
def test_every_failure_from_outside_becomes_one_kind_of_error(error, number):
    with pytest.raises(OSError, match='the/path') as raised, failures.named_errors('the/path'):
        raise error
    assert raised.value.errno == number and number in failures.OUTSIDE
    for text in ('Invalid status line', "Couldn't connect", 'HTTP response code: 503'):
        assert text not in str(error) or text in str(raised.value)
    assert 'zarr3' not in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'error',
    [
        *(ValueError('train.rows=3'), KeyError('a'), KeyboardInterrupt()),
        ValueError('NOT_FOUND: Error reading gs://b/x: HTTP response code: 404'),
        ValueError('DATA_LOSS: Error reading gs://b/x: CRC-32C checksum mismatch'),
    ],
)
def test_other_errors_go_on_as_they_are(error):
    with pytest.raises(type(error)) as raised, failures.named_errors('the/path'):
        raise error
    assert raised.value is error
