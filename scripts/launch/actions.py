"""The actions of launchers of slices: keep, status, logs, fetch, push, stop, delete, cost."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import signal
import sys
import typing

from elenchus.data.text.alerts import check as check_alert
from elenchus.data.text.alerts import send as send_alert
from elenchus.data.text.printable import printable
from elenchus.scripts.launch import driver, exit_codes, options, run_status, transitions
from elenchus.scripts.launch.cloud import Cloud, CloudError
from elenchus.scripts.launch.commands import Commands, say, show
from elenchus.scripts.launch.launched_run import key_of, value_of
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError, describe
from elenchus.scripts.launch.states import (
    Cause,
    Observation,
    Policy,
    Progress,
    Resource,
    Run,
    State,
)

ACTIONS = {
    'create': 'requests the machines',
    'install': 'puts the sources and the environment on all hosts',
    'start': 'starts the run on all hosts and returns; the same command continues a stopped run',
    'keep': 'create, install and start, again after preemptions and crashes, until the run '
    'is done; then deletes',
    'status': 'prints the state of the machines and of the run, and where its time went',
    'logs': 'prints the end of the log',
    'stacks': 'prints where all threads of all processes are, of a run that hangs; it goes on',
    'stop': 'sends SIGTERM to the run, so that it saves; the machines stay',
    'kill': 'sends SIGKILL to the run; the machines stay',
    'fetch': 'copies summaries, report and metrics from --workdir in the bucket to --into',
    'push': 'copies local inputs, --inputs, to --to in the bucket',
    'cost': 'prints the billed hours of this launch',
    'delete': 'deletes the machines',
}
NEED_SOURCES = {'install', 'start', 'keep'}
HEAVY = {'checkpoints': r'checkpoints(/|$)', 'models': r'/model(/|$)', 'episodes': r'episodes(/|$)'}


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """Flags of every launcher of slices."""

    after: str = describe('delete', 'at the end of the run', choices=('delete', 'leave'))
    max_hours: float = describe(24.0, 'billed hours after which everything is deleted')
    retries: int = describe(3, 'crashes after which the launch fails')
    max_preemptions: int = describe(100, 'preemptions after which the launch fails')
    poll: float = describe(60.0, 'seconds between looks, and the first delay of a back-off')
    update: bool = describe(False, 'yes: this commit and these arguments replace the run there')
    tree: str = describe('head', 'sources that are shipped', choices=('head', 'dirty'))
    workdir: str = describe('', 'of fetch and status: folder in the bucket')
    into: str = describe('runs/fetched', 'of fetch: local folder')
    everything: bool = describe(False, 'of fetch: yes copies checkpoints, models and episodes too')
    inputs: str = describe('', 'of push: local file or folder')
    to: str = describe('', 'of push: folder in the bucket')
    lines: int = describe(50, 'of logs: lines')
    alert: str = describe('', 'of keep: command or https://... told of preemptions and the end')

    def policy(self) -> Policy:
        """Returns the limits of the launch."""
        return Policy(
            retries=self.retries,
            max_preemptions=self.max_preemptions,
            max_hours=self.max_hours,
            poll=self.poll,
            after=self.after,
        )


class Launcher(typing.Protocol):
    """Makes a cloud from its flags, the arguments of the run, and a runner of commands."""

    def __call__(self, flags: typing.Any, run: tuple[str, ...], commands: Commands) -> Cloud: ...


def fetch(flags: LaunchOptions, commands: Commands) -> None:
    """Copies the results from the bucket."""
    options.require(flags, 'workdir')
    if not commands.dry_run:
        pathlib.Path(flags.into).mkdir(parents=True, exist_ok=True)
    words = ['gcloud', 'storage', 'rsync', '--recursive']
    if not flags.everything:
        words.append(f'--exclude=.*({"|".join(HEAVY.values())}).*')
    commands.check([*words, flags.workdir, flags.into])


def push(flags: LaunchOptions, commands: Commands) -> None:
    """Copies local inputs to the bucket."""
    options.require(flags, 'inputs', 'to')
    path = pathlib.Path(flags.inputs)
    if not path.exists():
        raise UsageError(f'file not found: --inputs={flags.inputs}')
    if not flags.to.startswith('gs://'):
        raise UsageError(f'--to={flags.to} must be in a bucket: gs://BUCKET/FOLDER')
    to = flags.to.rstrip('/')
    if path.is_dir():
        commands.check(['gcloud', 'storage', 'rsync', '--recursive', str(path), to])
    else:
        commands.check(['gcloud', 'storage', 'cp', str(path), f'{to}/{path.name}'])
    show(f'{to}/{"" if path.is_dir() else path.name}')


class Session:
    """One command line at work on one slice."""

    def __init__(self, flags: LaunchOptions, cloud: typing.Any, commands: Commands):
        self.flags = flags
        self.cloud = cloud
        self.commands = commands
        self.ledger = Ledger(*cloud.ledger_names)
        self.clock = driver.Clock()
        self.say = say
        self.is_warned = False

    def check_alone(self) -> None:
        """Checks that no other launch of this machine is at work on the same run.

        Raises:
            UsageError: One is, whose machines would be billed beside these.
        """
        for other in self.ledger.elsewhere():
            began = other.read_run()
            if began and key_of(began[1]) == key_of(self.cloud.launched.arguments):
                raise UsageError(
                    f'this run is at work already, as {other.place} (its --workdir is the same): '
                    'watch it there, or `delete` it there before, or use another --workdir'
                )

    def keep(self) -> int:
        """Brings the run to its end; returns the exit code."""
        if self.commands.dry_run:
            for action in ('look', 'create', 'install', 'start', 'delete'):
                if action != 'delete' or self.flags.after == 'delete':
                    getattr(self.cloud, action)()
            return 0
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with self.ledger.lock():
            progress = self.ledger.read()
            progress = Progress() if progress.ending else progress
            self._store(self.cloud.launched.remember)
            # The hosts say what happened meanwhile; sources are installed anew.
            progress = dataclasses.replace(
                progress, installed=False, started=None, misses=0, replaced=False
            )
            try:
                return driver.keep(
                    self.cloud,
                    self.flags.policy(),
                    progress,
                    clock=self.clock,
                    remember=self._write,
                    say=self.say,
                    alert=self._alert,
                )
            except KeyboardInterrupt:
                self.say(
                    'interrupted: machines and run go on, and are billed; the same command '
                    'watches them again, `stop` ends the run, `delete` the machines'
                )
                return 128 + signal.SIGINT

    def status(self) -> int:
        """Prints one line on the machines and the run."""
        seen = self.cloud.look()
        if self.commands.dry_run:
            return 0
        progress = self.ledger.read()
        if not progress.ending:
            self.ledger.write(transitions.bill(progress, seen, self.clock.now()))
        run = '' if seen.resource is not Resource.READY else f', run {seen.run.value}'
        if seen.run is Run.ENDED:
            run += f' with exit code {seen.exit_code}'
        detail = f' ({seen.detail})' if seen.detail else ''
        lines = [f'machines {seen.resource.value}{run}{detail}', *self._describe_run(seen)]
        show(printable('\n'.join(lines)))
        return 0

    def _describe_run(self, seen: Observation) -> list[str]:
        """Returns what the run itself says of its progress and its time, nothing before it does."""
        began = self.ledger.read_run()
        workdir = self.flags.workdir or value_of(began[1] if began else (), 'workdir')
        if not workdir or (seen.resource is not Resource.READY and not workdir.startswith('gs://')):
            return []
        try:
            status, timing = run_status.read(
                workdir.rstrip('/'), commands=self.commands, on_host=self.cloud.run_on_host
            )
        except CloudError as error:
            return [f'(its progress cannot be read: {error})']
        return run_status.describe(status, timing, now=self.clock.now())

    def stacks(self) -> int:
        """Prints where all processes are."""
        show(printable(self.cloud.dump_stacks()), end='')
        return 0

    def logs(self) -> int:
        """Prints the end of the log."""
        show(printable(self.cloud.read_logs(self.flags.lines)), end='')
        return 0

    def cost(self) -> int:
        """Prints the billed hours that this machine knows of."""
        progress = self.ledger.read()
        hours = progress.billed_seconds(self.clock.now()) / 3600
        end = '' if progress.billing is None else ', and goes on'
        chips = self.cloud.chips
        show(f'{hours:.2f} slice-hours, {hours * chips:.2f} chip-hours on {chips} chips{end}')
        return 0

    def fetch(self) -> int:
        """Copies the results from the bucket."""
        fetch(self.flags, self.commands)
        return 0

    def push(self) -> int:
        """Copies local inputs to the bucket."""
        push(self.flags, self.commands)
        return 0

    def act(self, name: str) -> int:
        """Does one action; returns the exit code."""
        if name in ('create', 'install', 'start', 'stop', 'kill', 'delete'):
            spent = self.ledger.read().billed_seconds(self.clock.now()) if name == 'start' else 0.0
            self.cloud.budget = max(self.flags.max_hours * 3600 - spent, 0.0)
            getattr(self.cloud, name)()
            if not self.commands.dry_run:
                self._remember(name)
            return 0
        return getattr(self, name)()

    def _alert(self, event: str, text: str) -> None:
        name = getattr(self.flags, 'name', '')
        send_alert(self.flags.alert, event, f'{name}: {text}', warn=self.say)

    def _write(self, progress: Progress) -> None:
        self._store(lambda: self.ledger.write(progress))

    def _store(self, write: typing.Callable[[], None]) -> None:
        """Writes to the ledger; a disk that is full is said once, and ends no launch."""
        try:
            write()
        except OSError as error:
            if not self.is_warned:
                self.say(f'warning: counts and bill are not kept: {error}')
            self.is_warned = True

    def _remember(self, name: str) -> None:
        progress, now = self.ledger.read(), self.clock.now()
        if name == 'delete' and progress.state is State.ABSENT:
            for other in self.ledger.elsewhere():
                if other.path.name == self.ledger.path.name:
                    self.say(f'a launch of that name has not ended: {other.place}')
        if name == 'create':
            progress = Progress(state=State.REQUESTED, requested=now)
            self.ledger.forget_run()
        elif name == 'delete':
            billed = progress.billed_seconds(now)
            progress = Progress(state=State.DONE, ending=True, billed=billed)
        self.ledger.write(progress)


def usage(launcher: str) -> str:
    """Returns the comment at the head of a launcher, and its actions."""
    lines = (pathlib.Path(__file__).parent / launcher).read_text(encoding='utf-8').splitlines()[1:]
    end = next(i for i, line in enumerate(lines) if not line.startswith('#'))
    text = '\n'.join(re.sub('^# ?', '', line) for line in lines[:end])
    return text + '\n\nActions:\n' + '\n'.join(f'  {n:10}{t}' for n, t in ACTIONS.items())


def main(
    kind: type, make_cloud: Launcher, *, usage_of: str, arguments: typing.Sequence[str]
) -> int:
    """Runs a launcher; returns its exit code (`exit_codes.TABLE`)."""
    try:
        flags, line = options.parse(kind, arguments)
        if line.help:
            show(options.print_help(kind, usage(usage_of)))
            return 0
        options.check_actions(line.actions, tuple(ACTIONS))
        if not flags.max_hours:
            raise UsageError('--max_hours=0 must be above 0; nearest: 0.1')
        if wrong := check_alert(flags.alert):
            raise UsageError(f'--alert={flags.alert} is no command: {wrong}')
        commands = Commands(dry_run=line.dry_run)
        if set(line.actions) <= {'fetch', 'push'}:
            for action in line.actions:
                {'fetch': fetch, 'push': push}[action](flags, commands)
            return 0
        cloud = make_cloud(flags, line.run, commands)
        if NEED_SOURCES & set(line.actions):
            cloud.prepare()
        session = Session(flags, cloud, commands)
        if NEED_SOURCES & set(line.actions) and not line.dry_run:
            session.check_alone()
        for action in line.actions:
            code = session.act(action)
            if code:
                return code
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        return exit_codes.REFUSAL
    except CloudError as error:
        print(f'error: {error}', file=sys.stderr)
        refused = error.cause in (Cause.REFUSED, Cause.LOGIN)
        return exit_codes.REFUSAL if refused else exit_codes.CRASH
    return 0
