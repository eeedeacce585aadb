"""TensorBoard's files can neither stop nor delay a run, whatever disk or bucket do."""

import errno
import struct
import threading
import time

import pytest
from etils import epath
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2

from elenchus.data.files import atomic
from elenchus.train.metrics import event_files, writers
from tests.support import full_disk


@pytest.fixture(autouse=True)
def unwarned(monkeypatch):
    """Every test starts without the one warning of a process."""
    monkeypatch.setattr(event_files, '_warned', [])


def masked(content: bytes) -> int:
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events_of(content: bytes) -> list[event_pb2.Event]:
    """Parses an event file as TensorBoard does: every checksum must be right."""
    events = []
    while content:
        (length, length_crc) = struct.unpack('<QI', content[:12])
        body, (body_crc,) = (
            content[12 : 12 + length],
            struct.unpack('<I', content[12 + length :][:4]),
        )
        assert (masked(content[:8]), masked(body)) == (length_crc, body_crc)
        events.append(event_pb2.Event.FromString(body))
        content = content[16 + length :]
    return events


def scalars(content: bytes) -> list[tuple[int, dict[str, float]]]:
    head, *rows = events_of(content)
    assert head.file_version == 'brain.Event:2'
    return [
        (e.step, {v.tag: v.simple_value for v in e.summary.value})
        for e in rows
        if e.HasField('summary')
    ]


def disk_files(folder) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_the_scalars_of_every_step_are_read_back(tmp_path):
    file = event_files.EventFile(tmp_path / 'board', purge_step=3)
    file.write(3, {'loss/a': 0.5, 'loss/b': 2.0})
    file.write(4, {'loss/a': 0.25})
    file.close()
    (content,) = disk_files(tmp_path / 'board')
    assert scalars(content) == [(3, {'loss/a': 0.5, 'loss/b': 2.0}), (4, {'loss/a': 0.25})]
    assert events_of(content)[1].session_log.status == event_pb2.SessionLog.START
    assert events_of(content)[1].step == 3


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize('num_bytes', [0, 7, 60, 150, 333])
def test_a_disk_that_fails_at_any_byte_costs_rows_only(
    tmp_path, monkeypatch, capsys, num_bytes, number
):
    budget = full_disk.limit_bytes(monkeypatch, num_bytes, number=number)
    file = event_files.EventFile(tmp_path / 'board')
    for step in range(8):
        file.write(step, {'loss': step})
    budget.remaining = float('inf')  # somebody makes room
    file.write(8, {'loss': 8})
    file.close()
    (content,) = disk_files(tmp_path / 'board')
    steps = [step for step, _ in scalars(content)]
    assert steps[-1] == 8 and steps == sorted(set(steps)) and len(steps) < 9
    assert capsys.readouterr().err.count('warning') == 1


def test_a_real_full_disk_costs_rows_only(tmp_path, capsys):
    with full_disk.small_disk(tmp_path / 'disk', kilobytes=8) as disk:
        file = event_files.EventFile(disk / 'board')
        for step in range(300):
            file.write(step, {'loss': step})
        file.close()
        assert 10 < len(scalars(disk_files(disk / 'board')[0])) < 300
    assert capsys.readouterr().err.count('warning') == 1


class Bucket:
    """Stand-in for a bucket: objects in memory, and what the next uploads raise."""

    def __init__(self, monkeypatch):
        self.objects, self.errors, self.block = {}, [], threading.Event()
        self.block.set()
        self.uploads = 0
        monkeypatch.setattr(atomic, 'write_bytes', self.write)
        monkeypatch.setattr(event_files, 'UPLOAD_S', 0.01)
        monkeypatch.setattr(event_files, 'CLOSE_S', 0.5)

    def write(self, path: epath.Path, content: bytes) -> None:
        """Takes the place of `atomic.write_bytes`."""
        self.uploads += 1
        self.block.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.objects[path.name] = content

    def wait_for(self, uploads: int) -> None:
        """Waits until so many uploads have been tried."""
        end = time.monotonic() + 10
        while self.uploads < uploads and time.monotonic() < end:
            time.sleep(0.005)
        assert self.uploads >= uploads

    def rows(self) -> list:
        """Returns the rows of all objects in the order of their names."""
        return [row for _, content in sorted(self.objects.items()) for row in scalars(content)]


class HttpError(Exception):
    """An exception of a client that is no OSError."""


@pytest.mark.parametrize(
    'error',
    [HttpError('503'), OSError('Forbidden: 403'), FileExistsError('412'), ConnectionError('reset')],
)
def test_a_bucket_that_fails_once_loses_no_row_and_warns_once(monkeypatch, capsys, error):
    bucket = Bucket(monkeypatch)
    bucket.errors += [error, error]
    file = event_files.EventFile('gs://bucket/board')
    for step in range(5):
        file.write(step, {'loss': step})
    bucket.wait_for(3)
    file.write(5, {'loss': 5})
    file.close()
    assert [step for step, _ in bucket.rows()] == list(range(6))
    assert capsys.readouterr().err.count('warning') == 1


def test_a_bucket_that_never_answers_delays_nobody(monkeypatch, tmp_path):
    bucket = Bucket(monkeypatch)
    bucket.block.clear()
    monkeypatch.setattr(event_files, 'PENDING_BYTES', 1000)
    file = event_files.EventFile('gs://bucket/board')
    start = time.monotonic()
    for step in range(2000):
        file.write(step, {'loss': step})
    file.close()
    assert time.monotonic() - start < 5
    bucket.block.set()


def test_a_stage_goes_on_when_only_tensorboard_fails(tmp_path, capsys):
    (tmp_path / 'board').write_text('a file where the folder should be')
    with writers.Writer(tmp_path / 'stage', tensorboard=tmp_path / 'board') as writer:
        for step in range(50):
            writer.write(step, {'loss': step})
    assert len(writers.read_rows(tmp_path / 'stage' / writers.METRICS)) == 50
    assert capsys.readouterr().err.count('warning') == 1
