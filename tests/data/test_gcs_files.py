"""gs:// against a server with faults: a retry or an error with a path, and never half an object."""

import contextlib
import errno
import gc
import http.client
import json
import os
import threading
import time

import pytest
from etils import epath

from elenchus.data.files import atomic, failures

fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)

ALWAYS = float('inf')
SMALL, LARGE = b'new', os.urandom(3 << 20)


@pytest.fixture
def fake():
    """A server with an empty bucket, which the clients of this process use."""
    with fake_gcs.in_this_process() as server:
        yield server


def test_after_an_answer_without_a_body_the_connection_is_as_it_was():
    """Clients read no body of 304 and 204: what is sent is taken for the next answer."""
    with fake_gcs.FakeGcs('bucket') as server:
        connection = http.client.HTTPConnection(server.url.removeprefix('http://'))

        def answer(method, path, body=None):
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()

        with contextlib.closing(connection):
            upload = '/upload/storage/v1/b/bucket/o?uploadType=media&name=x'
            generation = json.loads(answer('POST', upload, b'1')[1])['generation']
            place = '/storage/v1/b/bucket/o/x'
            for _ in range(3):
                unchanged = answer('GET', f'{place}?ifGenerationNotMatch={generation}')
                assert unchanged == (304, b'')
                assert answer('GET', f'{place}?alt=media') == (200, b'1')
            assert answer('DELETE', place) == (204, b'')
            status, text = answer('GET', place)
            assert status == json.loads(text)['error']['code'] == 404


PASSING = [
    ('write', 'status', {'status': 503, 'times': 2}),
    ('write', 'status', {'status': 429, 'times': 3}),
    ('write', 'status', {'status': 500}),
    ('write', 'status', {'status': 408}),
    ('write', 'status', {'status': 401, 'times': 2}),  # a token that expired is fetched again
    ('write', 'reset', {'times': 2}),
    ('write', 'lost', {}),
    ('write', 'cut', {}),
    ('write', 'slow', {'seconds': 0.3}),
]
LASTING = [
    ('write', 'status', {'status': 503}, errno.EIO),
    ('write', 'status', {'status': 429}, errno.EIO),
    ('write', 'status', {'status': 400}, errno.EIO),
    ('write', 'status', {'status': 401}, errno.EACCES),
    ('write', 'status', {'status': 403}, errno.EACCES),
    ('write', 'status', {'status': 404}, errno.ENOENT),
    ('write', 'status', {'status': 412}, errno.EEXIST),
    ('write', 'reset', {}, errno.EIO),
    ('write', 'lost', {}, errno.EIO),
]


@pytest.mark.parametrize(('operation', 'kind', 'options'), PASSING)
def test_a_write_is_repeated_after_a_fault_that_passes(fake, operation, kind, options):
    path = epath.Path('gs://bucket/run/file')
    content = LARGE if kind == 'reset' else SMALL
    fake.objects.put('run/file', b'old')
    fake.fail(f'{operation} bucket/run/file', kind, **options)
    atomic.write_bytes(path, content)
    assert fake.objects.content('run/file') == content == path.read_bytes()
    assert fake.objects.names() == ['run/file']


@pytest.mark.parametrize(('operation', 'kind', 'options', 'number'), LASTING)
def test_a_write_that_fails_is_named_and_leaves_no_half_object(
    fake, operation, kind, options, number
):
    content = LARGE if kind == 'reset' else SMALL
    fake.objects.put('run/file', b'old')
    fake.fail(f'{operation} bucket/run/file', kind, times=ALWAYS, **options)
    with pytest.raises(OSError, match='gs://bucket/run/file') as raised:
        atomic.write_bytes('gs://bucket/run/file', content)
    assert raised.value.errno in {number, errno.ECONNRESET} & failures.OUTSIDE | {number}
    assert '\n' not in failures.describe(raised.value)
    whole = content if kind == 'lost' else b'old'
    assert fake.objects.content('run/file') == whole
    fake.faults.clear()
    fake.objects.put('run/file', b'of another')
    gc.collect()
    time.sleep(0.05)  # nothing goes on in the background
    assert fake.objects.content('run/file') == b'of another'


LOOKS = {
    'read': lambda path: path.read_bytes() == b'here',
    'exists': lambda path: path.exists(),
    'is_file': lambda path: path.is_file(),
    'is_dir': lambda path: path.parent.is_dir(),
    'stat': lambda path: path.stat().length == 4,
    'iterdir': lambda path: [p.name for p in path.parent.iterdir()] == ['file'],
    'glob': lambda path: [p.name for p in path.parent.glob('*')] == ['file'],
    'deep glob': lambda path: [p.name for p in path.parent.parent.glob('r*/f*')] == ['file'],
    'unlink': lambda path: path.unlink() is None,
    'rmtree': lambda path: path.parent.rmtree() is None,
}
EVERY = '^(info|list|read|delete) '


@pytest.mark.parametrize('look', LOOKS)
def test_a_look_is_repeated_after_a_fault_that_passes(fake, look):
    for kind in ('status', 'reset', 'cut'):
        fake.objects.put('run/file', b'here')
        fake.fail(EVERY, kind, times=2)
        assert LOOKS[look](epath.Path('gs://bucket/run/file'))


@pytest.mark.parametrize('look', LOOKS)
def test_no_answer_is_never_taken_for_no_file(fake, look):
    """In particular `is_file` and `is_dir`, which fsspec answers with no."""
    fake.objects.put('run/file', b'here')
    for status in (403, 503):
        fake.faults.clear()
        fake.fail(EVERY, status=status, times=ALWAYS)
        with pytest.raises(OSError, match=r'gs://bucket|run.file') as raised:
            LOOKS[look](epath.Path('gs://bucket/run/file'))
        assert raised.value.errno in failures.OUTSIDE


def test_what_others_write_and_delete_is_seen_at_once(fake):
    """Another host, or TensorStore, beside gcsfs; it would remember listings for ever."""
    folder = epath.Path('gs://bucket/run')
    fake.objects.put('run/a', b'1')
    assert [p.name for p in folder.iterdir()] == ['a'] and (folder / 'a').exists()
    fake.objects.put('run/b', b'22')
    assert [p.name for p in folder.iterdir()] == ['a', 'b']
    assert (folder / 'b').is_file() and not (folder / 'b').is_dir()
    assert len(list(folder.glob('*'))) == 2
    del fake.objects.buckets['bucket']['run/a']
    assert not (folder / 'a').exists() and not (folder / 'a').is_file()
    fake.objects.put('run/b', b'333')
    assert (folder / 'b').read_bytes() == b'333' and (folder / 'b').stat().length == 3


def test_long_listings_come_in_pages():
    with fake_gcs.in_this_process(page=3) as fake:
        names = [f'run/{i:02d}/file' for i in range(10)]
        for name in names:
            fake.objects.put(name, b'x')
        folder = epath.Path('gs://bucket/run')
        assert [p.name for p in folder.iterdir()] == [f'{i:02d}' for i in range(10)]
        assert len(list(folder.glob('*/file'))) == 10
        atomic.delete_tree(folder)
        assert fake.objects.names() == []


@pytest.mark.parametrize('end', [b'\r', b'\n', b'\r\n', b'\r\n--==0==--', b'\0', b''])
def test_every_last_byte_arrives(fake, end):
    """A body of several parts with line feeds would lose a carriage return."""
    path = epath.Path('gs://bucket/run/file')
    for content in (end, b'a' + end, end * 2, LARGE + end):
        atomic.write_bytes(path, content)
        assert fake.objects.content('run/file') == content == path.read_bytes()


def test_other_bytes_than_those_sent_are_an_error(fake, monkeypatch):
    store = type(fake.objects)._store
    monkeypatch.setattr(
        type(fake.objects), '_store', lambda s, b, n, c, **o: store(s, b, n, c[:-1], **o)
    )
    with pytest.raises(OSError, match='other bytes'):
        atomic.write_bytes('gs://bucket/run/file', b'content')


def test_names_with_any_character_are_written_and_read(fake):
    for name in ('a b', 'ä', 'a#1', 'a?generation=1', 'a%2Fb', "it's", 'x+y', '[1]'):
        path = epath.Path('gs://bucket/run') / name
        atomic.write_bytes(path, name.encode())
        assert path.read_bytes() == name.encode() and path.exists()
        assert f'run/{name}' in fake.objects.names()


def test_a_server_that_stops_answering_holds_nobody(fake, monkeypatch):
    """Neither a read nor a write waits for ever, as they would without limits."""
    from elenchus.data.files import gcs_files

    monkeypatch.setattr(gcs_files, 'ANSWER_S', 0.2)
    files = gcs_files.BucketFiles(skip_instance_cache=True)
    fake.objects.put('run/file', b'old')
    fake.fail('bucket/run/file', 'slow', seconds=60, times=ALWAYS)
    for action in (
        lambda: files.pipe_file('bucket/run/file', b'new'),
        lambda: files.info('bucket/run/file'),
    ):
        errors = []

        def run(action=action, errors=errors):
            try:
                action()
            except OSError as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(10)
        assert errors and errors[0].errno in failures.OUTSIDE
    assert fake.objects.content('run/file') == b'old'
