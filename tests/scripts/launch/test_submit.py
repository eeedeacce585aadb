"""Submissions of slurm.sh to clusters that answer in other words, or not at all."""

import os
import pathlib
import subprocess

import pytest

from elenchus.scripts.launch import commands

LAUNCH = pathlib.Path(commands.__file__).parent
# squeue(1): a job that ended long ago is not known any more.
SQUEUE = """#!/bin/sh
if [ -n "$BROKEN" ]; then echo "slurm_load_jobs error: $BROKEN" >&2; exit 1; fi
for w; do case $w in --jobs=*) job=${w#--jobs=};; esac; done
if [ -z "$job" ]; then
    [ ! -e "$JOBS/4711" ] || echo "4711 $(cat "$JOBS/4711") $(cat "$JOBS/comment")"; exit
fi
if [ -e "$JOBS/$job" ]; then cat "$JOBS/$job"; exit; fi
echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1
"""
SBATCH = """#!/bin/sh
cat >/dev/null
for w; do case $w in --comment=*) echo "${w#--comment=}" >"$JOBS/comment";; esac; done
echo RUNNING >"$JOBS/4711"; printf '%b\\n' "$ANSWER"
"""
PLAIN = 'Submitted batch job 4711'


@pytest.fixture
def submit(tmp_path):
    """Returns a function that submits a run from a clone; it returns the process."""
    (tmp_path / 'jobs').mkdir()
    for clone in ('clone', 'other'):
        (tmp_path / clone / 'scripts' / 'launch').mkdir(parents=True)
        for name in ('slurm.sh', 'shared.sh'):
            place = tmp_path / clone / 'scripts' / 'launch' / name
            place.write_text((LAUNCH / name).read_text())
    for name, text in {'squeue': SQUEUE, 'sbatch': SBATCH}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(workdir='/shared/a', *flags, clone='clone', answer=PLAIN, broken='', action='submit'):
        words = ['bash', str(tmp_path / clone / 'scripts/launch/slurm.sh'), action, *flags]
        variables = {'JOBS': str(tmp_path / 'jobs'), 'ANSWER': answer, 'BROKEN': broken}
        path = f'{tmp_path}:{os.environ["PATH"]}'
        return subprocess.run(
            [*words, '--', f'--workdir={workdir}'],
            env={**os.environ, **variables, 'PATH': path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    'answer',
    [
        PLAIN,
        f'Welcome to the Lonestar6 Supercomputer\\n--> 3 checks ... OK\\n{PLAIN}',
        f'{PLAIN} on cluster c2\\nYou have 12 hours left',
        '4711',
        '4711;cluster2',
    ],
)
def test_the_words_of_a_site_hide_no_number_of_a_job(submit, answer):
    assert submit(answer=answer).returncode == 0
    again = submit(answer=answer)
    assert again.returncode == 2 and 'job 4711 is RUNNING' in again.stderr


def test_a_cluster_that_does_not_answer_is_not_a_job_that_has_ended(submit, tmp_path):
    assert submit().returncode == 0
    for broken in ('Unable to contact slurm controller', 'Socket timed out on send/recv'):
        again = submit(broken=broken)
        assert (again.returncode, again.stdout, again.stderr.count('\n')) == (2, '', 1)
        assert broken in again.stderr and '--again=yes' in again.stderr
    assert submit('/shared/a', '--again=yes', broken='Socket timed out').returncode == 0
    (tmp_path / 'jobs' / '4711').unlink()
    assert submit().returncode == 0


def test_a_work_directory_has_one_name(submit, tmp_path):
    (tmp_path / 'link').symlink_to('/shared')
    assert submit('/shared/a').returncode == 0
    for name in ('/shared/./a', '//shared//a/', '/shared/b/../a', f'{tmp_path}/link/a'):
        assert submit(name).returncode == 2, name
    assert submit('gs://b/a').returncode == submit('gs://b//a').returncode == 0


def test_a_job_of_another_checkout_counts_too(submit, tmp_path):
    assert submit('/shared/a b').returncode == 0
    again = submit('/shared/a b', clone='other')
    assert again.returncode == 2 and 'job 4711 is RUNNING' in again.stderr
    assert submit('/shared/a', clone='other').returncode == 0
    assert submit('/shared/a b', '--again=yes', clone='other').returncode == 0
    (tmp_path / 'jobs' / '4711').write_text('COMPLETED')
    assert submit('/shared/a b', clone='other').returncode == 0


def test_the_log_gets_its_folder(submit, tmp_path):
    assert submit('/shared/a', '--log=logs/of mine/%x-%j.log').returncode == 0
    assert (tmp_path / 'logs' / 'of mine').is_dir()
    (tmp_path / 'logs' / 'of mine' / 'elenchus-7.log').write_text('says\n')
    shown = submit('', '--id=7', '--log=logs/of mine/%x-%j.log', action='logs')
    assert shown.stdout == 'says\n', shown
    refused = submit('/shared/b', '--log=/proc/none/%j.log')
    assert (refused.returncode, refused.stdout, refused.stderr.count('\n')) == (2, '', 1)
    assert '--log=/proc/none/%j.log' in refused.stderr
