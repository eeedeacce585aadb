"""Files of lines that grow: whole lines on a full disk, numbered objects in a bucket."""

import errno
import itertools

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from elenchus.data.files import atomic
from elenchus.train.metrics import growing_files, writers
from tests.support import full_disk


@pytest.fixture
def bucket(monkeypatch):
    """A folder of a bucket: gs:// with a file system in memory in the place of the network."""
    memory = fsspec.filesystem('memory')
    monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', lambda _: memory)
    folder = epath.Path(f'gs://bucket/{next(_numbers)}')
    yield folder
    memory.store.clear()


_numbers = itertools.count()


@pytest.mark.parametrize('num_bytes', range(0, 40, 3))
def test_a_row_is_written_whole_or_not_at_all(tmp_path, monkeypatch, num_bytes):
    budget = full_disk.limit_bytes(monkeypatch, num_bytes)
    file = growing_files.GrowingFile(tmp_path / 'rows')
    with pytest.raises(OSError, match='rows') as raised:
        for number in range(8):
            file.append(f'{number:04d}\n')
    assert raised.value.errno == errno.ENOSPC
    complete = [f'{number:04d}\n' for number in range(num_bytes // 5)]
    assert (tmp_path / 'rows').read_text() == ''.join(complete)
    budget.remaining = float('inf')
    file.append('next\n')
    assert growing_files.read_lines(tmp_path / 'rows') == [*complete, 'next\n']


def test_an_incomplete_last_line_of_a_killed_process_is_cut_off(tmp_path):
    (tmp_path / 'rows').write_text('1\n2\n{"ste')
    growing_files.GrowingFile(tmp_path / 'rows').append('3\n')
    assert (tmp_path / 'rows').read_text() == '1\n2\n3\n'


def test_a_bucket_uploads_every_row_about_once(bucket, monkeypatch):
    uploads = []
    write = atomic.write_text
    monkeypatch.setattr(
        atomic, 'write_text', lambda p, text: (uploads.append(text), write(p, text))
    )
    file = growing_files.GrowingFile(bucket / 'rows')
    for number in range(500):
        file.append(f'{number}\n')
        if number % 50 == 49:
            file.flush()
    lines = [f'{number}\n' for number in range(500)]
    assert growing_files.read_lines(bucket / 'rows') == lines
    assert sum(map(len, uploads)) == sum(map(len, lines)) and len(uploads) == 10
    file.close()
    assert [path.name for path in bucket.iterdir()] == ['rows']
    assert (bucket / 'rows').read_text() == ''.join(lines)


def test_rows_wait_in_memory_for_at_most_a_segment(bucket, monkeypatch):
    monkeypatch.setattr(growing_files, 'SEGMENT_S', -1)
    file = growing_files.GrowingFile(bucket / 'rows')
    file.append('1\n')
    file.append('2\n')
    assert growing_files.read_lines(bucket / 'rows') == ['1\n', '2\n']


def test_a_bucket_that_fails_for_a_while_loses_no_row(bucket, monkeypatch):
    monkeypatch.setattr(growing_files, 'SEGMENT_S', -1)
    write, fails = atomic.write_text, [True]

    def write_or_fail(path, text):
        if fails[0]:
            raise OSError(errno.EIO, '503')
        write(path, text)

    monkeypatch.setattr(atomic, 'write_text', write_or_fail)
    file = growing_files.GrowingFile(bucket / 'rows')
    file.append('1\n')
    with pytest.raises(OSError, match='503'):
        file.flush()
    fails[0] = False
    file.append('2\n')
    file.close()
    assert growing_files.read_lines(bucket / 'rows') == ['1\n', '2\n']


@pytest.mark.parametrize('kept', [-1, 0, 3, 4, 7, 9])
@pytest.mark.parametrize('survivors', [0, 1, 2])
def test_a_run_that_is_killed_at_any_moment_has_each_row_once(bucket, kept, survivors):
    """Killed between two flushes, and again while the objects were merged."""

    def written(writer, steps):
        for step in steps:
            writer.write(step, {'loss': step})
            if step % 3 == 2:
                writer.sync()

    writer = writers.Writer(bucket / 'stage', tensorboard='/nonexistent/board')
    written(writer, range(10))  # rows to 8 are in the bucket
    writer = writers.Writer(bucket / 'stage', tensorboard='/nonexistent/board')
    path = bucket / 'stage' / writers.METRICS
    segments = growing_files._segments(path)
    before = {segment: segment.read_text() for segment in segments}
    writer.truncate(kept)
    for segment in segments[len(segments) - survivors :] if survivors else ():
        segment.write_text(before[segment])  # the kill came before it was deleted
    writer = writers.Writer(bucket / 'stage', tensorboard='/nonexistent/board')
    writer.truncate(kept)
    first = min(kept, 8) + 1
    written(writer, range(first, 12))
    writer.close()
    assert [row['step'] for row in writers.read_rows(path)] == list(range(12))
