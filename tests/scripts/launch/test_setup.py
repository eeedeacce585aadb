"""Installation on hosts: which Python, one lock for everything, and what makes it run again."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[3]
LOCKS = [ROOT / 'requirements.lock', *sorted((ROOT / 'scripts' / 'locks').glob('*.lock'))]
TOOLS = [*('bash', 'sed', 'dirname', 'mkdir', 'cksum', 'rm', 'cat', 'touch', 'flock', 'env')]
TOOLS += ['ln', 'sleep', 'mv', 'cp', 'base64']
PYTHON = """#!/bin/bash
# A stand-in for Python: version and modules by variables, `-m venv` makes an environment of itself.
case "$*" in
    *'import ensurepip'*) exit {suits} ;;
    --version) echo Python {version} ;;
    '-m venv '*) {venv}; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *'--target '*) {uv} ;;
    *'pip install'*)
        echo "$$ begins $*" >>"$LOG"; sleep 0.2; echo "$$ ends" >>"$LOG"
        [[ -e $LOG.fail && "$*" == *"$(<"$LOG.fail")"* ]] && exit 1 ;;
    *) echo "runs $*" >>"$LOG" ;;
esac
exit 0
"""
UV = """#!/bin/bash
# A stand-in for uv: `python install` puts an interpreter where UV_PYTHON_INSTALL_DIR says.
there="$UV_PYTHON_INSTALL_DIR/cpython-3.12/bin/python3.12"
case "$1 $2" in
    '--version ') echo uv 0.13.9 ;;
    'python install')
        [[ -z $UV_OFFLINE_TEST ]] || exit 1
        mkdir -p "${there%/*}"; cp "$SUITABLE" "$there" ;;
    'python find') [[ -x $there ]] || exit 2; echo "$there" ;;
    *) exit 2 ;;
esac
"""


def python(version='3.12.3', *, suits=True, venv=':', uv='exit 1'):
    """Text of a stand-in for Python."""
    return PYTHON.format(version=version, suits=int(not suits), venv=venv, uv=uv)


class Host:
    """A clone on a machine that has the given commands, and nothing else of interest."""

    def __init__(self, folder, commands):
        self.folder, self.clone, self.log = folder, folder / 'clone', folder / 'log'
        (folder / 'bin').mkdir()
        (folder / 'home').mkdir()
        shutil.copytree(ROOT / 'scripts', self.clone / 'scripts')
        shutil.copy(ROOT / 'requirements.lock', self.clone)
        for name in TOOLS:
            (folder / 'bin' / name).symlink_to(shutil.which(name))
        self.write('suitable', python())
        for name, text in commands.items():
            self.write(name, text)
        self.environment = {
            'PATH': str(folder / 'bin'),
            'HOME': str(folder / 'home'),
            'LOG': str(self.log),
            'SUITABLE': str(folder / 'bin' / 'suitable'),
        }

    def write(self, name, text):
        """Makes a command."""
        path = self.folder / 'bin' / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *words, **variables):
        """Starts worker.sh."""
        return subprocess.Popen(
            ['bash', str(self.clone / 'scripts/launch/worker.sh'), *words],
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def work(self, *words, **variables):
        """Runs worker.sh; returns its exit code and what it said."""
        process = self.start(*words, **variables)
        _, error = process.communicate(timeout=60)
        return process.returncode, error

    def lines(self):
        """Lines that the stand-ins of Python wrote, and forgets them."""
        text = self.log.read_text() if self.log.exists() else ''
        self.log.unlink(missing_ok=True)
        return text.splitlines()


def copy_uv(folder):
    """Shell command by which the stand-in of pip installs the stand-in of uv."""
    (folder / 'uv_file').write_text(UV)
    (folder / 'uv_file').chmod(0o755)
    return f'mkdir -p .cache/uv/bin; cp {folder}/uv_file .cache/uv/bin/uv'


@pytest.mark.parametrize('venv', [False, True], ids=['python 3.10', 'no ensurepip'])
@pytest.mark.parametrize('source', ['path', 'pip', 'broken venv'])
def test_uv_brings_a_python_where_none_suits(tmp_path, venv, source):
    name, version = ('python3.12', '3.12.3') if venv else ('python3', '3.10.12')
    text = python(version, suits=False, uv=copy_uv(tmp_path) if source != 'path' else 'exit 1')
    commands = {name: text}
    if source == 'path':
        commands['uv'] = UV
    if source == 'broken venv':  # Debian's patched module says it only when it is used
        commands['python3.11'] = python(venv='echo no ensurepip >&2; exit 1')
    host = Host(tmp_path, commands)
    code, said = host.work('tpu', '--config=c')
    assert code == 0, said
    assert said.count('brings Python 3.12') == 1
    assert host.lines()[-1] == 'runs -m scripts.run --config=c'
    assert host.work('tpu', '--config=c') == (0, '')


def test_without_any_python_one_line_says_what_to_install(tmp_path):
    host = Host(tmp_path, {'python3': python('3.10.12', suits=False)})
    code, said = host.work('tpu')
    assert code == 1 and said.count('\n') == 1
    assert 'apt-get install -y python3.12-venv' in said and 'ELENCHUS_PYTHON' in said
    host = Host(tmp_path / 'b', {'uv': UV}) if (tmp_path / 'b').mkdir() is None else host
    code, said = host.work('tpu', UV_OFFLINE_TEST='yes')
    assert code == 1 and 'could not bring Python 3.12' in said and 'apt-get' in said


def test_hosts_with_one_home_install_one_after_the_other_and_once(tmp_path):
    host = Host(tmp_path, {'python3.12': python()})
    processes = [host.start('cuda13', f'--config={i}') for i in range(3)]
    assert [p.communicate(timeout=60) and p.returncode for p in processes] == [0, 0, 0]
    lines = [line for line in host.lines() if not line.startswith('runs')]
    installed = [line.split(' ', 2)[1] for line in lines]
    assert installed == ['begins', 'ends'] * (len(lines) // 2)
    locks = [re.findall(r'[\w/]+\.lock', line) for line in lines[::2]]
    assert locks == [
        ['scripts/locks/build.lock'],
        ['requirements.lock'],
        [],  # the clone itself
        ['scripts/locks/cuda13.lock'],
        ['scripts/locks/gcs.lock'],
    ]
    checked = ['--require-hashes' in line for line in lines[::2]]
    assert checked == [bool(lock) for lock in locks]


def test_an_accelerator_is_installed_again_when_its_lock_changed_or_it_failed(tmp_path):
    host = Host(tmp_path, {'python3.12': python()})
    pathlib.Path(f'{host.log}.fail').write_text('tpu.lock')
    assert host.work('tpu')[0] == 1
    pathlib.Path(f'{host.log}.fail').unlink()
    host.lines()
    assert host.work('tpu')[0] == 0
    assert [line.split('/')[-1] for line in host.lines()[::2]] == ['tpu.lock', 'gcs.lock']
    assert host.work('tpu') == (0, '') and not host.lines()
    with open(host.clone / 'scripts/locks/tpu.lock', 'a') as file:
        file.write('# newer\n')
    assert host.work('tpu')[0] == 0
    assert [line.split('/')[-1] for line in host.lines()[::2]] == ['tpu.lock']
    with open(host.clone / 'requirements.lock', 'a') as file:
        file.write('# newer\n')
    assert host.work('tpu')[0] == 0
    assert len(host.lines()) == 10


def test_cuda12_and_cuda13_exclude_each_other(tmp_path):
    host = Host(tmp_path, {'python3.12': python()})
    assert host.work('cuda12')[0] == 0
    code, said = host.work('cuda13')
    assert code == 1 and 'delete .venv, or use cuda12' in said
    assert host.work('cuda12') == (0, '')


@pytest.mark.parametrize('name', ['cuda', 'gpu', 'cuda11', 'TPU', ''])
def test_an_unknown_accelerator_is_refused_before_anything_is_installed(tmp_path, name):
    host = Host(tmp_path, {'python3.12': python()})
    code, said = host.work(name)
    assert code and 'cuda13' in said and not host.lines()


def test_an_environment_of_your_own_is_used_as_it_is(tmp_path):
    host = Host(tmp_path, {})
    host.write('python', python())
    code, said = host.work('tpu', 'a b', ELENCHUS_ENVIRONMENT=str(tmp_path / 'x'))
    assert code == 2 and 'has no bin/python' in said
    assert host.work('tpu', 'a b', ELENCHUS_ENVIRONMENT=str(tmp_path)) == (0, '')
    assert host.lines() == ['runs -m scripts.run a b'] and not (host.clone / '.venv').exists()


def test_outside_a_clone_nothing_is_installed(tmp_path):
    host = Host(tmp_path, {'python3.12': python()})
    (host.clone / 'requirements.lock').unlink()
    code, said = host.work('cpu', '--config=c')
    assert code == 2 and 'is no clone' in said and said.count('\n') == 1
    assert {path.name for path in host.clone.iterdir()} == {'scripts'}


def test_encoded_arguments_arrive_as_they_are(tmp_path):
    host = Host(tmp_path, {'python3.12': python()})
    assert host.work('cpu')[0] == 0
    host.lines()
    for bad in ('--encoded=', '--encoded=AA==x'):
        assert host.work('cpu', bad, 'x')[0] == 2
    assert not host.lines()


# Lock files


def pins(path):
    """Name -> (version, hashes) of a lock file."""
    entries = re.findall(
        r'^([\w.-]+)==([^ ;]+)[^\n]*\\\n((?:    --hash[^\n]*\n)+)', path.read_text(), re.M
    )
    return {name.lower(): (version, text.split()) for name, version, text in entries}


def test_every_locked_package_has_hashes_and_one_version():
    versions = {}
    for path in LOCKS:
        text = path.read_text()
        assert '://' not in text and not re.search(r'^-', text, re.M)
        locked_pins = pins(path)
        assert len(locked_pins) == len(re.findall(r'==', text)) - text.count("== '") - text.count(
            ' == "'
        )
        for name, (version, words) in locked_pins.items():
            assert versions.setdefault(name, version) == version
            hashes = [word for word in words if word != '\\']
            assert hashes and all(re.fullmatch(r'--hash=sha256:[0-9a-f]{64}', h) for h in hashes)


def test_the_locks_have_what_pyproject_asks_for_and_hosts_get_no_test_tools():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    locked = {path.stem: pins(path) for path in LOCKS}
    core = locked['requirements']

    def names(requirements):
        return {re.match(r'[\w.-]+', line)[0].lower() for line in requirements}

    assert names(project['dependencies']) <= set(core)
    extras = project['optional-dependencies']
    for extra in ('tpu', 'cuda12', 'cuda13', 'gcs', 'test'):
        assert names(extras[extra]) <= set(core) | set(locked[extra])
        assert not set(core) & set(locked[extra])
    assert not names(extras['test']) & set(core)


@pytest.mark.filterwarnings('ignore:os.fork')  # JAX is loaded here, not in a supervisor
def test_the_supervisor_repeats_crashes_and_says_what_to_do(tmp_path):
    from elenchus.scripts.launch import supervise
    from elenchus.scripts.launch.states import Policy

    def end(*codes, retries=2, notice=False):
        plan = tmp_path / 'plan'
        plan.write_text('\n'.join(map(str, codes)))
        text = (
            'import os,pathlib,sys;p=pathlib.Path(sys.argv[1]);n,*r=p.read_text().split();'
            'p.write_text("\\n".join(r));c=int(n);os.kill(os.getpid(),-c) if c<0 else os._exit(c)'
        )
        policy = Policy(retries=retries, poll=0.01, max_delay=0.01)
        supervisor = supervise.Supervisor([sys.executable, '-c', text, str(plan)], policy)
        if notice:
            supervisor.notice.set()
        return supervisor.run(), len(plan.read_text().split())

    assert end(0) == (0, 0)
    assert end(2, 0) == (2, 1)
    assert end(75, 0) == (75, 1)
    assert end(1, -9, 0) == (0, 0)
    assert end(-9, -9, -9, 0) == (1, 1)  # out of memory: not for ever
    assert end(-11, 1, -6, 0) == (1, 1)
    assert end(1, 0, notice=True) == (75, 2)


def test_a_notice_to_the_supervisor_reaches_the_process_and_ends_the_job_with_75(tmp_path):
    text = (
        'import os,signal,sys,time,pathlib;'
        'signal.signal(signal.SIGTERM, lambda *_: os._exit(int(sys.argv[1])));'
        'pathlib.Path(sys.argv[2]).touch();time.sleep(30)'
    )
    for code in (75, 1, 143):
        mark = tmp_path / str(code)
        process = subprocess.Popen(
            [sys.executable, '-m', 'elenchus.scripts.launch.supervise', '5', sys.executable]
            + ['-c', text, str(code), str(mark)],
            env={**os.environ},
        )
        while not mark.exists():
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 75
