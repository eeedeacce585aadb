"""A stand-in for SLURM on one machine: sbatch, srun, scontrol, squeue, scancel, by its own name.

It behaves as the manuals say where the launcher depends on it (sbatch(1), srun(1), scancel(1),
slurm.conf(5)): sbatch returns at once; srun binds a process to one CPU unless told otherwise, ends
the others after a bad exit (SIGTERM, SIGKILL after KillWait) and exits with the highest code;
--signal goes to the processes and not to the job script; at the limit both get SIGTERM, and SIGKILL
after KillWait; a requeued job is killed and starts again with SLURM_RESTART_COUNT one higher.

State: $SLURM_STAND_IN/JOB/, with the files script, state, end, restarts, requeue, tasks and exit.
$SLURM_KILL_WAIT and the limit (--time) are in seconds.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

FOLDER = pathlib.Path(os.environ['SLURM_STAND_IN'])
KILL_WAIT = float(os.environ.get('SLURM_KILL_WAIT', '5'))
SBATCH = {
    *('job-name', 'nodes', 'ntasks-per-node', 'cpus-per-task', 'time', 'signal', 'requeue'),
    *('open-mode', 'output', 'partition', 'account', 'gpus-per-node', 'qos', 'mem', 'comment'),
}
SRUN = {'cpus-per-task', 'kill-on-bad-exit', 'label'}


def options(words, known):
    """Options as a dictionary and the words behind them; an unknown one ends the process."""
    values = {}
    while words and words[0].startswith('--'):
        name, _, value = words.pop(0)[2:].partition('=')
        if name not in known:
            sys.exit(f'error: unrecognized option --{name}')
        values[name] = value
    return values, words


def read(job, name, default=''):
    """Text of a file of the job."""
    path = FOLDER / job / name
    return path.read_text() if path.exists() else default


def write(job, name, text):
    """Writes a file of the job."""
    path = FOLDER / job / name
    path.with_suffix('.part').write_text(str(text))
    path.with_suffix('.part').rename(path)  # a reader sees all of it or nothing


def tasks(job):
    """Process groups of the job's processes that run."""
    return [int(line) for line in read(job, 'tasks').split()]


def send(groups, number):
    """Sends a signal to process groups, those that are gone aside."""
    for group in groups:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            continue


def sbatch(words):
    """Takes a job script from the standard input and starts the job."""
    values, rest = options(words, SBATCH)
    if rest:
        sys.exit(f'error: unexpected {rest}')
    job = str(time.time_ns() // 1000 % 10**8)  # JAX makes the coordinator's port of it
    (FOLDER / job).mkdir()
    write(job, 'script', sys.stdin.read())
    words = [sys.executable, __file__, 'control', job, values['output'].replace('%j', job)]
    words += [values['time'], values['signal'].partition('@')[2]]
    tasks_ = int(values['nodes']) * int(values['ntasks-per-node'])
    environment = {**os.environ, 'SLURM_NTASKS': str(tasks_), 'SLURM_JOB_ID': job}
    quiet = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.DEVNULL)
    subprocess.Popen(words, env=environment, start_new_session=True, **quiet)
    print(f'Submitted batch job {job}')


def control(job, output, limit, notice):
    """Runs a job: what slurmctld and slurmd do."""
    restarts, limit, notice = 0, float(limit), float(notice)
    while True:
        begin = time.time()
        write(job, 'restarts', restarts)
        write(job, 'tasks', '')
        write(job, 'state', 'RUNNING')
        write(job, 'end', begin + limit)
        environment = {**os.environ, 'SLURM_JOB_END_TIME': str(int(begin + limit))}
        if restarts:
            environment['SLURM_RESTART_COUNT'] = str(restarts)
        with open(output, 'ab') as log:
            script = subprocess.Popen(
                ['bash', FOLDER / job / 'script'],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        noticed, deadline = False, None
        while script.poll() is None:
            time.sleep(0.05)
            now = time.time()
            if now > begin + limit - notice and not noticed:
                noticed = True
                send(tasks(job), signal.SIGTERM)
            over = now > begin + limit
            if deadline is None and (
                over or read(job, 'requeue') or read(job, 'state') != 'RUNNING'
            ):
                deadline = now + KILL_WAIT
                send(tasks(job), signal.SIGTERM)
                if over:
                    write(job, 'state', 'TIMEOUT')
                    script.terminate()
            if deadline is not None and now > deadline:
                send([*tasks(job), script.pid], signal.SIGKILL)
        script.wait()
        send(tasks(job), signal.SIGKILL)
        if not read(job, 'requeue'):
            break
        (FOLDER / job / 'requeue').unlink()
        restarts += 1
    if read(job, 'state') == 'RUNNING':
        write(job, 'state', 'COMPLETED' if script.returncode == 0 else 'FAILED')
    write(job, 'exit', script.returncode)


def srun(words):
    """Runs the processes of a step; returns the highest exit code."""
    values, command = options(words, SRUN)
    job, count = os.environ['SLURM_JOB_ID'], int(os.environ['SLURM_NTASKS'])
    running = {}
    for i in range(count):
        environment = {
            **os.environ,
            'SLURM_PROCID': str(i),
            'SLURM_LOCALID': str(i),
            'SLURM_STEP_NUM_TASKS': str(count),
            'SLURM_STEP_NODELIST': 'localhost',
            'SLURM_CPUS_PER_TASK': values.get('cpus-per-task', '1'),
        }
        running[i] = subprocess.Popen(command, env=environment, start_new_session=True)
    write(job, 'tasks', '\n'.join(str(process.pid) for process in running.values()))
    codes, deadline = [], None
    while running:
        time.sleep(0.05)
        for i, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[i]
            codes.append(128 - code if code < 0 else code)
            if codes[-1] and 'kill-on-bad-exit' in values and deadline is None:
                send([other.pid for other in running.values()], signal.SIGTERM)
                deadline = time.time() + KILL_WAIT
        if deadline and time.time() > deadline:
            send([other.pid for other in running.values()], signal.SIGKILL)
    write(job, 'tasks', '')
    print('codes', codes, file=sys.stderr)
    sys.exit(max(codes))


def scontrol(words):
    """Queues a job again: whatever of it runs is killed."""
    if words[0] != 'requeue':
        sys.exit('error: invalid keyword')
    write(words[1], 'requeue', 'yes')


def squeue(words):
    """Prints state (%T) or time that is left (%L) of a job."""
    values, _ = options(words, {'noheader', 'jobs', 'format', 'name', 'me'})
    if 'jobs' not in values:  # those of this user, of which nobody asks for more here
        return
    job = values['jobs']
    rest = float(read(job, 'end')) - time.time()
    print(
        {'%T': read(job, 'state'), '%L': '0:00' if rest <= 0 else f'0:{rest:02.0f}'}[
            values['format']
        ]
    )


def scancel(words):
    """Signals the processes of a job, or ends it."""
    values, (job,) = options(words, {'signal'})
    if values:
        send(tasks(job), getattr(signal, 'SIG' + values['signal']))
        return
    write(job, 'state', 'CANCELLED')


if __name__ == '__main__':
    name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
    if name == pathlib.Path(__file__).name and arguments[:1] == ['control']:
        control(*arguments[1:])
    else:
        {
            'sbatch': sbatch,
            'srun': srun,
            'scontrol': scontrol,
            'squeue': squeue,
            'scancel': scancel,
        }[name](arguments)
