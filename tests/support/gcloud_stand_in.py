"""A stand-in for gcloud as a program: slices whose hosts are folders of this machine.

$GCLOUD_STAND_IN has `state` (of the queued resource), `log` (a line a command) and `hosts/0`,
`hosts/1`: home folders, in which commands of `tpu-vm ssh` run by bash, all hosts at once. A slice
comes up two seconds after the request and runs its startup script on every host, with
`curl_stand_in.py` for curl. A deleted slice takes its processes along.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parents[2]))  # a fresh host has no PYTHONPATH

from tests.support import gcloud_errors as errors

ROOT = pathlib.Path(os.environ['GCLOUD_STAND_IN'])
NUM_HOSTS = 2


def value(name, default=''):
    """Value of a flag on the command line."""
    words = [w.partition('=')[2] for w in sys.argv if w.startswith(f'--{name}=')]
    return words[-1] if words else default


def read_state():
    path = ROOT / 'state'
    return path.read_text(encoding='utf-8').strip() if path.exists() else ''


def fail(result):
    """Prints an error of gcloud and leaves with its code."""
    print(result.error, file=sys.stderr)
    sys.exit(result.code)


def environment(host):
    """What the machine of a host gives its processes."""
    number = host.name
    return {
        **os.environ,
        'HOME': str(host),
        'ELENCHUS_HOMES': str(host),
        'NNODES': str(NUM_HOSTS),
        'NODE_RANK': number,
        'JAX_COORDINATOR_ADDRESS': f'localhost:{(ROOT / "port").read_text().strip()}',
    }


def end_processes():
    """Kills what runs on the hosts, as a machine that is taken away."""
    hosts = ROOT / 'hosts'
    for path in [*hosts.glob('*/.elenchus/*/*/process'), *hosts.glob('*/guard.process')]:
        try:
            os.killpg(int(path.read_text().split()[0]), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue


def create(name):
    if read_state():
        fail(errors.already_exists(name))
    for number in range(NUM_HOSTS):
        (ROOT / 'hosts' / str(number)).mkdir(parents=True)
    (ROOT / 'state').write_text('WAITING_FOR_RESOURCES', encoding='utf-8')
    script = value('metadata-from-file').partition('=')[2]
    if script:
        shutil.copy(script, ROOT / 'startup-script')
    subprocess.Popen(
        [sys.executable, __file__, 'compute', 'tpus', 'hosts', 'activate'],
        start_new_session=True,
        **dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.DEVNULL),
    )


def activate():
    """Brings the hosts up, and starts their startup script."""
    time.sleep(2)
    for host in (ROOT / 'hosts').iterdir() if (ROOT / 'startup-script').exists() else ():
        place = {'ELENCHUS_HOMES': str(host), 'ELENCHUS_GUARD': str(host / 'guard')}
        process = subprocess.Popen(
            ['bash', ROOT / 'startup-script'],
            env={**environment(host), **place, 'CURL_STAND_IN': str(host)},
            start_new_session=True,
        )
        (host / 'number').write_text(host.name)
        (host / 'permissions').write_text('tpu.nodes.delete')
        (host / 'guard.process').write_text(str(process.pid))
    (ROOT / 'state').write_text('ACTIVE', encoding='utf-8')


def describe(name):
    if not read_state():
        fail(errors.missing_resource(name))
    print(read_state())


def delete(name):
    if not read_state():
        fail(errors.missing_resource(name))
    for bucket in (ROOT / 'hosts').glob('*/bucket'):
        shutil.copytree(bucket, ROOT / 'bucket', dirs_exist_ok=True)
    (ROOT / 'state').unlink()
    end_processes()
    shutil.rmtree(ROOT / 'hosts', ignore_errors=True)


def hosts_of(name):
    if read_state() != 'ACTIVE':
        fail(errors.DOWN)
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
    if words[0] == 'config':
        print('p')
    elif words[:2] == ['storage', 'cat']:
        paths = (ROOT / 'bucket').glob(words[2].removeprefix('gs://'))
        print('\n'.join(path.read_text(encoding='utf-8') for path in paths))
    elif words[0] == 'storage':
        source, target = words[2:4]
        rsync(ROOT / 'bucket' / source.removeprefix('gs://'), target)  # of an absolute path, that
    elif words[2:4] == ['tpu-vm', 'describe']:
        print('READY' if read_state() == 'ACTIVE' else 'PREEMPTED')
    else:
        actions = {
            'activate': activate,
            'create': create,
            'describe': describe,
            'delete': delete,
            'ssh': ssh,
            'scp': scp,
        }
        actions[words[3]](*words[4:])


if __name__ == '__main__':
    main()
