"""guard.sh: the hosts of a slice delete it when the machine that runs `keep` is off."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from elenchus.scripts.launch import remote
from elenchus.scripts.launch.states import Resource, Run

ROOT = pathlib.Path(__file__).parents[3]
STAND_IN = ROOT / 'tests' / 'support' / 'curl_stand_in.py'
SETTINGS = (
    "NAME=pod ZONE=z PROJECT={project} WORKDIR='gs://bucket/a run' AFTER={after} BUDGET={budget}"
)
NAME = os.uname().nodename


class Host:
    """A host with the guard on it; `home` is that of its user."""

    def __init__(self, folder):
        self.folder, self.home = folder, folder / 'home'
        self.run = self.home / '.elenchus' / 'pod' / NAME
        (folder / 'bin').mkdir()
        self.run.mkdir(parents=True)
        curl = folder / 'bin' / 'curl'
        curl.write_text(f'#!/bin/bash\nexec {sys.executable} -S {STAND_IN} "$@"\n')
        curl.chmod(0o755)
        self.allow('tpu.nodes.delete')
        self.process = None

    def allow(self, *permissions):
        (self.folder / 'permissions').write_text('\n'.join(permissions))

    def start(self, *, budget=1000, after='delete', project='p', **seconds):
        """Starts the guard; `grace`, `idle`, `unused` in seconds."""
        script = self.folder / 'startup.sh'
        settings = SETTINGS.format(budget=budget, after=after, project=project)
        text = (ROOT / 'scripts' / 'launch' / 'guard.sh').read_text()
        script.write_text(f'#!/usr/bin/env bash\n{settings}\n{text}')
        environment = {
            **os.environ,
            'PATH': f'{self.folder}/bin:{os.environ["PATH"]}',
            'CURL_STAND_IN': str(self.folder),
            'ELENCHUS_GUARD': str(self.folder / 'guard'),
            'ELENCHUS_HOMES': f'{self.home} {self.folder}/nobody',
            'ELENCHUS_GUARD_POLL': '0.2',
            **{f'ELENCHUS_GUARD_{name.upper()}': str(n) for name, n in seconds.items()},
        }
        self.process = subprocess.Popen(
            ['bash', str(script)],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )

    def write(self, name, text='', *, age=0):
        """Writes a file of the run, so many seconds ago."""
        folder = self.run.parent if name in ('deadline', 'watched') else self.run
        path = folder / name
        path.write_text(text or str(int(time.time() - age)))
        os.utime(path, (time.time() - age,) * 2)

    def wait(self, name='deleted', seconds=15):
        """Waits for a file of the stand-in; returns its text."""
        end = time.monotonic() + seconds
        while not (self.folder / name).exists():
            assert time.monotonic() < end, (self.folder / 'log').read_text()
            time.sleep(0.05)
        return (self.folder / name).read_text()

    def stays(self, seconds=0.8):
        """Whether nothing is deleted for a while."""
        self.wait('guard/may_delete')
        time.sleep(seconds)
        return not (self.folder / 'deleted').exists()


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    os.killpg(host.process.pid, signal.SIGKILL)
    host.process.wait()


def test_the_slice_is_deleted_after_the_budget_with_the_log_in_the_bucket(host):
    for name, text in {
        'key': 'k',
        'version': 'abc-1',
        'log': 'its log',
        'exit_code': '124',
    }.items():
        host.write(name, text)
    host.start(budget=0, after='leave', grace=0)
    address = 'https://tpu.googleapis.com/v2/projects/p/locations/z/queuedResources/pod?force=true'
    assert host.wait() == address
    there = host.folder / 'bucket' / 'bucket' / 'a run' / 'launch' / 'pod'
    assert (there / f'{NAME}.log').read_text() == 'its log'
    end = (there / f'{NAME}.end').read_text()
    seen = remote.observe_end(end, since=time.time() - 60, workdir='gs://bucket/a run')
    assert (seen.resource, seen.run, seen.exit_code) == (Resource.ABSENT, Run.ENDED, 124)
    assert seen.since <= seen.at <= time.time() + 1
    later = remote.observe_end(end, since=time.time() + 60, workdir='gs://b/x')
    assert (later.run, later.at) == (Run.ABSENT, None)  # of machines that were requested before


def test_the_budget_that_keep_wrote_last_counts(host):
    host.write('deadline', str(int(time.time()) + 1000))
    host.start(budget=0, grace=0)
    assert host.stays()
    host.write('deadline', str(int(time.time()) - 1))
    host.wait()


@pytest.mark.parametrize(
    ('files', 'after', 'deleted'),
    [
        ({'key': 0, 'exit_code': 100}, 'delete', True),
        ({'key': 0, 'exit_code': 100}, 'leave', False),
        ({'key': 0, 'exit_code': 100, 'watched': 1}, 'delete', False),  # `keep` looks
        ({'key': 0, 'exit_code': 1, 'watched': 100}, 'delete', False),  # it has only just ended
        ({'key': 100, 'watched': 100}, 'delete', False),  # it runs
        ({}, 'delete', False),  # the slice has only just come up
        ({'watched': 500}, 'delete', True),  # it never had a run
    ],
)
def test_what_nobody_watches_is_deleted(host, files, after, deleted):
    for name, age in files.items():
        host.write(name, '0' if name == 'exit_code' else '', age=age)
    (host.folder / 'guard').mkdir()
    began = 0 if not files else 1000
    (host.folder / 'guard' / 'began').write_text(str(int(time.time()) - began))
    host.start(budget=10**6, after=after, idle=50, unused=400)
    if deleted:
        host.wait()
    else:
        assert host.stays()


def test_hosts_that_may_not_delete_say_so_and_go_on_trying(host):
    host.allow()
    host.start(budget=0, grace=0, project='')
    assert host.wait('guard/may_delete') == 'no\n'
    command = remote.status_command('nowhere', 'pod', 'key', budget=None)
    output = subprocess.check_output(
        ['bash', '-c', command],
        env={**os.environ, 'HOME': str(host.home), 'ELENCHUS_GUARD': str(host.folder / 'guard')},
        text=True,
    )
    assert f'{remote.GUARD} no\n' in output
    call, end = 'DELETE https://tpu.googleapis.com/v2/projects/p/', time.monotonic() + 15
    while (host.folder / 'log').read_text().count(call) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    host.allow('tpu.nodes.delete')
    host.wait()
