"""Submits jobs with scripts/launch/slurm.sh to the stand-in of SLURM, and waits for their end."""

import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
STAND_IN = pathlib.Path(__file__).with_name('slurm_stand_in.py')
TASK = """
import faulthandler, json, os, pathlib, signal, sys, time
faulthandler.register(signal.SIGQUIT)
folder, plan = pathlib.Path(sys.argv[-2]), json.loads(sys.argv[-1])
start = int(os.environ.get('SLURM_RESTART_COUNT', 0))
rank = int(os.environ['SLURM_PROCID'])
steps = plan[min(start, len(plan) - 1)]
step = steps[rank]
if step == 'deaf':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif isinstance(step, list):
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(step[0]), os._exit(75)))
(folder / f'start-{start}-{rank}').write_text(os.environ['SLURM_CPUS_PER_TASK'])
if isinstance(step, int):
    others = [folder / f'start-{start}-{i}' for i, s in enumerate(steps) if not isinstance(s, int)]
    while not all(path.exists() for path in others):
        time.sleep(0.05)  # a machine with other work has not started them yet
    if step > 128:
        os.kill(os.getpid(), step - 128)
    sys.exit(step)
time.sleep(60)
"""
"""A process by a plan: an exit code at once; [seconds] from SIGTERM to 75; 'deaf' to SIGTERM."""


class Cluster:
    """SLURM on this machine.

    Attributes:
        folder: State of the jobs, and what their processes wrote.
        environment: With the commands of the stand-in first on the path.
    """

    def __init__(self, folder, *, kill_wait=1.0):
        self.folder, self.jobs = folder, folder / 'jobs'
        tools = folder / 'bin'
        tools.mkdir(parents=True)
        self.jobs.mkdir()
        for name in ('sbatch', 'srun', 'scontrol', 'squeue', 'scancel'):
            (tools / name).write_text(f'#!{sys.executable}\n{STAND_IN.read_text()}')
            (tools / name).chmod(0o755)
        self.environment = {
            **os.environ,
            'PATH': f'{tools}:{os.environ["PATH"]}',
            'SLURM_STAND_IN': str(self.jobs),
            'SLURM_KILL_WAIT': str(kill_wait),
        }

    def use_tasks(self):
        """Makes the processes follow the plan in their last argument (`TASK`)."""
        python = self.folder / 'environment' / 'bin' / 'python'
        python.parent.mkdir(parents=True)
        python.write_text(f'#!{sys.executable}\n{TASK}')
        python.chmod(0o755)
        self.environment['ELENCHUS_ENVIRONMENT'] = str(python.parents[1])

    def submit(self, *flags, run, limit=30, notice=5, root=ROOT):
        """Submits a job of one machine, from a clone; returns its number."""
        words = ['bash', str(root / 'scripts/launch/slurm.sh'), '--accelerator=cpu', *flags]
        words += [f'--time={limit}', f'--notice={notice}', f'--log={self.folder}/log-%j', '--']
        done = subprocess.run(
            [*words, *run], env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()[-1]

    def wait(self, job, seconds=30):
        """Waits for the end of a job; returns its exit code, the number of starts, and its log."""
        end = time.monotonic() + seconds
        while not (self.jobs / job / 'exit').exists():
            if time.monotonic() > end:
                raise TimeoutError(f'job {job} runs on: {self.log(job)[-2000:]}')
            time.sleep(0.05)
        code = int((self.jobs / job / 'exit').read_text())
        return code, 1 + int((self.jobs / job / 'restarts').read_text()), self.log(job)

    def log(self, job):
        """Text of the job's log."""
        path = self.folder / f'log-{job}'
        return path.read_text() if path.exists() else ''

    def wait_for(self, name, seconds=30):
        """Waits for a file that a process writes."""
        end = time.monotonic() + seconds
        while not (self.folder / name).exists():
            if time.monotonic() > end:
                raise TimeoutError(name)
            time.sleep(0.05)
