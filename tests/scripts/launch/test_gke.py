"""gke.sh: what XPK and Kubernetes make of its command, and what the state of a JobSet means."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elenchus.scripts.launch import gke, jobsets, launched_run, options, sources
from elenchus.scripts.launch.cloud import Unreachable
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.scripts.launch.states import Resource, Run
from tests.scripts.launch.test_setup import ROOT

# XPK 1.9 puts the command into both, by str.format (core/docker_resources.py, docker_container.py).
XPK_VARIABLE = '- name: COMMAND\n  value: "{command}"\n'
XPK_SCRIPT = """command:
- bash
- -c
- |
  echo XPK Start: $(date);
  _sigterm() (kill -SIGTERM $! 2>/dev/null;);
  trap _sigterm SIGTERM;
  ({command}) & PID=$!;
  while kill -0 $PID 2>/dev/null;
      do sleep 0.1;
  done;
  wait $PID;
  EXIT_CODE=$?;
  echo EXIT_CODE=$EXIT_CODE;
  exit $EXIT_CODE
"""
RUN = ('--config=configs/lab.py', '--workdir=gs://bucket/run')
TEXTS = st.text(st.characters(exclude_characters='\0', exclude_categories=('Cs',)), max_size=20)


def workload(*run, **flags):
    """A workload of the given flags."""
    values = {'name': 'run1', 'cluster': 'c', 'zone': 'z', **flags}
    return gke.Workload(gke.GkeOptions(**values), (*RUN, *run), Commands())


def arguments_in_pod(tmp_path, command, **variables):
    """Arguments that scripts.run gets in a pod; runs what XPK's YAML says, as the kubelet does."""
    rendered = yaml.safe_load(XPK_SCRIPT.format(command=command))['command']
    assert yaml.safe_load(XPK_VARIABLE.format(command=command))[0]['value'] == command
    assert '$(' not in command and '{' not in command  # Kubernetes and str.format
    python = tmp_path / 'bin' / 'python'
    if not python.exists():
        python.parent.mkdir()
        text = f'import json,sys;json.dump(sys.argv[5:], open({str(tmp_path / "words")!r}, "w"))'
        supervised = f'#!/bin/bash\nexec {sys.executable} -c {shlex.quote(text)} "$@"\n'
        python.write_text(supervised)
        python.chmod(0o755)
    environment = {**os.environ, 'ELENCHUS_ENVIRONMENT': str(tmp_path), **variables}
    subprocess.run(rendered, cwd=ROOT, env=environment, check=True, capture_output=True)
    words = json.loads((tmp_path / 'words').read_text())
    return words[words.index('scripts.run') + 1 :]


@settings(max_examples=12, deadline=None)
@given(words=st.lists(TEXTS, min_size=1, max_size=4))
@example(
    words=["--config.stages=('base','actor')", '"', "'", '\\', '$(HOME) $HOME `id`', ' a\nb ', '']
)
@example(words=['#', ': ', '{args.name}', '%', '!', '&& exit 1', '-', '--', 'ü', '\t'])
def test_every_argument_survives_yaml_and_shells(tmp_path_factory, words):
    command = workload(*words).command()
    words_there = arguments_in_pod(tmp_path_factory.mktemp('pod'), command)
    assert words_there == [*RUN, *words, '--distributed']


def test_processes_on_gpu_nodes_get_the_coordinator_that_xpk_names(tmp_path):
    command = workload('--x', device='gpu', type='h100-mega-80gb-8', slices=2).command()
    words = arguments_in_pod(
        tmp_path,
        command,
        JAX_COORDINATOR_ADDRESS='run1-slice-job-0-0.run1',
        JAX_COORDINATOR_PORT='6002',
        NNODES='2',
        NODE_RANK='1',
    )
    there = '--coordinator=run1-slice-job-0-0.run1:6002'
    assert words == [*RUN, '--x', there, '--num_processes=2', '--process_id=1']


def pod(phase, code=None, why=''):
    """A pod of a JobSet."""
    state = {'waiting': {'reason': why}} if why else {}
    state = state if code is None else {'terminated': {'exitCode': code}}
    return {'status': {'phase': phase, 'containerStatuses': [{'state': state}]}}


def jobset(*conditions, **fields):
    """A JobSet with conditions that hold."""
    entries = [{'type': name, 'status': 'True', 'message': 'because'} for name in conditions]
    return {'spec': fields, 'status': {'conditions': entries, 'restarts': 3}}


@pytest.mark.parametrize(
    ('state', 'pods', 'resource', 'run', 'code'),
    [
        (jobset(suspend=True), [], Resource.WAITING, Run.ABSENT, None),
        (jobset(), [], Resource.WAITING, Run.ABSENT, None),
        (jobset(), [pod('Pending')], Resource.WAITING, Run.ABSENT, None),
        (jobset(), [pod('Pending', why='ContainerCreating')], Resource.WAITING, Run.ABSENT, None),
        (jobset(), [pod('Pending', why='ImagePullBackOff')], Resource.FAILED, Run.ABSENT, None),
        (jobset(), [pod('Pending', why='InvalidImageName')], Resource.FAILED, Run.ABSENT, None),
        (jobset(), [pod('Running'), pod('Pending')], Resource.READY, Run.RUNNING, None),
        (jobset('Completed'), [pod('Succeeded', 0)], Resource.READY, Run.ENDED, 0),
        (jobset('Failed'), [pod('Failed', 2), pod('Failed', 1)], Resource.READY, Run.ENDED, 2),
        (jobset('Failed'), [pod('Failed', 137), pod('Failed', 1)], Resource.READY, Run.ENDED, 137),
        (jobset('Failed'), [], Resource.READY, Run.ENDED, 1),
    ],
)
def test_the_state_of_a_jobset(state, pods, resource, run, code):
    seen = jobsets.observe(state, pods)
    assert (seen.resource, seen.run, seen.exit_code) == (resource, run, code)


class Kubectl(Commands):
    """Has one workload, in a state; the words that it ran."""

    def __init__(self, command, *conditions):
        super().__init__()
        containers = [{'command': ['bash', '-c', f'echo XPK Start; ({command})']}]
        self.jobset = jobset(*conditions, containers=containers)
        self.pods = [] if conditions else [pod('Running')]

    def run(self, words, *, patience=None):
        items = self.jobset if 'jobset' in words else {'items': self.pods}
        return Result(0, json.dumps(items), '')


def prepared(commit, *run, **flags):
    """A workload whose sources are of a commit."""
    cloud = workload(*run, **flags)
    cloud.launched.key = launched_run.key_of(cloud.launched.arguments)
    cloud.launched.sources = sources.Sources(pathlib.Path(), commit, frozenset(), '')
    return cloud


def test_a_workload_of_that_name_with_another_work_directory_is_not_taken_for_this_one():
    """Else `keep` would call that one's end this run's, and delete it."""
    cloud = prepared('a' * 12)
    cloud.commands = Kubectl(cloud.command(), 'Completed')
    assert cloud.look().run is Run.ENDED
    cloud.commands = Kubectl(prepared('a' * 12, '--workdir=gs://x/y').command(), 'Completed')
    assert cloud.look().run is Run.OTHER
    cloud.launched.key = launched_run.ANY  # `status` knows no arguments
    assert cloud.look().run is Run.ENDED


@pytest.mark.parametrize('there', [('b' * 12, '--config.seed=1'), ('a' * 12, '--config.seed=2')])
def test_a_workload_of_another_commit_or_other_arguments_goes_on_until_it_is_replaced(
    there, monkeypatch, capsys
):
    ours = prepared('a' * 12, '--config.seed=1')
    ours.commands = Kubectl(prepared(*there).command())
    assert ours.look().run is Run.RUNNING and ours.look().run is Run.RUNNING
    assert capsys.readouterr().err.count(f'commit {there[0]}') == 1
    ours = prepared('a' * 12, '--config.seed=1', update=True)
    ours.commands = Kubectl(prepared(*there).command())
    assert ours.look().run is Run.ABSENT  # so `start` deletes and submits
    done = []
    monkeypatch.setattr(ours, 'delete', lambda: done.append('delete'))
    monkeypatch.setattr(ours, 'create', lambda: done.append('create'))
    ours.start()
    assert done == ['delete', 'create']


def test_status_says_which_commit_runs():
    cloud = workload()
    cloud.commands = Kubectl(prepared('a' * 12).command())
    assert 'commit aaaaaaaaaaaa' in cloud.look().detail


def test_a_workload_that_cannot_be_is_refused_before_anything_is_built():
    for flags in ({'name': 'Run_1'}, {'name': 'a' * 41}, {'docker_image': 'a', 'repository': 'b'}):
        with pytest.raises(options.UsageError):
            workload(**flags)
    with pytest.raises(options.UsageError, match='survive XPK'):
        workload(docker_image='x', image_folder="/it's").command()


def test_a_ready_image_is_run_as_it_is_and_other_flags_reach_xpk(capsys):
    flags = {'docker_image': 'r/i:1', 'priority': 'high', 'env': 'A=1,B=x', 'grace': 15}
    cloud = gke.Workload(
        gke.GkeOptions(name='n', cluster='c', zone='z', **flags), RUN, Commands(dry_run=True)
    )
    cloud.prepare()
    cloud.create()
    words = shlex.split(capsys.readouterr().out)
    wanted = ['--docker-image=r/i:1', '--priority=high', '--env=A=1', '--env=B=x']
    wanted += ['--restart-on-exit-codes=75', '--termination-grace-period-seconds=15']
    assert set(wanted) <= set(words) and not [w for w in words if w.startswith('--script-dir')]


@pytest.mark.parametrize(
    'flags, run',
    [({}, ['--workdir=/shared/my run']), ({'image_folder': 'a b'}, []), ({'name': 'x'}, [])],
)
def test_what_xpk_would_change_is_refused_before_an_image_is_built(flags, run, monkeypatch):
    monkeypatch.setattr(Commands, 'run', lambda *_, **__: pytest.fail('a command was run'))
    cloud = workload(*run, **flags)
    if flags == {'name': 'x'}:
        cloud.prepare()
        return
    with pytest.raises(options.UsageError, match='do not survive XPK'):
        cloud.prepare()


ODD = ['null', '[]', '', 'garbage', '{"status": 5}', '{"status": {"conditions": [5]}}']
SPARSE = ['{"status": null}', '{"status": {"conditions": null}}', '{}']


@pytest.mark.parametrize('jobset_text', ODD + SPARSE)
@pytest.mark.parametrize(
    'pods_text',
    [
        '{"items": null}',
        '{"items": [{"status": {"phase": "Pending", "containerStatuses": null}}]}',
        '{"items": [{"status": {"initContainerStatuses": [{"state": {"waiting": null}}]}}]}',
    ],
)
def test_an_answer_of_another_form_is_no_traceback(jobset_text, pods_text, monkeypatch):
    def answer(_, words, **__):
        return Result(0, pods_text if 'pods' in words else jobset_text, 'W1129 deprecated\n')

    monkeypatch.setattr(Commands, 'run', answer)
    if jobset_text in SPARSE:
        assert workload().look().resource is Resource.WAITING
        return
    with pytest.raises(Unreachable, match='form that is not known'):
        workload().look()
