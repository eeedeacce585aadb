"""A stand-in for gcloud on a fake clock: queued resources, their hosts, and faults at any command.

It answers as SDK 528 does: exit codes, states of queued resources
(cloud.google.com/tpu/docs/queued-resources), errors (gcloud_errors.py); gcloud repeats a command on
a host after an error of ssh, and exits with the first failing host's status. Hosts follow
scripts/launch/detached.sh, which has tests of its own.
"""

import re
import shlex

from elenchus.scripts.launch.commands import Commands, Result
from tests.support import gcloud_errors as errors
from tests.support.fake_guard import FakeGuard
from tests.support.fake_host import Host

SECONDS = {'describe': 3, 'create': 20, 'ssh': 5, 'scp': 30, 'delete': 60}
INSTALLATION = 180
"""Seconds that a host needs for its environment."""


class FakeClock:
    """Time that passes when somebody waits, and things that happen at their time."""

    def __init__(self):
        self.time = 1e9
        self.events = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        """Lets time pass; events on the way happen at their time."""
        end = self.time + seconds
        while self.events and min(self.events, key=lambda e: e[0])[0] <= end:
            event = min(self.events, key=lambda e: e[0])
            self.events.remove(event)
            self.time = max(self.time, event[0])
            event[1]()
        self.time = max(self.time, end)

    def at(self, seconds, action):
        """Does something this many seconds from now."""
        self.events.append((self.time + seconds, action))


class FakeGcloud(Commands):
    """Runs words of gcloud on a cloud in memory.

    Attributes:
        runs: (seconds, exit code) of every attempt; the last one is that of all later ones. Seconds
            None: until it is stopped. A list of codes: of every host.
        faults: (verb, number of the call from 1) -> Result instead of the answer, or a function of
            the cloud that returns one, or None to answer.
        queue: Seconds in the queue, of every request; the last one of all later ones.
        log: All words, in order.
        processes: Starts of a process on any host.
        doubles: Starts of a process beside a living one.
        bills: [from, to] of every slice.
    """

    def __init__(self, clock, *, runs=((3600, 0),), faults=None, queue=(600,), hosts=2):
        super().__init__()
        self.clock = clock
        self.runs = list(runs)
        self.faults = dict(faults or {})
        self.queue = list(queue)
        self.num_hosts = hosts
        self.state = None
        self.node = ''
        self.hosts = []
        self.calls = {}
        self.log = []
        self.attempts = 0
        self.processes = 0
        self.doubles = 0
        self.bills = []
        self.hidden = 0
        self.request = 0
        self.guard = FakeGuard(self)

    # What happens to the cloud.

    def activate(self):
        """The request comes up, if it still waits."""
        if self.state in ('WAITING_FOR_RESOURCES', 'PROVISIONING'):
            self.state, self.node = 'ACTIVE', 'READY'
            self.hosts = [Host() for _ in range(self.num_hosts)]
            self.bills.append([self.clock.now(), None])
            self.guard.watch()

    def take_away(self, state='SUSPENDED'):
        """The cloud or a person takes the machines."""
        if self.state == 'ACTIVE':
            self.bills[-1][1] = self.clock.now()
        self.state, self.node, self.hosts = state, 'PREEMPTED', []

    def preempt_node(self):
        """The node goes, the request stays ACTIVE."""
        self.bills[-1][1] = self.clock.now()
        self.node, self.hosts = 'PREEMPTED', []

    def preempt_node_if_running(self):
        """The node goes once its run is on it."""
        if self.hosts and all(host.key for host in self.hosts):
            self.preempt_node()

    def reboot(self):
        """Hosts lose their processes and their files."""
        for host in self.hosts:
            host.wiped = True

    def notice(self):
        """All processes save and leave with 75."""
        for host in self.hosts:
            host.ends, host.code = self.clock.now(), 75

    def start_elsewhere(self):
        """Somebody's run is on a slice of the name."""
        self.state = 'PROVISIONING'
        self.activate()
        for host in self.hosts:
            host.key = 'somebody'

    @property
    def hours(self):
        """Billed hours of all slices."""
        now = self.clock.now()
        return sum((now if end is None else end) - start for start, end in self.bills) / 3600

    @property
    def running(self):
        """What is billed now."""
        return [bill for bill in self.bills if bill[1] is None]

    def count(self, verb):
        """Calls of a verb."""
        return self.calls.get(verb, 0)

    # gcloud.

    def run(self, words, *, patience=None):
        """Answers one command."""
        self.log.append(list(words))
        if words[1] == 'config':
            return Result(0, 'p\n', '')
        if words[1] == 'storage':
            return Result(0, '\n'.join(self.guard.ends), '')
        group, verb = words[3], words[4]
        verb = 'node' if (group, verb) == ('tpu-vm', 'describe') else verb
        command = next((w for w in words if w.startswith('--command=')), '')
        action = re.search(r'detached\.sh (\w+)', command)
        if verb == 'ssh':
            verb = action.group(1) if action else 'unpack'
        self.clock.sleep(SECONDS.get(verb, 5))
        self.calls[verb] = self.calls.get(verb, 0) + 1
        fault = self.faults.get((verb, self.calls[verb]), self.faults.get((verb, 0)))
        if callable(fault):
            fault = fault(self)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return fault
        return getattr(self, f'_{verb}')(words, command)

    def _describe(self, words, command):
        if self.state is None or self.hidden > 0:
            self.hidden -= 1
            return errors.missing_resource(words[5])
        reason = '\tThere is no more capacity in the zone.' if self.state == 'FAILED' else '\t'
        return Result(0, f'{self.state}{reason}\n', '')

    def _node(self, words, command):
        return Result(0, self.node + '\n', '') if self.node else errors.missing_resource(words[5])

    def _create(self, words, command):
        if self.state is not None:
            return errors.already_exists(words[5])
        self.state = 'WAITING_FOR_RESOURCES'
        self.guard.read_script(words)
        seconds = self.queue[min(self.request, len(self.queue) - 1)]
        self.request += 1
        if seconds is not None:
            self.clock.at(seconds, self.activate)
        return Result(0, '', 'Create request issued')

    def _delete(self, words, command):
        if self.state is None:
            return errors.missing_resource(words[5])
        self.take_away()
        self.state, self.node = None, ''
        return Result(0, '', 'Deleted')

    def _unless_down(self):
        if not self.hosts:
            return errors.DOWN
        return None

    def _scp(self, words, command):
        if (down := self._unless_down()) is not None:
            return down
        for host in self.hosts:
            host.archives.add(words[5].rpartition('/')[2])
        return Result(0, '', '')

    def _unpack(self, words, command):
        if (down := self._unless_down()) is not None:
            return down
        self.clock.sleep(INSTALLATION)
        archive = re.search(r'tar -xzf (\S+)', command).group(1)
        if (down := self._unless_down()) is not None:
            return down
        for host in self.hosts:
            if archive not in host.archives:
                return Result(1, '', f'tar: {archive}: Cannot open: No such file or directory')
            host.version = archive
        return Result(0, '', '')

    def _on_hosts(self, command, do):
        if (down := self._unless_down()) is not None:
            return down
        words = shlex.split(re.search(r'detached\.sh (\w+[^;]*)', command).group(1))
        lines = [f'elenchus-status h{i} {do(h, words)}' for i, h in enumerate(self.hosts)]
        return Result(0, '\n'.join(lines), '')

    def _watch(self, command):
        """Hosts hear of the budget, and that somebody looks."""
        seconds = re.search(r'now \+ (\d+)', command)
        for host in self.hosts:
            host.watched = self.clock.now()
            host.deadline = self.clock.now() + int(seconds.group(1)) if seconds else host.deadline

    def _logs(self, words, command):
        if (down := self._unless_down()) is not None:
            return down
        which = shlex.split(command.partition('detached.sh ')[2])[3:]
        lines = [f'\x1b[31mlog of h{i}' for i, _ in enumerate(self.hosts) if f'h{i}' in which]
        return Result(0, '\n'.join(lines) + '\n', '')

    def _status(self, words, command):
        self._watch(command)
        seen = self._on_hosts(command, lambda host, w: host.line(w[2], self.clock.now()))
        may = 'yes' if self.guard.may_delete else 'no'
        return seen if seen.code else Result(0, f'elenchus-guard {may}\n{seen.output}', '')

    def start_on(self, hosts, command):
        """Starts the run on some hosts, as detached.sh does."""
        now = self.clock.now()
        _, _, key, attempt, version = shlex.split(command.partition('detached.sh ')[2])[:5]
        if any(
            h.attempt != attempt and h.line(key, now).startswith(('ended', 'absent')) for h in hosts
        ):
            self.attempts += 1
        seconds, codes = self.runs[min(self.attempts, len(self.runs)) - 1]
        for i, host in enumerate(hosts):
            alive = host.line(key, now).startswith('running')
            if alive or (host.attempt == attempt and not host.wiped):
                continue
            self.processes += 1
            self.doubles += alive
            code = codes[i] if isinstance(codes, (list, tuple)) else codes
            host.key, host.attempt, host.stopped, host.wiped = key, attempt, False, False
            host.code, host.run_version = code or 0, version
            host.ends = None if seconds is None or code is None else now + seconds

    def _start(self, words, command):
        if (down := self._unless_down()) is not None:
            return down
        if not all(host.version for host in self.hosts):
            return Result(127, '', 'bash: scripts/launch/detached.sh: No such file or directory')
        self._watch(command)
        self.start_on(self.hosts, command)
        return Result(0, '', '')

    def _end(self, host, code, stopped=True):
        if host.ends is None or host.ends > self.clock.now():
            host.ends, host.code = self.clock.now(), code
        host.stopped = host.stopped or (stopped and bool(host.key))

    def _abort(self, words, command):
        return self._on_hosts(command, lambda host, w: self._end(host, int(w[2]), stopped=False))

    def _signal(self, host, code):
        line = host.line('-', self.clock.now())
        self._end(host, code)
        return line

    def _stop(self, words, command):
        return self._on_hosts(command, lambda host, w: self._signal(host, 75))

    def _kill(self, words, command):
        return self._on_hosts(command, lambda host, w: self._signal(host, 137))


def lose_answer(verb):
    """A fault: the command is done, and its answer lost."""

    def fault(cloud):
        getattr(cloud, f'_{verb}')(cloud.log[-1], cloud.log[-1][-1])
        return errors.NETWORK if verb == 'create' else errors.SSH

    return fault


def repeat(cloud):
    """A fault: ssh loses the connection after the start, and gcloud repeats the command."""
    command = next(w for w in cloud.log[-1] if w.startswith('--command='))
    cloud.start_on(cloud.hosts, command)
    cloud.clock.sleep(5)
    cloud.start_on(cloud.hosts, command)


def reach_first_host(cloud):
    """A fault: the command reaches one host only."""
    command = next(w for w in cloud.log[-1] if w.startswith('--command='))
    cloud.start_on(cloud.hosts[:1], command)
    return errors.SSH


class LaptopDies(BaseException):
    """The machine that runs `keep` goes away for good."""


def die(cloud):
    """A fault: the laptop never comes back."""
    raise LaptopDies


def sleep_for(seconds, result=None):
    """A fault: the laptop sleeps during the command."""

    def fault(cloud):
        cloud.clock.sleep(seconds)
        return result

    return fault
