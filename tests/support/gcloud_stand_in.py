"""A stand-in for gcloud as a program: slices whose hosts are folders of this machine.

$GCLOUD_STAND_IN has `state` (of the queued resource), `log` (a line a command) and `hosts/0`,
`hosts/1`: home folders, in which commands of `tpu-vm ssh` run by bash, all hosts at once. A deleted
slice takes its processes along.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(os.environ['GCLOUD_STAND_IN'])
NUM_HOSTS = 2


def value(name, default=''):
    """Value of a flag on the command line."""
    words = [w.partition('=')[2] for w in sys.argv if w.startswith(f'--{name}=')]
    return words[-1] if words else default


def read_state():
    path = ROOT / 'state'
    return path.read_text(encoding='utf-8').strip() if path.exists() else ''


def fail(text, code=1):
    print(f'ERROR: (gcloud) {text}', file=sys.stderr)
    sys.exit(code)


def missing(name):
    fail(f"NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/{name}' was not found")


def environment(host):
    """What the machine of a host gives its processes."""
    number = host.name
    return {
        **os.environ,
        'HOME': str(host),
        'NNODES': str(NUM_HOSTS),
        'NODE_RANK': number,
        'JAX_COORDINATOR_ADDRESS': f'localhost:{(ROOT / "port").read_text().strip()}',
    }


def end_processes():
    """Kills what runs on the hosts, as a machine that is taken away."""
    for path in (ROOT / 'hosts').glob('*/.elenchus/*/*/process'):
        try:
            os.killpg(int(path.read_text().split()[0]), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue


def create(name):
    if read_state():
        fail('ALREADY_EXISTS: Resource already exists')
    for number in range(NUM_HOSTS):
        (ROOT / 'hosts' / str(number)).mkdir(parents=True)
    (ROOT / 'state').write_text('WAITING_FOR_RESOURCES', encoding='utf-8')
    (ROOT / 'since').write_text(str(time.time()), encoding='utf-8')


def describe(name):
    state = read_state()
    if not state:
        missing(name)
    if state == 'WAITING_FOR_RESOURCES' and time.time() - float((ROOT / 'since').read_text()) > 2:
        state = 'ACTIVE'
        (ROOT / 'state').write_text(state, encoding='utf-8')
    print(state)


def delete(name):
    if not read_state():
        missing(name)
    end_processes()
    shutil.rmtree(ROOT / 'hosts', ignore_errors=True)
    (ROOT / 'state').unlink()


def hosts_of(name):
    if read_state() != 'ACTIVE':
        fail(f'the TPU {name} is currently in state {read_state() or "ABSENT"}')
    hosts = sorted((ROOT / 'hosts').iterdir())
    worker = value('worker', '0')
    return hosts if worker == 'all' else [hosts[int(worker)]]


def ssh(name):
    command = value('command')
    processes = [
        subprocess.Popen(['bash', '-c', command], cwd=host, env=environment(host))
        for host in hosts_of(name)
    ]
    codes = [process.wait() for process in processes]
    sys.exit(next((code for code in codes if code), 0))


def scp(file, target):
    for host in hosts_of(target.partition(':')[0]):
        shutil.copy(file, host)


def rsync(source, target):
    patterns = ('checkpoints', 'model', 'episodes') if value('exclude') else ()
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*patterns), dirs_exist_ok=True)


def main():
    """Does what the words say."""
    with open(ROOT / 'log', 'a', encoding='utf-8') as log:
        log.write(' '.join(sys.argv[1:])[:200].replace('\n', ' ') + '\n')
    words = [word for word in sys.argv[1:] if not word.startswith('-')]
    if words[0] == 'storage':
        rsync(*words[2:4])
    elif words[2:4] == ['tpu-vm', 'describe']:
        print('READY' if read_state() == 'ACTIVE' else 'PREEMPTED')
    else:
        actions = {'create': create, 'describe': describe, 'delete': delete, 'ssh': ssh, 'scp': scp}
        actions[words[3]](*words[4:])


if __name__ == '__main__':
    main()
