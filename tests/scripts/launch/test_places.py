"""A launch goes on where it began, and `create` and `delete` say only what they know."""

import dataclasses
import os

import pytest

from elenchus.scripts.launch import actions, gke, options, ssh, tpu
from elenchus.scripts.launch.cloud import CloudError, Unreachable
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.states import Progress, Resource, State
from tests.support import gcloud_errors as errors
from tests.support import launch_faults
from tests.support.fake_gcloud import FakeClock

RUN = launch_faults.RUN
PLUGIN = (
    'Unable to connect to the server: getting credentials: exec: executable '
    'gke-gcloud-auth-plugin not found\n\nIt looks like you are trying to use a client-go '
    'credential plugin that is not installed.\n'
)
ABSENT = 'Error from server (NotFound): jobsets.jobset.x-k8s.io "run1" not found'


@pytest.fixture(autouse=True)
def launches(tmp_path):
    """Ledgers are kept apart from those of this machine."""
    with launch_faults.launches_in(tmp_path / 'launches'):
        yield tmp_path / 'launches'


class Projects(Commands):
    """gcloud with slices in several projects, one of which is the default."""

    def __init__(self):
        super().__init__()
        self.default, self.slices = 'a', set()
        self.fault = None

    def run(self, words, *, patience=None):
        """Answers one command."""
        project = ([w[10:] for w in words if w.startswith('--project=')] or [self.default])[0]
        if words[1] == 'config':
            return Result(0, self.default + '\n', '')
        if words[4] == 'create':
            if self.fault is not None:
                raise self.fault
            self.slices.add(project)
        if project not in self.slices:
            return errors.missing_resource(words[5])
        if words[4] == 'delete':
            self.slices.remove(project)
        return Result(0, 'WAITING_FOR_RESOURCES\n', '')


def session(commands, **flags):
    """A command line of tpu.sh."""
    cloud = tpu.Tpu(tpu.TpuOptions(name='pod', zone='z', guard=False, **flags), RUN, commands)
    line = actions.Session(cloud.flags, cloud, commands)
    line.clock, line.lines = FakeClock(), []
    line.say = line.lines.append
    return line


def test_the_default_project_may_be_switched_between_create_and_delete(capsys):
    commands = Projects()
    session(commands).act('create')
    commands.default = 'b'
    session(commands).status()
    assert 'machines waiting' in capsys.readouterr().out
    session(commands).act('delete')
    assert not commands.slices
    session(commands).act('create')  # a new launch begins in the project of its time
    assert commands.slices == {'b'}


@pytest.mark.parametrize(('first', 'later'), [({}, {'project': 'a'}), ({'project': 'a'}, {})])
def test_a_launch_has_one_ledger_with_and_without_its_project(launches, first, later):
    commands = Projects()
    session(commands, **first).act('create')
    again = session(commands, **later)
    assert again.ledger.read().requested is not None
    with again.ledger.lock(), pytest.raises(options.UsageError, match='keeps pod already'):
        session(commands, **first).ledger.lock().__enter__()
    again.act('delete')
    assert not commands.slices and len(list(launches.rglob('pod.json'))) == 1


def test_the_same_name_in_two_projects_is_two_launches(launches):
    commands = Projects()
    session(commands, project='b').act('create')
    session(commands).act('create')  # in the default project, a
    assert commands.slices == {'a', 'b'}
    session(commands, project='b').act('delete')
    session(commands, project='a').act('delete')
    assert not commands.slices and len(list(launches.rglob('pod.json'))) == 2


def test_create_twice_keeps_the_bill_and_the_budget():
    commands = Projects()
    session(commands).act('create')
    ledger = Ledger('tpu', '', 'z', 'pod')
    before = Progress(state=State.RUNNING, requested=1.0, billed=500.0, billing=7.0, place='a')
    ledger.write(before)
    again = session(commands)
    again.act('create')
    assert ledger.read() == before and 'there already' in again.lines[-1]


@pytest.mark.parametrize(
    ('fault', 'is_known'),
    [(KeyboardInterrupt(), True), (Unreachable('lost'), True), (actions.CloudError('no'), False)],
)
def test_create_is_in_the_ledger_before_the_request(fault, is_known):
    commands = Projects()
    commands.fault = fault
    with pytest.raises(type(fault)):
        session(commands).act('create')
    progress = Ledger('tpu', '', 'z', 'pod').read()
    assert (progress.requested is not None, progress.place) == (is_known, 'a' * is_known)


@pytest.mark.parametrize('kind', ['file', 'folder', 'lock'])
@pytest.mark.parametrize('action', ['create', 'keep', 'status', 'cost', 'delete'])
def test_a_ledger_that_cannot_be_is_one_line_and_nothing_is_requested(
    launches, capsys, monkeypatch, kind, action
):
    if kind == 'file':
        launches.write_text('')
    elif kind == 'folder':
        (launches / 'tpu' / 'p' / 'z' / 'pod.json').mkdir(parents=True)
    else:
        (launches / 'tpu' / 'p' / 'z' / 'pod.lock').mkdir(parents=True)
    monkeypatch.setattr(tpu.Tpu, 'prepare', lambda self: None)
    verbs = []

    def run(self, words, *, patience=None):
        verbs.append(words[4])
        return errors.missing_resource('pod')

    monkeypatch.setattr(Commands, 'run', run)
    code = tpu.main([action, '--name=pod', '--zone=z', '--project=p', '--', *RUN])
    error = [line for line in capsys.readouterr().err.splitlines() if '[launch]' not in line]
    if kind != 'lock' or action == 'keep':
        assert code == 2 and len(error) == 1 and 'ledger' in error[0], error
        assert 'create' not in verbs


class Cluster(Commands):
    """kubectl and xpk: a workload in a context; the words that were run."""

    def __init__(self, *, fault=''):
        super().__init__()
        self.context, self.there, self.words, self.fault = 'gke_p_r_d', '', [], fault

    def run(self, words, *, patience=None):
        """Answers one command."""
        self.words.append(list(words))
        context = ([w[10:] for w in words if w.startswith('--context=')] or [self.context])[0]
        if self.fault:
            return Result(1, '', self.fault)
        if words[:2] == ['kubectl', 'config']:
            return Result(0, self.context + '\n', '')
        if words[0] == 'xpk':
            self.there = self.context = 'gke_p_r_c' if words[2] == 'create' else ''
            return Result(0, '', '')
        if context != self.there:
            return Result(1, '', ABSENT)
        return Result(0, '{"items": []}', '')


def workload(commands, **flags):
    """A command line of gke.sh."""
    flags = {'name': 'run1', 'cluster': 'c', 'zone': 'z', 'docker_image': 'i', **flags}
    cloud = gke.Workload(gke.GkeOptions(**flags), RUN, commands)
    line = actions.Session(cloud.flags, cloud, commands)
    line.clock = FakeClock()
    return line


def test_the_current_context_may_be_switched_while_a_workload_is_there():
    commands = Cluster()
    workload(commands).act('create')
    commands.context = 'minikube'
    line = workload(commands)
    assert line.cloud.look().resource is not Resource.ABSENT
    line.act('delete')
    assert '--project=p' in commands.words[-1]
    workload(commands, context='other')  # no launch is there any more


def test_another_context_than_that_of_the_creation_is_refused():
    commands = Cluster()
    workload(commands).act('create')
    with pytest.raises(options.UsageError, match='gke_p_r_c'):
        workload(commands, context='minikube')


@pytest.mark.parametrize(
    'text',
    [
        PLUGIN,
        PLUGIN + ABSENT,
        '[XPK] Task: Get credentials failed: exec: executable gke-gcloud-auth-plugin not found',
        'xpk: command not found',
        'error: cluster "c" not found',
        'Error from server (NotFound): namespaces "run1" not found',
        'Error from server (NotFound): jobsets.jobset.x-k8s.io "run10" not found',
    ],
)
@pytest.mark.parametrize('action', ['status', 'delete'])
def test_an_absence_of_anything_else_is_no_deletion(text, action):
    line = workload(Cluster(fault=text))
    with pytest.raises(CloudError, match='nobody') as error:
        line.status() if action == 'status' else line.act(action)
    assert '\n' not in str(error.value)
    if 'plugin' in text:
        assert 'gcloud components install gke-gcloud-auth-plugin' in str(error.value)


@pytest.mark.parametrize(
    'text',
    [
        'NOT_FOUND: Location pod is not found.',
        'gcloud: pod: command not found',
        "NOT_FOUND: Resource 'projects/pod/locations/z/queuedResources/pod2' was not found",
        "NOT_FOUND: Project 'pod' was not found or deleted",
    ],
)
def test_an_absence_of_another_thing_is_none_of_the_slice(text):
    line = session(Projects())
    line.commands.run = lambda words, patience=None: Result(1, '', 'ERROR: (gcloud.x) ' + text)
    for act in (line.status, lambda: line.act('delete')):
        with pytest.raises(CloudError, match='nobody'):
            act()


@pytest.mark.parametrize(
    'text',
    [
        'The connection to the server localhost:8080 was refused - did you specify the right host?',
        'error: no configuration has been provided, try setting KUBERNETES_MASTER',
        'error: context "gke_p_z_c" does not exist',
        'error: current-context is not set',
    ],
)
def test_a_kubectl_without_a_cluster_hears_how_to_get_one(text):
    with pytest.raises(CloudError, match='--context=.*get-credentials c ') as error:
        workload(Cluster(fault=text)).status()
    assert error.value.cause is actions.Cause.REFUSED


def test_status_beside_keep_writes_no_bill_of_its_own():
    commands = Projects()
    line = session(commands)
    line.act('create')
    before = dataclasses.replace(line.ledger.read(), billing=5.0)
    line.ledger.write(before)
    with line.ledger.lock():  # as `keep` in another terminal
        session(commands).status()
        assert line.ledger.read() == before
    session(commands).status()
    assert line.ledger.read().billing is None and line.ledger.read().billed > 0


def test_cost_counts_the_chips_that_were_requested(capsys):
    session(Projects(), type='v6e-256').act('create')
    line = session(Projects())
    line.ledger.write(dataclasses.replace(line.ledger.read(), billed=3600.0))
    assert line.cost() == 0 and '256.00 chip-hours on 256 chips' in capsys.readouterr().out


def test_status_of_machines_that_no_launch_requested_starts_no_bill():
    commands = Projects()
    commands.slices.add('a')
    session(commands).status()
    assert Ledger('tpu', '', 'z', 'pod').read() == Progress()


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Commands, 'run', interrupt)
    for words in (['status'], ['create'], ['delete'], ['logs'], ['fetch', '--workdir=gs://b/r']):
        into = f'--into={os.environ["ELENCHUS_LAUNCHES"]}/into'
        assert tpu.main([*words, '--name=pod', '--zone=z', into]) == 130
        error = capsys.readouterr().err
        assert error.startswith('error: interrupted') and error.count('\n') == 1


def test_a_launch_on_many_hosts_has_a_ledger_of_its_own():
    hosts = [f'user@machine-{i}.example.org' for i in range(40)]
    ledgers = [Ledger('ssh', ','.join(hosts[:n]), 'elenchus') for n in (38, 39, 40)]
    for i, ledger in enumerate(ledgers):
        ledger.write(Progress(crashes=i))
        with ledger.lock():
            pass
    assert [ledger.read().crashes for ledger in ledgers] == [0, 1, 2]
    flags = ssh.SshOptions(hosts=','.join(hosts), name='a' * 100)
    cloud = ssh.Machines(flags, RUN, Commands())
    Ledger(*cloud.ledger_names).write(Progress())
