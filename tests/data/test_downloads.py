"""A public set that cannot be downloaded is one line that names the set and the way out."""

import errno
import urllib.error

import pytest
import requests
import tensorflow_datasets as tfds
import urllib3

from elenchus.data.problems import downloads, loading, mixing
from elenchus.scripts.tools import check_verifier, show_tokens
from elenchus.train.benchmarks import problem_sets
from elenchus.train.run import problems

HOST = 'raw.githubusercontent.com'
NO_NAME = urllib3.exceptions.NameResolutionError(HOST, object(), OSError(-3, 'no such host'))
FAILURES = {
    'no name server': requests.ConnectionError(
        urllib3.exceptions.MaxRetryError(object(), f'https://{HOST}', reason=NO_NAME)
    ),
    'a proxy': requests.exceptions.ProxyError('Tunnel connection failed: 403'),
    'a timeout': requests.exceptions.ReadTimeout('read timed out'),
    'gone': tfds.download.DownloadError('Failed to get url https://x. HTTP code: 404.'),
    'urllib': urllib.error.URLError('no route'),
    'refused': ConnectionRefusedError(errno.ECONNREFUSED, 'Connection refused'),
}


@pytest.fixture
def failing(monkeypatch):
    """Returns a function that makes every download raise an exception."""

    def fail_with(error):
        def download(*_):
            raise error

        monkeypatch.setattr(tfds.download.DownloadManager, 'download', download)

    return fail_with


@pytest.mark.parametrize('failure', FAILURES)
def test_every_failure_names_the_set_its_host_and_its_files(failure, failing, tmp_path):
    failing(FAILURES[failure])
    with pytest.raises(downloads.DownloadError) as raised:
        loading.load('gsm8k', split='test', data_dir=tmp_path)
    text = str(raised.value)
    assert text.startswith(f'gsm8k cannot be downloaded from {HOST} (')
    assert 'put train.jsonl and test.jsonl into a folder' in text
    assert ' object at 0x' not in text and '\n' not in text


def test_a_full_disk_is_no_failed_download(failing, tmp_path):
    failing(OSError(errno.ENOSPC, 'No space left on device'))
    with pytest.raises(OSError, match='No space left'):
        loading.load('asdiv', split='test', data_dir=tmp_path)


def mix(tmp_path):
    limits = mixing.Limits(400, 280, True)
    mixing.mix({'asdiv': 1}, {}, folders={}, data_dir=str(tmp_path), limits=limits, seed=0)


def read_set(tmp_path):
    problem_sets.read_set('asdiv', data_dir=str(tmp_path), num_problems=1, form='tail')


@pytest.mark.parametrize(
    'command, setting', [(mix, '--sets=FOLDER, as FOLDER/asdiv,'), (read_set, '--data=asdiv=')]
)
def test_commands_name_their_setting(command, setting, failing, tmp_path):
    failing(FAILURES['no name server'])
    with pytest.raises(downloads.DownloadError, match=f'into a folder that {setting}.* names$'):
        command(tmp_path)


def test_no_command_loads_a_set_without_naming_its_setting():
    for module in (check_verifier, show_tokens, mixing, problem_sets, problems):
        source = module.__loader__.get_source(module.__name__)
        assert source.count('loading.load(') == source.count('downloads.without_network(') == 1
