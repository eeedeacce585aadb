"""ssh.sh against machines on this one: stand-ins for ssh and scp, one home directory a machine."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from elenchus.scripts.launch import options, ssh
from elenchus.scripts.launch.cloud import CloudError, Refused, Unreachable
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.scripts.launch.states import Run

SSH = """#!/bin/bash
# The last word is the command, the one before it the machine; 255: it does not answer.
host="${@: -2:1}" command="${@: -1}"
ask() { echo "ssh: $host: $*" >&2; exit 255; }
[[ " $* " == *' BatchMode=yes '* && "${@: -3:1}" == -- ]] || ask asks for a password
host=${host#*@}
[[ -d $HOSTS/$host ]] || ask connect to port 22: No route to host
export HOME="$HOSTS/$host"
cd "$HOME" && exec bash -c "$command"
"""
SCP = """#!/bin/bash
to="${@: -1}" host="${to%%:*}"
[[ -d $HOSTS/${host#*@} ]] || exit 255
cp "${@: -2:1}" "$HOSTS/${host#*@}/"
"""
TASK = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path(os.environ['HOME'])
signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
(home / 'part').write_text(json.dumps(sys.argv[3:]))
(home / 'part').rename(home / 'words')  # a reader sees all of it or nothing
time.sleep(60)
"""


@pytest.fixture
def machines(tmp_path, monkeypatch):
    """Machines a and b whose runs sleep until they get SIGTERM."""
    for name, text in {'ssh': SSH, 'scp': SCP}.items():
        path = tmp_path / 'bin' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    python = tmp_path / 'environment' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(f'#!{sys.executable}\n{TASK}')
    python.chmod(0o755)
    for host in 'ab':
        (tmp_path / 'hosts' / host).mkdir(parents=True)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin:{os.environ["PATH"]}')
    monkeypatch.setenv('HOSTS', str(tmp_path / 'hosts'))
    monkeypatch.setenv('ELENCHUS_ENVIRONMENT', str(tmp_path / 'environment'))
    monkeypatch.setenv('ELENCHUS_LAUNCHES', str(tmp_path / 'launches'))
    flags = ssh.SshOptions(hosts='u@a,b', folder='~/of mine', accelerator='cpu')
    cloud = ssh.Machines(flags, ('--config=configs/lab.py', '--workdir=/w', "it's"), Commands())
    yield cloud, tmp_path / 'hosts'
    for host in 'ab':
        if (tmp_path / 'hosts' / host).exists():
            cloud.hosts = [host]
            cloud.kill()


def wait_for(condition):
    """Waits until something holds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def start(cloud, hosts):
    """Installs and starts the run; returns the arguments of each machine's process."""
    cloud.prepare()
    assert cloud.look().run is Run.ABSENT
    cloud.install()
    cloud.start()
    wait_for(lambda: all((hosts / host / 'words').exists() for host in 'ab'))
    return [json.loads((hosts / host / 'words').read_text()) for host in 'ab']


def test_a_run_starts_goes_on_saves_and_starts_again(machines):
    cloud, hosts = machines
    words = start(cloud, hosts)
    assert words[0][-3:] == ['--coordinator=a:8476', '--num_processes=2', '--process_id=0']
    assert words[1][-1] == '--process_id=1' and "it's" in words[1]
    assert (hosts / 'a' / 'of mine' / 'pyproject.toml').exists() and not (
        hosts / 'a' / '~'
    ).exists()
    assert cloud.look().run is Run.RUNNING
    before = read_children(hosts)
    cloud.start()
    assert read_children(hosts) == before  # nothing is there twice
    cloud.stop()
    wait_for(lambda: cloud.look().run is Run.ENDED)
    assert (cloud.look().exit_code, cloud.look().stopped) == (75, True)
    cloud.start()
    assert cloud.look().run is Run.RUNNING and read_children(hosts) != before


def read_children(hosts):
    """Numbers of the processes that detached.sh started."""
    return [path.read_text() for path in sorted(hosts.glob('*/.elenchus/*/*/child'))]


def test_stop_and_kill_reach_only_what_was_started(machines):
    cloud, hosts = machines
    start(cloud, hosts)
    cloud.kill()
    wait_for(lambda: cloud.look().exit_code == 137)
    bystander = subprocess.Popen(['sleep', '60'])
    for folder in (path.parent for path in hosts.glob('*/.elenchus/*/*/process')):
        # The machine restarted, and the number is another process's now.
        (folder / 'process').write_text(f'{bystander.pid} 1\n')
        (folder / 'child').write_text(f'{bystander.pid}\n')
    cloud.stop()
    cloud.kill()
    assert bystander.poll() is None
    bystander.send_signal(signal.SIGKILL)
    bystander.wait()


def test_a_machine_that_does_not_answer_is_no_crash(machines):
    cloud, hosts = machines
    start(cloud, hosts)
    (hosts / 'b').rename(hosts / 'away')
    assert cloud.look().run is Run.RUNNING and 'not all hosts answer' in cloud.look().detail
    with pytest.raises(Exception, match='b: '):
        cloud.stop()
    (hosts / 'away').rename(hosts / 'b')
    wait_for(lambda: cloud.look().run is Run.RUNNING or cloud.look().run is Run.ENDED)


BANNER = 'errors are logged; your quota is 503 GB; PERMISSION_DENIED to all others; timed out\n'


@pytest.mark.parametrize(
    ('code', 'kind'), [(255, Unreachable), (1, CloudError), (3, CloudError), (2, Refused)]
)
def test_the_words_of_a_banner_decide_nothing(code, kind, monkeypatch):
    result = Result(code, '', f'{BANNER}ssh: it says why\n')
    monkeypatch.setattr(Commands, 'run', lambda *_, **__: result)
    cloud = ssh.Machines(ssh.SshOptions(hosts='a'), (), Commands())
    words = 'it says why' if code == 255 else 'exit code'
    with pytest.raises(CloudError, match=words) as raised:
        cloud.run_on_host('true')
    assert type(raised.value) is kind


def test_a_machine_that_lets_nobody_in_hides_no_other(machines, monkeypatch):
    cloud, hosts = machines
    start(cloud, hosts)
    script = hosts.parent / 'bin' / 'ssh'
    script.write_text(SSH.replace('export HOME', '[[ $host != b ]] || exit 1\nexport HOME'))
    seen = cloud.look()
    assert seen.run is Run.RUNNING and 'not all hosts answer: b' in seen.detail
    script.write_text(SSH)


@pytest.mark.parametrize(
    'hosts',
    [
        *('-oProxyCommand=id', 'a,-F/x', 'a,,b', 'a b', 'a,a', 'a;id', 'u@-x', '$(id)', 'a\nb'),
        *('a,u@a', 'a.x,A.X', 'a:22', 'u@10.0.0.7:2222'),
    ],
)
def test_names_that_ssh_would_take_for_options_are_refused(hosts):
    with pytest.raises(options.UsageError, match='--hosts'):
        ssh.Machines(ssh.SshOptions(hosts=hosts), (), Commands())


def test_usual_names_are_accepted():
    hosts = 'gpu1,user@gpu-2.example.org,10.0.0.7,me@[fe80::1],fe80::2'
    assert ssh.parse_hosts(hosts) == hosts.split(',')


def test_the_launcher_starts_on_the_oldest_python_that_it_names():
    tree = pathlib.Path(ssh.__file__).parent
    assert all('match ' not in path.read_text() for path in tree.glob('*.py'))
