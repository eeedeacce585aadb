"""A launch on two local hosts through a stand-in for gcloud, from the request to the deletion."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.multi_process import TINY, free_port

ROOT = pathlib.Path(__file__).parents[3]
STAGES = "--config.stages=('base', 'actor', 'critique', 'critic', 'evaluate')"


class Cloud:
    """The stand-in, in a folder."""

    def __init__(self, folder):
        self.folder = folder / 'cloud'
        self.folder.mkdir()
        (self.folder / 'port').write_text(str(free_port()))
        binaries = folder / 'bin'
        binaries.mkdir()
        program = binaries / 'gcloud'
        stand_in = ROOT / 'tests' / 'support' / 'gcloud_stand_in.py'
        program.write_text(f'#!/bin/bash\nexec {sys.executable} {stand_in} "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            'PATH': f'{binaries}:{os.environ["PATH"]}',
            'GCLOUD_STAND_IN': str(self.folder),
            'ELENCHUS_ENVIRONMENT': sys.prefix,
            'ELENCHUS_LAUNCHES': str(folder / 'launches'),
            'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
        }

    def launch(self, *words):
        """Runs tpu.sh."""
        command = ['bash', str(ROOT / 'scripts' / 'launch' / 'tpu.sh'), *words]
        with open(self.folder / 'launcher.log', 'a', encoding='utf-8') as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def commands(self, word):
        """Lines of the stand-in's log with a word."""
        lines = (self.folder / 'log').read_text().splitlines()
        return [line for line in lines if word in line]

    def preempt(self):
        """Notice, half a minute in small, and the end of the machines."""
        paths = list(self.folder.glob('hosts/*/.elenchus/pod/*/child'))
        for path in paths:
            os.kill(int(path.read_text()), signal.SIGTERM)
        wait(lambda: all((path.parent / 'exit_code').exists() for path in paths), 120)
        codes = [(path.parent / 'exit_code').read_text().strip() for path in paths]
        (self.folder / 'state').write_text('SUSPENDED')
        shutil.rmtree(self.folder / 'hosts')
        return codes


def wait(condition, seconds):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.1)


@pytest.mark.slow
def test_install_run_preempt_resume_fetch_delete(tmp_path):
    cloud, workdir = Cloud(tmp_path), tmp_path / 'run'
    flags = [f for f in TINY if not f.startswith('--config.stages')]
    keep = ['keep', '--name=pod', '--zone=z', '--poll=1', '--tree=dirty', '--']
    process = cloud.launch(*keep, *flags, STAGES, f'--workdir={workdir}')
    try:
        wait(
            lambda: process.poll() is not None or list(workdir.glob('stages/00-base/summary.json')),
            400,
        )
        assert process.poll() is None, (cloud.folder / 'launcher.log').read_text()
        assert cloud.preempt() == ['75', '75']
        assert process.wait(timeout=400) == 0, (cloud.folder / 'launcher.log').read_text()
    finally:
        process.kill()
        process.wait()
        for path in cloud.folder.glob('hosts/*/.elenchus/pod/*/child'):
            os.kill(int(path.read_text()), signal.SIGKILL)
    assert len(cloud.commands('queued-resources create')) == 2
    assert len(cloud.commands('queued-resources delete')) == 2
    assert not (cloud.folder / 'state').exists() and not (cloud.folder / 'hosts').exists()
    into = tmp_path / 'fetched'
    assert cloud.launch('fetch', f'--workdir={workdir}', f'--into={into}').wait(60) == 0
    assert list(into.glob('stages/*-evaluate/summary.json')) and not list(into.rglob('checkpoints'))
