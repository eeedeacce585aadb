"""Machines that ssh reaches; `ssh.sh --help` has the usage."""

from __future__ import annotations

import dataclasses
import re
import time
import typing

from elenchus.scripts.launch import actions, exit_codes, options, remote
from elenchus.scripts.launch.cloud import CloudError, Refused, Unreachable
from elenchus.scripts.launch.commands import FULL, SSH_FAILED, Commands, error_of
from elenchus.scripts.launch.launch_options import LaunchOptions
from elenchus.scripts.launch.launched_run import LaunchedRun
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError, describe
from elenchus.scripts.launch.states import Observation, Resource, Run

SSH_OPTIONS = (
    # Never asks for a password; notices a dead connection after 90 s (ssh_config(5)).
    *('-o', 'BatchMode=yes', '-o', 'ConnectTimeout=30'),
    *('-o', 'ServerAliveInterval=30', '-o', 'ServerAliveCountMax=3'),
)
HOST = re.compile(r'([A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_\[:][\w.:\]-]*')
DENIED = re.compile(r'Permission denied|Host key verification failed|Bad owner or permissions')
QUICK = 120.0
"""Seconds after which a short command on a host counts as lost."""


@dataclasses.dataclass(frozen=True)
class SshOptions(LaunchOptions):
    """Flags of ssh.sh."""

    max_hours: float = describe(8760.0, 'hours after which the run is stopped')
    hosts: str = describe('', 'machines, NAME or USER@NAME, separated by commas')
    name: str = describe('elenchus', 'name of the run on the machines')
    folder: str = describe('elenchus', 'folder of the sources on the machines')
    port: int = describe(8476, 'port of the coordinator', most=65535)
    accelerator: str = describe(
        'cuda13', 'packages of JAX', choices=('cuda13', 'cuda12', 'tpu', 'cpu')
    )


class Machines:
    """Machines and the run on them; implements `cloud.Cloud`."""

    def __init__(self, flags: SshOptions, run: tuple[str, ...], commands: Commands):
        options.require(flags, 'hosts', 'name', 'folder')
        self.hosts = parse_hosts(flags.hosts)
        if not re.fullmatch(r'[A-Za-z0-9][\w.-]*', flags.name):
            raise UsageError(f'--name={flags.name} must be letters, digits, dots and hyphens')
        if len(flags.name.encode()) > 100:  # it names a folder on the machines
            raise UsageError(f'--name={flags.name} must be at most 100 bytes; nearest: elenchus')
        self.flags = flags
        self.commands = commands
        self.folder = remote.home_folder(flags.folder)
        self.launched = LaunchedRun(
            run, Ledger(*self.ledger_names), tree=flags.tree, update=flags.update
        )
        self.budget: float | None = None
        self.since: float | None = None
        self.place = ''

    @property
    def ledger_names(self) -> tuple[str, ...]:
        """Words that identify these machines and their run; they name its ledger file."""
        return ('ssh', self.flags.hosts, self.flags.name)

    @property
    def chips(self) -> int:
        """Number of machines, not of chips: how many devices each has is unknown."""
        return len(self.hosts)

    def prepare(self) -> None:
        """Packs the sources and checks the arguments of the run."""
        self.launched.prepare()

    def look(self) -> Observation:
        """Asks every machine."""
        command = remote.status_command(
            self.folder, self.flags.name, self.launched.key, budget=self.budget
        )
        seen, silent = [], ''
        for host in self.hosts:
            try:
                output = self._check(host, command, patience=QUICK)
            except Refused:
                raise
            except CloudError as error:  # one of many machines: the others still count
                silent = f'{host}: {error}'
                continue
            seen += [dataclasses.replace(s, host=host) for s in remote.read_status(output)]
        if silent and not seen and DENIED.search(silent):
            # No key, or an unknown host: waiting does not help.
            code = exit_codes.REFUSAL
            return Observation(Resource.READY, Run.UNKNOWN, code, detail=silent)
        code = remote.code_of_stragglers(seen)
        if code:
            self._on_all('abort', str(code))
        return remote.observe(seen, launched=self.launched, silent=silent)

    def settle(self) -> None:
        """Does nothing: --hosts names the machines."""

    def create(self) -> None:
        """Does nothing: the machines are there."""

    def install(self) -> None:
        """Copies the sources to all machines, unpacks them and makes the environment."""
        self.launched.check_startable()
        packed = self.launched.sources
        archive = packed.path
        then = remote.quote(remote.worker_command(self.flags.accelerator, ()))
        command = remote.unpack_command(
            self.folder, archive.name, version=packed.version, then=then
        )
        for host in self.hosts:
            self.commands.check(['scp', '-q', *SSH_OPTIONS, '--', str(archive), f'{host}:'])
        for host in self.hosts:
            self._check(host, command)

    def start(self) -> None:
        """Starts a process on every machine where none is running."""
        attempt = str(time.time_ns())
        coordinator = f'{self.hosts[0].rpartition("@")[2]}:{self.flags.port}'
        for i, host in enumerate(self.hosts):
            words = remote.worker_command(
                self.flags.accelerator,
                (
                    *self.launched.arguments,
                    f'--coordinator={coordinator}',
                    f'--num_processes={len(self.hosts)}',
                    f'--process_id={i}',
                ),
            )
            start = ('start', self.flags.name, self.launched.key, attempt, self.launched.version)
            command = remote.detached_command(self.folder, *start, *words)
            command = remote.budget_command(self.flags.name, self.budget) + command
            self._check(host, command, patience=QUICK)

    def stop(self) -> str:
        """Sends SIGTERM to the processes that `start` started, so that they save."""
        return self._signal('stop')

    def kill(self) -> str:
        """Sends SIGKILL to the processes that `start` started."""
        return self._signal('kill')

    def _signal(self, action: str) -> str:
        output = self._on_all(action)
        return '' if self.commands.dry_run else remote.note_of_stop(output)

    def delete(self) -> None:
        """Does nothing: the machines are not ours."""

    def find_others(self) -> str:
        """Returns '': the machines are never deleted, so users may share them."""
        return ''

    def read_logs(self, lines: int, *, host: str = '') -> str:
        """Returns the end of a machine's log."""
        command = remote.detached_command(self.folder, 'logs', self.flags.name, str(lines))
        return self._check(host or self.hosts[0], command, patience=QUICK)

    def run_on_host(self, command: str) -> str:
        """Runs a shell command on the first machine; returns what it printed."""
        return self._check(self.hosts[0], command, patience=QUICK)

    def dump_stacks(self) -> str:
        """Returns the stacks of all processes, and the names of machines that do not answer."""
        command, texts = remote.stacks_command(self.folder, self.flags.name), []
        for host in self.hosts:
            try:
                texts.append(self._check(host, command, patience=QUICK))
            except Unreachable as error:
                texts.append(f'--- {host} does not answer: {error}\n')
        return ''.join(texts)

    def _on_all(self, *words: str) -> str:
        """Calls detached.sh on all machines, even if some do not answer; returns their output.

        Raises:
            CloudError: The last one of those that failed.
        """
        command = remote.detached_command(self.folder, words[0], self.flags.name, *words[1:])
        output, failure = '', None
        for host in self.hosts:
            try:
                output += self._check(host, command, patience=QUICK)
            except Unreachable as error:
                failure = Unreachable(f'{host}: {error}')
        if failure is not None:
            raise failure
        return output

    def _check(self, host: str, command: str, *, patience: float | None = None) -> str:
        """Runs a command on a machine; returns its output.

        ssh exits with the code of the command, or with 255 for its own errors. The error text does
        not show which: it has the machine's banner and the command's own output.
        """
        words = ['ssh', *SSH_OPTIONS, '--', host, command]
        result = self.commands.run(words, patience=patience)
        if not result.code:
            return result.output
        if result.code == SSH_FAILED or FULL.search(result.error + result.output):
            raise error_of(result)
        raise (Refused if result.code == exit_codes.REFUSAL else CloudError)(result.reason)


def parse_hosts(text: str) -> list[str]:
    """Returns the machines of --hosts.

    Raises:
        UsageError: One could be an option of ssh, is not a host name, or is repeated.
    """
    hosts = [host.strip() for host in text.split(',')]
    for host in hosts:
        if not HOST.fullmatch(host):
            raise UsageError(f'--hosts: {host!r} must be NAME or USER@NAME, such as gpu1')
        bare, _, port = host.rpartition(':')
        if port.isdigit() and not re.search(r'[:\[]', bare):
            raise UsageError(
                f'--hosts: {host}: the port of ssh goes into ~/.ssh/config; nearest: {bare}'
            )
        names = [other.rpartition('@')[2].lower() for other in hosts]
        if names.count(host.rpartition('@')[2].lower()) > 1:
            raise UsageError(f'--hosts: {host} is there twice; one process runs on a machine')
    return hosts


def main(arguments: typing.Sequence[str]) -> int:
    """Runs ssh.sh; returns its exit code."""
    return actions.main(SshOptions, Machines, usage_of='ssh.sh', arguments=arguments)
