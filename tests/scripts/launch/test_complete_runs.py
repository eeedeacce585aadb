"""Which complete runs are done, and which the same machines start again."""

import json
import pathlib

import pytest

from elenchus.scripts.launch import launched_run, remote, sources
from elenchus.scripts.launch.commands import Result
from elenchus.scripts.launch.launched_run import LaunchedRun
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.states import Resource, Run
from tests.scripts.launch.test_gke import jobset, prepared
from tests.support.fake_gcloud import FakeClock, FakeGcloud
from tests.support.launch_faults import RUN, launches_in, make_session

OTHER = (*RUN, "--config.stages=('base', 'actor')")


def launched(run, *, commit='abc', update=False):
    """The run of a command line."""
    result = LaunchedRun(run, Ledger('tpu', 'pod'), tree='head', update=update)
    result.sources = sources.Sources(pathlib.Path('/x'), commit, frozenset(), '')
    result.key = launched_run.key_of(run)
    return result


CASES = [
    (RUN, 'abc', False, True),
    (RUN, 'abc', True, True),  # nothing is new
    (RUN, 'def', False, True),
    (RUN, 'def', True, False),
    (OTHER, 'abc', False, False),
    (OTHER, 'def', True, False),
]


@pytest.mark.parametrize(('run', 'commit', 'update', 'is_done'), CASES)
def test_a_complete_run_is_done_for_its_own_arguments(run, commit, update, is_done, tmp_path):
    with launches_in(tmp_path):
        wanted = launched(run, commit=commit, update=update)
        version = launched_run.version_of('abc', RUN)
        for code, old in ((0, version), (1, version), (0, '')):
            hosts = remote.read_status(f'elenchus-status h ended {code} 3 - {old or "-"}')
            seen = remote.observe(hosts, launched=wanted)
            ended = is_done or code or not old
            assert seen.run is (Run.ENDED if ended else Run.ABSENT)


@pytest.mark.parametrize(('run', 'commit', 'update', 'is_done'), CASES)
def test_a_complete_workload_likewise(run, commit, update, is_done):
    ours = prepared(commit, *run, update=update)
    there = prepared('abc', *RUN)
    containers = [{'command': ['bash', '-c', there.command()]}]
    state = jobset('Completed', containers=containers)
    ours.commands.run = lambda words, patience=None: Result(
        0, json.dumps(state if 'jobset' in words else {'items': []}), ''
    )
    seen = ours.look()
    assert seen.resource is Resource.READY
    assert seen.run is (Run.ENDED if is_done else Run.ABSENT)


@pytest.mark.parametrize('arguments', [RUN, OTHER])
def test_machines_that_stay_run_the_next_stages_of_a_complete_run(tmp_path, arguments):
    gcloud = FakeGcloud(FakeClock())
    with launches_in(tmp_path):
        assert make_session(gcloud, [], after='leave').keep() == 0
        assert gcloud.processes == 2 and gcloud.running
        again = make_session(gcloud, [], after='leave')
        again.cloud.launched.arguments = arguments
        assert again.keep() == 0
    assert gcloud.processes == (2 if arguments == RUN else 4)
