"""Faults of a launch on Cloud TPU, by state: what the user saw, what was billed, what stayed.

python -m tests.support.launch_faults      prints the table of docs/pods.md
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import typing

from elenchus.scripts.launch import actions, exit_codes, remote, sources
from elenchus.scripts.launch.ledger import FOLDER, Ledger
from elenchus.scripts.launch.options import UsageError
from elenchus.scripts.launch.tpu import Tpu, TpuOptions
from tests.support import fake_gcloud as fake
from tests.support.fake_gcloud import FakeClock, FakeGcloud

HOUR = 3600
RUN = ('--config=configs/lab.py', '--workdir=gs://bucket/run')


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        state: State of the launch when it happens.
        name: What happens.
        code: Exit code of the launcher.
        seen: Words that the user must have seen.
        hours: Billed hours, at most; at least three quarters of it.
        requests: Slices that were requested.
        processes: Processes that were started, on both hosts together.
        cloud: Arguments of the stand-in.
        flags: Flags of tpu.sh.
        begin: What is done to the cloud before; events on its clock.
        stays: Slices that stay and are billed.
        again: Whether the command is run twice, after Ctrl-C.
    """

    state: str
    name: str
    code: int
    seen: str
    hours: float
    requests: int = 1
    processes: int = 2
    cloud: dict = dataclasses.field(default_factory=dict)
    flags: dict = dataclasses.field(default_factory=dict)
    begin: typing.Callable[[FakeGcloud], None] | None = None
    stays: int = 0
    again: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    code: int
    lines: list[str]
    cloud: FakeGcloud

    @property
    def seen(self):
        """The last line that the user saw."""
        return self.lines[-1]


def at(seconds, method, *arguments):
    """Something happens to the cloud this many seconds after the beginning."""
    return lambda cloud: cloud.clock.at(seconds, lambda: getattr(cloud, method)(*arguments))


def both(*things):
    """Several things happen."""
    return lambda cloud: [thing(cloud) for thing in things] and None


def by_somebody(cloud):
    """The action `stop` in another terminal."""
    cloud.clock.at(2000, lambda: [cloud._end(host, 75) for host in cloud.hosts])


def give_notice(cloud):
    """A preemption with a notice: all processes leave with 75, then the machines go."""
    cloud.clock.at(2000, cloud.notice)
    cloud.clock.at(2030, lambda: cloud.take_away('SUSPENDING'))


def interrupt(cloud):
    """Ctrl-C."""
    raise KeyboardInterrupt


def always(verb, fault):
    return {'faults': {(verb, 0): fault}}


def first(verb, count, fault):
    return {'faults': {(verb, i): fault for i in range(1, count + 1)}}


def late(verb, start, count, fault):
    return {'faults': {(verb, i): fault for i in range(start, start + count)}}


DISK = fake.Result(1, '', 'scp: write remote: No space left on device')
NO_PYTHON = fake.Result(1, '', '[setup] error: no Python 3.11 or newer')
TO_THE_END = 'done: the run is complete'
FAULTS = (
    Fault(
        'absent',
        'gcloud is not installed',
        2,
        'not installed',
        0,
        0,
        0,
        always('describe', fake.NOT_INSTALLED),
    ),
    Fault('absent', 'not logged in', 2, 'active account', 0, 0, 0, always('describe', fake.LOGIN)),
    Fault(
        'absent',
        'no network for a while',
        0,
        TO_THE_END,
        1.15,
        cloud=first('describe', 3, fake.NETWORK),
    ),
    Fault(
        'absent',
        'another run is on a slice of that name',
        2,
        'another run is on it',
        0.01,
        0,
        0,
        begin=FakeGcloud.start_elsewhere,
        stays=1,
    ),
    Fault('absent', 'quota refuses', 2, 'Quota', 0, 1, 0, always('create', fake.QUOTA)),
    Fault(
        'absent',
        'no permission',
        2,
        'PERMISSION_DENIED',
        0,
        1,
        0,
        always('create', fake.PERMISSION),
    ),
    Fault(
        'absent',
        'server errors for a while',
        0,
        TO_THE_END,
        1.15,
        4,
        cloud=first('create', 3, fake.SERVER),
    ),
    Fault(
        'absent',
        'the answer to the request is lost',
        0,
        TO_THE_END,
        1.15,
        1,
        cloud=first('create', 1, fake.lose_answer('create')),
    ),
    Fault(
        'requested', 'not listed yet', 0, TO_THE_END, 1.15, begin=lambda c: setattr(c, 'hidden', 3)
    ),
    Fault(
        'waiting', 'one look fails', 0, TO_THE_END, 1.15, cloud=late('describe', 3, 1, fake.NETWORK)
    ),
    Fault(
        'waiting',
        'the token expires for a time',
        0,
        TO_THE_END,
        1.4,
        cloud=late('describe', 3, 4, fake.TOKEN),
    ),
    Fault('waiting', 'a look hangs', 0, TO_THE_END, 1.2, cloud=late('describe', 3, 1, fake.HANGS)),
    Fault(
        'waiting',
        'the laptop sleeps 8 hours, and the run ends 7 hours before it wakes',
        0,
        TO_THE_END,
        8.99,
        cloud=late('describe', 3, 1, fake.sleep_for(8 * HOUR)) | {'runs': [(HOUR, 0)]},
    ),
    Fault(
        'waiting',
        'the request fails, always',
        1,
        'is FAILED',
        0,
        4,
        0,
        begin=lambda c: (
            [
                c.clock.at(300 + 700 * i, lambda: setattr(c, 'state', c.state and 'FAILED'))
                for i in range(60)
            ]
            and None
        ),
        cloud={'queue': [None]},
    ),
    Fault(
        'waiting',
        'somebody deletes the request',
        1,
        'somebody deleted it',
        0,
        1,
        0,
        begin=at(300, 'take_away', None),
        cloud={'queue': [None]},
    ),
    Fault(
        'waiting',
        'Ctrl-C, and the command again',
        0,
        TO_THE_END,
        1.15,
        cloud=late('describe', 4, 1, interrupt),
        again=True,
    ),
    Fault(
        'ready',
        'the upload fails, always (disk full)',
        1,
        'No space left',
        0.3,
        1,
        0,
        always('scp', DISK),
    ),
    Fault(
        'ready',
        'the upload loses its connection twice',
        0,
        TO_THE_END,
        1.25,
        cloud=first('scp', 2, fake.SSH),
    ),
    Fault(
        'ready', 'no Python on the hosts', 1, 'no Python', 0.5, 1, 0, always('unpack', NO_PYTHON)
    ),
    Fault(
        'ready',
        'hosts never answer (firewall)',
        1,
        'never answered',
        2.0,
        1,
        0,
        {'faults': {('status', 0): fake.SSH}},
    ),
    Fault('ready', 'only uploads never arrive', 1, 'timed out', 2.0, 1, 0, always('scp', fake.SSH)),
    Fault(
        'ready',
        'preempted during the installation',
        0,
        TO_THE_END,
        1.3,
        2,
        begin=at(800, 'take_away'),
    ),
    Fault(
        'ready',
        'gcloud repeats the start after an error of ssh',
        0,
        TO_THE_END,
        1.15,
        cloud=first('start', 1, fake.repeat),
    ),
    Fault(
        'ready',
        'the answer to the start is lost',
        0,
        TO_THE_END,
        1.2,
        cloud=first('start', 1, fake.lose_answer('start')),
    ),
    Fault(
        'ready',
        'the start reaches one host',
        0,
        TO_THE_END,
        1.25,
        cloud=first('start', 1, fake.reach_first_host),
    ),
    Fault('running', 'nothing', 0, TO_THE_END, 1.15),
    Fault(
        'running', 'nothing, --after=leave', 0, TO_THE_END, 1.15, flags={'after': 'leave'}, stays=1
    ),
    Fault(
        'running',
        'the config is refused (exit code 2)',
        2,
        'exit code 2',
        0.15,
        cloud={'runs': [(60, 2)]},
    ),
    Fault(
        'running',
        'a crash at every start (exit code 1)',
        1,
        'exit code 1',
        0.4,
        processes=8,
        cloud={'runs': [(60, 1)]},
    ),
    Fault(
        'running',
        'one crash',
        0,
        TO_THE_END,
        1.25,
        processes=4,
        cloud={'runs': [(300, 1), (HOUR, 0)]},
    ),
    Fault(
        'running',
        'out of memory at every start (137)',
        137,
        'exit code 137',
        0.5,
        processes=8,
        cloud={'runs': [(60, (137, 1))]},
    ),
    Fault(
        'running',
        'one host fails, the other hangs',
        0,
        TO_THE_END,
        1.5,
        processes=4,
        cloud={'runs': [(300, (1, None)), (HOUR, 0)]},
    ),
    Fault('running', 'preempted with a notice (75)', 0, TO_THE_END, 1.7, 2, 4, begin=give_notice),
    Fault(
        'running', 'preempted without one', 0, TO_THE_END, 1.6, 2, 4, begin=at(2000, 'take_away')
    ),
    Fault(
        'running',
        'the node is preempted, the request stays ACTIVE',
        0,
        TO_THE_END,
        1.6,
        2,
        4,
        begin=at(2000, 'preempt_node'),
    ),
    Fault(
        'running',
        'preempted after every start',
        1,
        'is the limit',
        0.7,
        4,
        8,
        {'runs': [(HOUR, 0)], 'queue': [120]},
        {'max_preemptions': 3},
        begin=lambda c: (
            [c.clock.at(s, c.preempt_node_if_running) for s in range(700, 20000, 60)] and None
        ),
    ),
    Fault(
        'running',
        'the laptop is offline for three hours',
        0,
        TO_THE_END,
        5.3,
        cloud=late('status', 6, 14, fake.SSH) | {'runs': [(5 * HOUR, 0)]},
    ),
    Fault(
        'running',
        'a host does not answer for a while',
        0,
        TO_THE_END,
        1.25,
        cloud=late('status', 6, 4, fake.SSH),
    ),
    Fault('running', 'the hosts restart', 0, TO_THE_END, 1.7, 1, 4, begin=at(2000, 'reboot')),
    Fault(
        'running',
        '`stop` in another terminal',
        75,
        'stopped by the action stop',
        0.5,
        begin=by_somebody,
    ),
    Fault(
        'running',
        'somebody deletes the slice',
        1,
        'somebody deleted it',
        0.4,
        begin=at(2000, 'take_away', None),
    ),
    Fault(
        'running',
        'the budget is spent',
        75,
        'budget',
        2.1,
        cloud={'runs': [(9 * HOUR, 0)]},
        flags={'max_hours': 2.0},
    ),
    Fault(
        'running',
        'the budget is spent, --after=leave',
        75,
        'budget',
        2.1,
        cloud={'runs': [(9 * HOUR, 0)]},
        flags={'max_hours': 2.0, 'after': 'leave'},
    ),
    Fault(
        'running',
        'Ctrl-C, and the command again',
        0,
        TO_THE_END,
        1.15,
        cloud=late('describe', 20, 1, interrupt),
        again=True,
    ),
    Fault(
        'done',
        'the deletion fails three times',
        0,
        TO_THE_END,
        1.35,
        cloud=first('delete', 3, fake.BUSY),
    ),
    Fault(
        'done',
        'the answer to the deletion is lost',
        0,
        TO_THE_END,
        1.2,
        cloud=first('delete', 1, fake.lose_answer('delete')),
    ),
    Fault(
        'done',
        'the deletion fails, always',
        1,
        'NOT DELETED',
        4.5,
        cloud=always('delete', fake.SERVER),
        stays=1,
    ),
)


@contextlib.contextmanager
def launches_in(folder):
    """Ledgers are kept in this folder."""
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(FOLDER)
        if before is not None:
            os.environ[FOLDER] = before


def make_session(gcloud, lines, **flags):
    """A command line of tpu.sh at work on a stand-in."""
    cloud = Tpu(TpuOptions(name='pod', zone='z', **flags), RUN, gcloud)
    cloud._sources = sources.Sources(pathlib.Path('/x/elenchus-abc.tar.gz'), 'abc', frozenset(), '')
    cloud.key = remote.key_of('abc', RUN)
    session = actions.Session(cloud.flags, cloud, gcloud)
    session.clock, session.say = gcloud.clock, lines.append
    return session


def meet(fault):
    """Runs `keep` into a fault."""
    gcloud, lines = FakeGcloud(FakeClock(), **fault.cloud), []
    with tempfile.TemporaryDirectory() as folder, launches_in(folder):
        if fault.begin is not None:
            fault.begin(gcloud)
        code = make_session(gcloud, lines, **fault.flags).keep()
        if fault.again:
            assert code == 130 and 'interrupted' in lines[-1]
            code = make_session(gcloud, lines, **fault.flags).keep()
    return Outcome(code, lines, gcloud)


def print_table():
    """The table in Markdown."""
    rows = [
        '| state | what happens | seen last | exit code | requests | starts | billed | left running |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for fault in FAULTS:
        end = meet(fault)
        starts = end.cloud.processes / 2
        stays = 'nothing' if not end.cloud.running else 'the slice'
        rows.append(
            f'| {fault.state} | {fault.name} | {end.seen} | {end.code} | '
            f'{end.cloud.count("create")} | {starts:g} | {end.cloud.hours:.2f} h | {stays} |'
        )
    return '\n'.join(rows)


if __name__ == '__main__':
    print(print_table())
