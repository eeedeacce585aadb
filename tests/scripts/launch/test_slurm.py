"""Jobs of slurm.sh on a stand-in for SLURM: what is queued again, how often, and what is not."""

import json
import subprocess
import time

import pytest

from tests.support.slurm_jobs import ROOT, Cluster


@pytest.fixture
def cluster(tmp_path):
    """A cluster whose processes follow a plan."""
    cluster = Cluster(tmp_path)
    cluster.use_tasks()
    return cluster


def run_plan(cluster, *flags, plan, **times):
    """Runs two processes by a plan, an entry for each start of the job; returns their ends."""
    job = cluster.submit('--gpus=2', *flags, run=plan_words(cluster, plan), **times)
    return cluster.wait(job)


def plan_words(cluster, plan):
    """Arguments of the processes."""
    return [str(cluster.folder), json.dumps(plan)]


@pytest.mark.parametrize(
    ('ends', 'code', 'starts'),
    [
        ([[0, 0]], 0, 1),
        ([[75, 75], [0, 0]], 0, 2),
        ([[75, [0.1]], [0, 0]], 0, 2),
        ([[75, [3]], [0, 0]], 0, 2),  # longer than KillWait: 137
        ([['deaf', 75], [0, 0]], 0, 2),
        ([[137, [0.1]], [0, 0]], 0, 2),
        ([[143, 0], [0, 0]], 0, 2),
        ([[1, [0.1]], [0, 0]], 0, 2),  # the highest code is 75
        ([[1, 0]], 1, 1),
        ([[2, 2]], 2, 1),
        ([[0, 139]], 139, 1),
    ],
)
def test_a_job_is_queued_again_after_a_preemption_and_not_after_a_mistake(
    cluster, ends, code, starts
):
    ended, number, log = run_plan(cluster, plan=ends)
    assert (ended, number) == (code, starts), log


@pytest.mark.parametrize('code', [75, 137])
def test_a_job_is_queued_again_at_most_so_often(cluster, code):
    ended, starts, log = run_plan(cluster, '--requeues=2', plan=[[code, code]])
    # The first process to be killed makes srun end the other one, by SIGTERM.
    assert starts == 3 and ended in {75: {75}, 137: {137, 143}}[code], log
    assert 'not queued again: --requeues=2' in log


def test_a_limit_with_a_zero_in_front_is_a_limit(cluster):
    """In the job script `restarts >= 08` is an error, hence false: it would be queued for ever."""
    ended, starts, log = run_plan(cluster, '--requeues=01', plan=[[75, 75]])
    assert (ended, starts) == (75, 2), log
    words = ['--dry_run', '--requeues=08', '--', '--config=configs/lab.py']
    command = ['bash', str(ROOT / 'scripts/launch/slurm.sh'), *words]
    assert 'restarts >= 8)' in subprocess.check_output(command, text=True)


def test_a_notice_before_the_limit_saves_and_queues_again(cluster):
    code, starts, log = run_plan(cluster, plan=[[[0], [0.3]], [0, 0]], limit=34, notice=30)
    assert (code, starts) == (0, 2)
    assert 'exit code 75; queued again' in log


@pytest.mark.slow
def test_a_job_that_misses_the_notice_is_queued_again_at_its_limit(tmp_path):
    cluster = Cluster(tmp_path, kill_wait=30)  # the default of slurm.conf
    cluster.use_tasks()
    plan = [['deaf', 'deaf'], [0, 0]]
    job = cluster.submit('--gpus=2', run=plan_words(cluster, plan), limit=2, notice=1)
    code, starts, log = cluster.wait(job, seconds=60)
    assert (code, starts) == (0, 2), log


def test_cancelling_and_stopping_end_a_job(tmp_path):
    cluster = Cluster(tmp_path, kill_wait=30)  # nothing waits for it, however busy the machine is
    cluster.use_tasks()
    for command in (['scancel'], ['bash', str(ROOT / 'scripts/launch/slurm.sh'), 'stop']):
        job = cluster.submit('--gpus=2', run=plan_words(cluster, [[[0], [0.2]]]))
        for rank in range(2):  # a process that has not begun yet knows no signal
            cluster.wait_for(f'start-0-{rank}')
        time.sleep(0.2)
        word = job if command == ['scancel'] else f'--id={job}'
        subprocess.run([*command, word], env=cluster.environment, check=True)
        code, starts, log = cluster.wait(job)
        assert (code, starts) == (75, 1) and 'stopped by the user' in log
        for rank in range(2):
            (cluster.folder / f'start-0-{rank}').unlink()


def test_stacks_of_a_job_that_hangs_come_to_its_log_and_it_goes_on(cluster):
    job = cluster.submit('--gpus=2', run=plan_words(cluster, [[[0], [0]]]))
    for rank in range(2):
        cluster.wait_for(f'start-0-{rank}')
    words = ['bash', str(ROOT / 'scripts/launch/slurm.sh'), 'stacks', f'--id={job}']
    words.append(f'--log={cluster.folder}/log-%j')
    done = subprocess.run(
        words, env=cluster.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count('most recent call first') == 2
    assert not (cluster.jobs / job / 'exit').exists()
    squeue = cluster.folder / 'bin' / 'squeue'
    stand_in = squeue.read_text()
    squeue.write_text('#!/bin/sh\nexit 1\n')  # the cluster does not answer
    status = {'state': 'done', 'stage': 'evaluate', 'heartbeat': 5, 'hosts': [], 'kept': True}
    (cluster.folder / 'status.json').write_text(json.dumps(status))
    (cluster.folder / 'timing.jsonl').write_text(
        json.dumps({'started': 1, 'heartbeat': 5, 'seconds': {'steps': 3, 'saving': 1}})
    )
    words = [*words[:2], 'status', f'--workdir={cluster.folder}']
    done = subprocess.run(
        words, env=cluster.environment, capture_output=True, text=True, check=True
    )
    assert 'run done: evaluate' in done.stdout and 'goodput 75.0%' in done.stdout, done.stderr
    squeue.write_text(stand_in)
    subprocess.run(['scancel', job], env=cluster.environment, check=True)
    cluster.wait(job)


def test_every_process_has_the_cores_that_were_requested(cluster):
    run_plan(cluster, '--cpus=7', plan=[[0, 0]])
    assert (cluster.folder / 'start-0-1').read_text() == '7'


def test_options_of_sbatch_are_passed_on_and_wrong_ones_are_refused(cluster):
    code, _, _ = run_plan(cluster, '--sbatch=--qos=high', '--sbatch=--mem=0', plan=[[0, 0]])
    assert code == 0
    for flag in ('--sbatch=qos=high', '--accelerator=cuda11', '--gpus=two', '--max_hours=x'):
        words = ['bash', str(ROOT / 'scripts/launch/slurm.sh'), flag, '--', 'x']
        done = subprocess.run(
            words, env=cluster.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and done.stderr.startswith('error: '), done
        assert done.stderr.count('\n') == 1 and flag in done.stderr


@pytest.mark.slow
def test_the_hours_of_all_starts_end_a_job(cluster):
    """Each start takes about a second and is queued again; the third or so meets the end."""
    plan = [[[0], [0.1]], [75, 75], [[0], [0.1]]]
    code, starts, log = run_plan(cluster, '--max_hours=0.0012', plan=plan, limit=60)
    assert (code, starts) == (124, 1), log
    assert 'the budget is spent' in log and 'not queued again: --max_hours=0.0012' in log
    code, starts, log = run_plan(cluster, '--max_hours=0.002', plan=plan[1:], limit=60)
    assert code == 124 and starts > 1 and 'exit code 75; queued again' in log


def test_a_process_that_ignores_the_end_of_the_budget_is_killed(cluster):
    cluster.environment['ELENCHUS_GRACE'] = '1'
    code, starts, log = run_plan(cluster, '--max_hours=0.0008', plan=[['deaf', 'deaf']], limit=60)
    assert (code, starts) == (124, 1), log
