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
        self.launcher = ROOT / 'scripts' / 'launch' / 'tpu.sh'
        self.processes = []
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
            'PYTHONPATH': f'{ROOT}:{os.environ.get("PYTHONPATH", "")}',
            'CURL_ON_DELETE': f'{program} compute tpus queued-resources delete pod',
        }
        curl = binaries / 'curl'
        stand_in = ROOT / 'tests' / 'support' / 'curl_stand_in.py'
        curl.write_text(f'#!/bin/bash\nexec {sys.executable} -S {stand_in} "$@"\n')
        curl.chmod(0o755)

    def install_for_real(self):
        """Lets hosts make their own environment, by pip as it is set up here."""
        del self.environment['ELENCHUS_ENVIRONMENT'], self.environment['PYTHONPATH']

    def modules(self):
        """Files of two modules that each host's own Python imports, one of ours and JAX."""
        code = 'import elenchus.model.transformer as t, jax; print(t.__file__, jax.__file__)'
        return {
            host: subprocess.check_output(
                [host / 'elenchus/.venv/bin/python', '-c', code],
                cwd=host,
                env=self.environment,
                text=True,
            ).split()
            for host in (self.folder / 'hosts').iterdir()
        }

    def launch(self, *words):
        """Runs tpu.sh."""
        command = ['bash', str(self.launcher), *words]
        with open(self.folder / 'launcher.log', 'a', encoding='utf-8') as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def end(self):
        """Ends all launchers, and the slice with what runs on it."""
        for process in self.processes:
            process.kill()
            process.wait()
        words = self.environment['CURL_ON_DELETE'].split()
        subprocess.run(words, env=self.environment, stderr=subprocess.DEVNULL, check=False)

    def commands(self, word):
        """Lines of the stand-in's log with a word."""
        lines = (self.folder / 'log').read_text().splitlines()
        return [line for line in lines if word in line]

    def preempt(self):
        """Notice, half a minute in small, and the end of the machines."""
        paths = list(self.folder.glob('hosts/*/.elenchus/pod/*/child'))
        for path in paths:
            os.kill(int(path.read_text()), signal.SIGTERM)
        wait(lambda: all((path.parent / 'exit_code').exists() for path in paths), 300)
        codes = [(path.parent / 'exit_code').read_text().strip() for path in paths]
        for path in self.folder.glob('hosts/*/guard.process'):
            os.killpg(int(path.read_text()), signal.SIGKILL)
        (self.folder / 'state').write_text('SUSPENDED')
        shutil.rmtree(self.folder / 'hosts', ignore_errors=True)  # the launcher deletes it too
        return codes

    def use_task(self, text):
        """Puts a program in the place of scripts.run, so that a run takes no minutes."""
        python = self.folder / 'environment' / 'bin' / 'python'
        python.parent.mkdir(parents=True)
        python.write_text(f'#!{sys.executable}\n{text}')
        python.chmod(0o755)
        self.environment['ELENCHUS_ENVIRONMENT'] = str(python.parents[1])

    def log(self):
        """What the launcher printed."""
        return (self.folder / 'launcher.log').read_text()

    def is_gone(self):
        """Whether nothing is left that is billed, nor a process of it."""
        return not (self.folder / 'state').exists() and not (self.folder / 'hosts').exists()


@pytest.fixture
def cloud(tmp_path):
    """A cloud that leaves nothing running."""
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.end()


def wait(condition, seconds):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize('is_fresh', [False, True], ids=['this environment', 'fresh roots'])
def test_install_run_preempt_resume_fetch_delete(cloud, tmp_path, is_fresh):
    """In fresh roots all hosts install from the lock files, after the preemption again.

    Without network: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER, with the wheels of requirements.lock and
    scripts/locks/{build,tpu,gcs}.lock by `pip download --no-deps`.
    """
    if is_fresh:
        cloud.install_for_real()
    workdir = tmp_path / 'run'
    flags = [f for f in TINY if not f.startswith('--config.stages')]
    keep = ['keep', '--name=pod', '--zone=z', '--poll=1', '--tree=dirty', '--']
    process = cloud.launch(*keep, *flags, STAGES, f'--workdir={workdir}')
    wait(
        lambda: process.poll() is not None or list(workdir.glob('stages/00-base/summary.json')),
        900,
    )
    assert process.poll() is None, cloud.log()
    if is_fresh:
        places = cloud.modules()
        assert len(places) == 2
        assert all(f.startswith(f'{host}/') for host, files in places.items() for f in files)
    assert cloud.preempt() == ['75', '75']
    assert process.wait(timeout=900) == 0, cloud.log()
    assert len(cloud.commands('queued-resources create')) == 2
    assert len(cloud.commands('queued-resources delete')) == 2
    assert cloud.is_gone()
    into = tmp_path / 'fetched'
    assert cloud.launch('fetch', f'--workdir=gs://{workdir}', f'--into={into}').wait(240) == 0
    assert list(into.glob('stages/*-evaluate/summary.json')) and not list(into.rglob('checkpoints'))


TASK = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('saves', flush=True), os._exit(75)))
(pathlib.Path(os.environ['HOME']) / 'started').touch()
print('works', flush=True)
time.sleep(SECONDS)
sys.exit(CODE)
"""
KEEP = ['keep', '--name=pod', '--zone=z', '--poll=1', '--tree=dirty']
RUN = ['--', '--config=configs/lab.py', '--workdir=gs://bucket/run']


def kill_laptop(cloud, *flags):
    """Starts `keep` and kills it once the run is on both hosts."""
    process = cloud.launch(*KEEP, *flags, *RUN)
    wait(
        lambda: process.poll() is not None or len(list(cloud.folder.glob('hosts/*/started'))) == 2,
        240,
    )
    assert process.poll() is None, cloud.log()
    process.kill()
    process.wait()


@pytest.mark.parametrize(('seconds', 'exit_code', 'code'), [(600, 0, 124), (2, 0, 0), (2, 2, 2)])
@pytest.mark.slow
def test_a_slice_whose_laptop_is_dead_is_deleted_and_its_end_is_known(
    cloud, seconds, exit_code, code
):
    cloud.use_task(TASK.replace('SECONDS', str(seconds)).replace('CODE', str(exit_code)))
    # A host looks at the budget every ten seconds; the guard waits five minutes otherwise.
    guard = {'GRACE': '30', 'IDLE': '3', 'POLL': '1'}
    cloud.environment |= {f'ELENCHUS_GUARD_{name}': value for name, value in guard.items()}
    cloud.environment['ELENCHUS_GRACE'] = '2'
    kill_laptop(cloud)
    if code == 124:
        for home in (cloud.folder / 'hosts').iterdir():  # what the last look said, hours ago
            (home / '.elenchus' / 'pod' / 'deadline').write_text(f'{time.time():.0f}')
    wait(cloud.is_gone, 240)
    logs = [path.read_text() for path in cloud.folder.glob('bucket/bucket/run/launch/pod/*.log')]
    assert logs and 'works' in logs[0]
    assert ('saves' in logs[0]) == (code == 124)
    again = cloud.launch(*KEEP, *RUN)
    assert again.wait(240) == code, cloud.log()
    assert len(cloud.commands('queued-resources create')) == 1 and cloud.is_gone()


@pytest.mark.slow
def test_after_a_new_commit_keep_goes_on_with_its_run(cloud, tmp_path):
    cloud.use_task(TASK.replace('SECONDS', '600').replace('CODE', '0'))
    clone = tmp_path / 'clone'
    git = ['git', '-C', str(clone), '-c', 'user.name=x', '-c', 'user.email=x@x']
    subprocess.run(['git', 'clone', '-q', ROOT, clone], check=True)
    shutil.copytree(ROOT / 'scripts', clone / 'scripts', dirs_exist_ok=True)

    def commit():
        for words in (['add', '.'], ['commit', '-q', '--allow-empty', '-m', 'x']):
            subprocess.run([*git, *words], check=True)
        return subprocess.check_output([*git, 'rev-parse', 'HEAD'], text=True)[:12]

    cloud.launcher = clone / 'scripts' / 'launch' / 'tpu.sh'
    flags = ['--tree=head', '--max_hours=1']
    first = commit()
    kill_laptop(cloud, *flags)
    second = commit()
    children = {path: path.read_text() for path in cloud.folder.glob('hosts/*/.elenchus/*/*/child')}
    assert len(children) == 2
    process = cloud.launch(*KEEP, *flags, *RUN)
    wait(lambda: f'began with commit {first}' in cloud.log(), 240)
    wait(lambda: f'running: commit {first}' in cloud.log().rpartition('began with')[2], 240)
    assert f'the clone is at {second}' in cloud.log() and process.poll() is None, cloud.log()
    for action in ('status', 'logs', 'cost'):
        assert cloud.launch(action, '--name=pod', '--zone=z').wait(240) == 0
    assert (
        f'commit {first}' in cloud.log().rpartition('machines ready')[2] and 'works' in cloud.log()
    )
    assert {path: path.read_text() for path in children} == children
    process.kill()
    process.wait()
    process = cloud.launch(*KEEP, '--update=yes', *flags, *RUN)
    wait(lambda: f'running: commit {second}' in cloud.log(), 240)
    assert all(path.read_text() != child for path, child in children.items())
    process.kill()
    process.wait()
    assert cloud.launch('delete', '--name=pod', '--zone=z').wait(240) == 0 and cloud.is_gone()
    assert len(cloud.commands('queued-resources create')) == 1
