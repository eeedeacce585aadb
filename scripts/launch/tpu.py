"""Cloud TPU slices as queued resources, through gcloud; `tpu.sh --help` has the usage."""

from __future__ import annotations

import dataclasses
import re
import time
import typing

from elenchus.scripts.launch import (
    actions,
    exit_codes,
    options,
    owners,
    remote,
    tpu_request,
    tpu_types,
)
from elenchus.scripts.launch.cloud import CloudError, Refused, Unreachable
from elenchus.scripts.launch.commands import (
    EXISTS,
    FULL,
    SSH_FAILED,
    Commands,
    Result,
    error_of,
    say,
)
from elenchus.scripts.launch.launch_options import LaunchOptions
from elenchus.scripts.launch.launched_run import LaunchedRun
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError, describe
from elenchus.scripts.launch.states import Observation, Resource, Run
from elenchus.scripts.launch.tpu_request import QUICK

KEEP_ALIVE = '-o ServerAliveInterval=30'
GCLOUD_ERROR = re.compile(r'^ERROR: (\(gcloud|gcloud crashed)', re.MULTILINE)
SSH_ERROR = re.compile(r'^ERROR: \(gcloud.* exited with return code \[255\]', re.MULTILINE)
"""Error of the last ssh try with a host; earlier ones print `Retrying: SSH command error: ...`."""
AGENT = re.compile(r'not present in the SSH agent')


@dataclasses.dataclass(frozen=True)
class TpuOptions(LaunchOptions):
    """Flags of tpu.sh."""

    name: str = describe('', 'name of the slice and of its queued resource')
    zone: str = describe('', 'zone of the slice, such as us-central1-a')
    project: str = describe('', "Google Cloud project; empty: the one of gcloud's configuration")
    type: str = describe('v5litepod-16', 'accelerator type')
    version: str = describe('', 'runtime version; empty: the one of the type')
    spot: bool = describe(False, 'yes: cheaper, but may be preempted')
    reserved: bool = describe(False, 'yes: from a reservation')
    valid_until_duration: str = describe('', 'time after which the request expires, such as 6h')
    service_account: str = describe('', 'account of the hosts; it must be able to use the bucket')
    network: str = describe('', 'network of the hosts')
    subnetwork: str = describe('', 'subnetwork of the hosts')
    internal_ips: bool = describe(False, 'yes: no external addresses; ssh from the same network')
    labels: str = describe('', 'labels for the bill: KEY=VALUE,...')
    metadata: str = describe('', 'metadata of the hosts: KEY=VALUE,...')
    folder: str = describe('elenchus', 'folder of the sources on the hosts')
    guard: bool = describe(True, 'yes: hosts delete the slice if this machine does not')
    flex_start: bool = describe(False, 'yes: Google deletes it after --max_hours, at most 168')


class Tpu:
    """A slice and the run on it; implements `cloud.Cloud`."""

    def __init__(self, flags: TpuOptions, run: tuple[str, ...], commands: Commands):
        options.require(flags, 'name', 'zone')
        tpu_types.check_name(flags.name)
        if flags.spot and flags.reserved:
            raise UsageError('--spot=yes and --reserved=yes exclude each other')
        if flags.flex_start and (flags.spot or flags.reserved):
            raise UsageError('--flex_start=yes excludes --spot=yes and --reserved=yes')
        if flags.guard and 'startup-script=' in flags.metadata:
            raise UsageError(
                '--metadata=startup-script=... takes the place of the guard: --guard=no'
            )
        self.flags = flags
        self.commands = commands
        self.folder = remote.home_folder(flags.folder)
        self._project = tpu_request.project_of_ledger(flags, commands)
        self.version = flags.version or tpu_types.runtime_version(flags.type)
        self.launched = LaunchedRun(
            run, Ledger(*self.ledger_names), tree=flags.tree, update=flags.update
        )
        self.budget: float | None = None
        self.since: float | None = None
        self.place = flags.project
        self._is_warned = False

    @property
    def ledger_names(self) -> tuple[str, ...]:
        """Words that identify this slice; they name its ledger file."""
        return ('tpu', self._project, self.flags.zone, self.flags.name)

    @property
    def chips(self) -> int:
        """Number of chips of the slice."""
        return tpu_types.chips(self.flags.type)

    def prepare(self) -> None:
        """Packs the sources and checks the arguments of the run."""
        self.launched.prepare()

    def look(self) -> Observation:
        """Returns the state of the queued resource and, once it is active, of the run."""
        words = self._words('queued-resources', 'describe', f'--format=value({tpu_types.STATE})')
        result = self.commands.run(words, patience=QUICK)
        if result.code:
            if self._is_missing(result):
                return self._look_at_end()
            raise error_of(result)
        if self.commands.dry_run:
            return self._look_at_hosts()
        lines = [line for line in result.output.splitlines() if line.strip()]
        state, _, reason = (lines or ['nothing'])[-1].partition('\t')
        resource = tpu_types.STATES.get(state.strip())
        if resource is None:
            raise Unreachable(f'gcloud says the state is {state}')
        if resource is Resource.READY:
            return self._look_at_hosts()
        reason = f': {" ".join(reason.split())[:300]}' if reason.strip() else ''
        return Observation(resource, detail=f'the queued resource is {state}{reason}')

    def _look_at_end(self) -> Observation:
        """Returns what hosts that deleted themselves have recorded in the bucket (`guard.sh`)."""
        workdir = self.launched.workdir.rstrip('/')
        if self.since is None or not workdir.startswith('gs://'):
            return Observation(Resource.ABSENT)
        path = f'{workdir}/launch/{self.flags.name}/*.end'
        result = self.commands.run(['gcloud', 'storage', 'cat', path], patience=QUICK)
        return remote.observe_end(result.output, since=self.since, workdir=workdir)

    def _look_at_hosts(self) -> Observation:
        """Asks the hosts for the state of the run; if none answers, asks gcloud for the node's."""
        command = remote.status_command(
            self.folder, self.flags.name, self.launched.key, budget=self.budget, shared=True
        )
        silent = ''
        try:
            result = self.commands.run(self._ssh(command), patience=QUICK)
            hosts = remote.read_status(result.output)
            if AGENT.search(result.error):
                code, detail = exit_codes.REFUSAL, _hint(result)
                return Observation(Resource.READY, Run.UNKNOWN, code, detail=detail)
            others = owners.describe_others(result.output, is_ours=self.since is not None)
            if others:
                return Observation(Resource.READY, Run.OTHER, detail=others)
            self._warn_of_guard(result.output)
            silent = _hint(result) if result.code else ''
        except Unreachable as error:
            hosts, silent = [], str(error)
        if silent and not hosts:
            result = self.commands.run(
                self._words('tpu-vm', 'describe', '--format=value(state)'), patience=QUICK
            )
            state = (result.output.split() or ['unknown'])[-1]
            if state in tpu_types.GONE_NODES:
                return Observation(Resource.LOST, detail=f'the node is {state}')
        code = remote.code_of_stragglers(hosts)
        if code:
            say(f'a host failed with {code}, and the others still wait for it: they are killed')
            self.commands.run(self._ssh(self._detached('abort', str(code))), patience=QUICK)
        return remote.observe(hosts, launched=self.launched, silent=silent)

    def _warn_of_guard(self, output: str) -> None:
        if f'{remote.GUARD} no' in output and not self._is_warned:
            self._is_warned = True
            say(
                "warning: the hosts' service account may not delete the slice (roles/tpu.admin): "
                'while this machine is off, the budget ends the run, and the slice is billed on'
            )

    def settle(self) -> None:
        """Takes the project from gcloud's configuration if no flag names one."""
        self.place = self.place or tpu_request.default_project(self.commands)

    def create(self) -> None:
        """Requests the slice as a queued resource."""
        flags = self.flags
        self.settle()
        seconds = flags.max_hours * 3600 if self.budget is None else self.budget
        more = tpu_request.flags_of(flags, seconds)
        if flags.guard:
            launched = self.launched
            more.append(
                tpu_request.write_guard(
                    launched.scratch / 'guard.sh',
                    budget=seconds,
                    settings={
                        'NAME': flags.name,
                        'ZONE': flags.zone,
                        'PROJECT': self.place,
                        'WORKDIR': launched.workdir,
                        'AFTER': flags.after,
                    },
                )
            )
        words = self._words(
            'queued-resources',
            'create',
            f'--node-id={flags.name}',
            f'--accelerator-type={flags.type}',
            f'--runtime-version={self.version}',
            *more,
        )
        if flags.flex_start:
            words.insert(1, 'alpha')
        result = self.commands.run(words)
        if result.code and not EXISTS.search(result.error + result.output):
            raise error_of(result)

    def install(self) -> None:
        """Copies the sources to all hosts, unpacks them and makes the environment."""
        self.launched.check_startable()
        packed = self.launched.sources
        archive = packed.path
        self._check(
            [
                *self._words('tpu-vm', 'scp', str(archive), f'{self.flags.name}:', named=False),
                '--worker=all',
                f'--scp-flag={KEEP_ALIVE}',
                *(['--internal-ip'] if self.flags.internal_ips else []),
            ]
        )
        then = remote.quote(remote.worker_command('tpu', ()))
        command = remote.unpack_command(
            self.folder, archive.name, version=packed.version, then=then
        )
        self._check(self._ssh(command))

    def start(self) -> None:
        """Starts the run on all hosts; a command that gcloud repeats starts nothing more."""
        attempt = str(time.time_ns())
        words = remote.worker_command('tpu', ('--distributed', *self.launched.arguments))
        cache = remote.compilation_cache(self.launched.workdir)
        if cache:
            words = ['env', f'JAX_COMPILATION_CACHE_DIR={cache}', *words]
        command = self._detached('start', self.launched.key, attempt, self.launched.version, *words)
        alone = owners.find_command(self.flags.name)
        alone += 'if [[ "$others" == *" running"* ]]; then echo "$others" >&2; exit 3; fi; '
        budget = remote.budget_command(self.flags.name, self.budget)
        self._check(self._ssh(alone + budget + command))

    def stop(self) -> str:
        """Sends SIGTERM to the run on every host; returns a message for the user."""
        return self._signal('stop')

    def kill(self) -> str:
        """Sends SIGKILL to the run on every host; returns a message for the user."""
        return self._signal('kill')

    def _signal(self, action: str) -> str:
        output = self._check(self._ssh(self._detached(action)), patience=QUICK)
        return '' if self.commands.dry_run else remote.note_of_stop(output)

    def delete(self) -> None:
        """Deletes the queued resource and its node."""
        words = self._words('queued-resources', 'delete', '--force', '--quiet')
        result = self.commands.run(words)
        if result.code and not self._is_missing(result):
            raise error_of(result)
        if result.code:
            say(f'{self.flags.name} is not in {self.flags.zone}: nothing was deleted')

    def find_others(self) -> str:
        """Returns a description of other users' runs on the hosts; '' if there are none."""
        words = self._words('queued-resources', 'describe', '--format=value(state.state)')
        result = self.commands.run(words, patience=QUICK)
        if self.commands.dry_run or result.code or result.output.split()[-1:] != ['ACTIVE']:
            return ''  # no machines, so no run; what failed here fails again in the deletion
        command = owners.find_command(self.flags.name) + 'echo "$others"'
        try:
            output = self._check(self._ssh(command), patience=QUICK)
        except CloudError as error:
            raise Refused(
                f'the hosts cannot be asked whose {self.flags.name} is, and it was not requested '
                f'from here: {error}; `{" ".join(self._words("queued-resources", "delete"))} '
                '--force` deletes it unasked'
            ) from None
        return owners.describe_others(output, is_ours=False)

    def read_logs(self, lines: int, *, host: str = '') -> str:
        """Returns the end of a host's log."""
        command = self._detached('logs', str(lines), *([host] if host else []))
        return self._check(self._ssh(command, worker='all' if host else '0'), patience=QUICK)

    def run_on_host(self, command: str) -> str:
        """Runs a shell command on the first host; returns what it printed."""
        return self._check(self._ssh(command, worker='0'), patience=QUICK)

    def dump_stacks(self) -> str:
        """Returns the stacks of all processes."""
        command = remote.stacks_command(self.folder, self.flags.name)
        return self._check(self._ssh(command), patience=QUICK)

    def _detached(self, action: str, *words: str) -> str:
        return remote.detached_command(self.folder, action, self.flags.name, *words)

    def _words(self, group: str, action: str, *more: str, named: bool = True) -> list[str]:
        place = [f'--zone={self.flags.zone}']
        if self.place:
            place.append(f'--project={self.place}')
        name = [self.flags.name] if named else []
        return ['gcloud', 'compute', 'tpus', group, action, *name, *more, *place]

    def _ssh(self, command: str, worker: str = 'all') -> list[str]:
        return [
            *self._words('tpu-vm', 'ssh'),
            f'--worker={worker}',
            f'--ssh-flag={KEEP_ALIVE}',
            *(['--internal-ip'] if self.flags.internal_ips else []),
            f'--command={command}',
        ]

    def _check(self, words: typing.Sequence[str], *, patience: float | None = None) -> str:
        """Runs a command on the hosts; returns its output.

        gcloud exits with the status of the first host that failed (SDK 528, tpu_vm/ssh.py,
        WaitForBatchCompletion). Status 255 comes from ssh itself: the host's state is then unknown.
        """
        result = self.commands.run(words, patience=patience)
        if not result.code:
            return result.output
        if FULL.search(result.error + result.output):
            raise error_of(result)
        if result.code == SSH_FAILED or SSH_ERROR.search(result.error):
            raise Unreachable(_hint(result))
        if GCLOUD_ERROR.search(result.error):
            raise error_of(result)
        raise (Refused if result.code == 2 else CloudError)(result.reason)

    def _is_missing(self, result: Result) -> bool:
        missing = rf"queuedResources/{re.escape(self.flags.name)}['\"]? (was |is )?not found"
        return bool(re.search(missing, result.error + result.output, re.IGNORECASE))


def _hint(result: Result) -> str:
    agent = AGENT.search(result.error) or 'Permission denied (publickey' in result.error
    hint = '; gcloud needs `ssh-add ~/.ssh/google_compute_engine` for several hosts'
    return result.reason + (hint if agent else '')


def main(arguments: typing.Sequence[str]) -> int:
    """Runs tpu.sh; returns its exit code."""
    return actions.main(TpuOptions, Tpu, usage_of='tpu.sh', arguments=arguments)
