"""The actions of launchers of slices: keep, status, logs, fetch, push, stop, delete, cost."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import signal
import typing

from elenchus.data.text.alerts import check as check_alert
from elenchus.data.text.alerts import send as send_alert
from elenchus.data.text.printable import printable
from elenchus.scripts.launch import billing, driver, exit_codes, options, run_status, transfers
from elenchus.scripts.launch.cloud import Cloud, CloudError
from elenchus.scripts.launch.commands import Commands, complain, say, show
from elenchus.scripts.launch.launch_options import LaunchOptions
from elenchus.scripts.launch.launched_run import key_of, value_of
from elenchus.scripts.launch.ledger import CANNOT_WRITE, Ledger
from elenchus.scripts.launch.options import UsageError
from elenchus.scripts.launch.states import Cause, Observation, Progress, Resource, Run, State

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


class Launcher(typing.Protocol):
    """Builds a `Cloud` from its flags, the arguments of the run, and a runner of commands."""

    def __call__(self, flags: typing.Any, run: tuple[str, ...], commands: Commands) -> Cloud: ...


class Session:
    """One command line, applied to one slice."""

    def __init__(self, flags: LaunchOptions, cloud: typing.Any, commands: Commands):
        self.flags = flags
        self.cloud = cloud
        self.commands = commands
        self.ledger = Ledger(*cloud.ledger_names)
        self.clock = driver.Clock()
        self.say = say
        self.is_warned = False
        progress = self.ledger.read()
        if cloud.place and progress.place and not progress.ending and cloud.place != progress.place:
            raise UsageError(
                f'this launch began in {progress.place}, and goes on there alone; '
                f'nearest: {progress.place} instead of {cloud.place}'
            )
        cloud.place = cloud.place or progress.place

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
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, signal.default_int_handler)
        with self.ledger.lock():
            progress = self.ledger.read()
            progress = Progress() if progress.ending else progress
            self._keep_run(progress)
            # The hosts say what happened meanwhile; sources are installed anew.
            progress = dataclasses.replace(
                progress,
                due=False,
                installed=False,
                started=None,
                misses=0,
                replaced=False,
                place=self.cloud.place,
                chips=progress.chips or self.cloud.chips,
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
        with _explained('nobody could look'):
            seen = self.cloud.look()
        if self.commands.dry_run:
            return 0
        progress = self.ledger.read()
        is_billed = progress.requested is not None or progress.billing is not None
        if is_billed and not progress.ending:  # else somebody else's bill, or no launch's
            with contextlib.suppress(UsageError), self.ledger.lock():  # else `keep` counts itself
                self._write(billing.bill(self.ledger.read(), seen, self.clock.now()))
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
        chips = progress.chips or self.cloud.chips  # of what was requested, whatever --type is now
        show(f'{hours:.2f} slice-hours, {hours * chips:.2f} chip-hours on {chips} chips{end}')
        return 0

    def fetch(self) -> int:
        """Copies the results from the bucket."""
        transfers.fetch(self.flags, self.commands)
        return 0

    def push(self) -> int:
        """Copies local inputs to the bucket."""
        transfers.push(self.flags, self.commands)
        return 0

    def act(self, name: str) -> int:
        """Does one action; returns the exit code."""
        if name not in ('create', 'install', 'start', 'stop', 'kill', 'delete'):
            return getattr(self, name)()
        spent = self.ledger.read().billed_seconds(self.clock.now()) if name == 'start' else 0.0
        self.cloud.budget = max(self.flags.max_hours * 3600 - spent, 0.0)
        if self.commands.dry_run:
            getattr(self.cloud, name)()
        elif name == 'create':
            self._create()
        else:
            if name in ('install', 'start', 'delete'):
                self._check_owner(name)
            with _explained('nobody knows whether it is gone' if name == 'delete' else ''):
                note = getattr(self.cloud, name)()
            if note:
                self.say(note)
            if name == 'delete':
                self._remember_deletion()
        return 0

    def _create(self) -> None:
        """Requests the machines, unless they are there; the ledger knows it before."""
        seen, before = self.cloud.look(), self.ledger.read()
        if seen.run is Run.OTHER:
            raise UsageError(f'{seen.detail}: nothing was requested; use another --name')
        if seen.resource is not Resource.ABSENT:
            self.say('it is there already: nothing was requested, and its bill goes on')
            return
        self.cloud.settle()
        progress = Progress(
            state=State.REQUESTED,
            requested=self.clock.now(),
            place=self.cloud.place,
            chips=self.cloud.chips,
        )
        self._record(lambda: self.ledger.write(progress))
        self._record(self.ledger.forget_run)
        try:
            self.cloud.create()
        except CloudError as error:
            if error.cause is not Cause.UNREACHABLE:  # else nobody knows whether it was done
                self._write(before)
            raise
        self._write(dataclasses.replace(progress, place=self.cloud.place))

    def _check_owner(self, name: str) -> None:
        """Checks that machines that were not requested from here have nobody else's run on them.

        Raises:
            UsageError: They have.
        """
        if self.ledger.read().requested is None:
            others = self.cloud.find_others()
            if others:
                raise UsageError(f'{others}: `{name}` did nothing; use another --name')

    def _keep_run(self, progress: Progress) -> None:
        """Stores the run of `keep`.

        Raises:
            UsageError: It cannot, and nothing was requested yet.
        """
        is_new = progress.requested is None and progress.billing is None
        store = self._record if is_new else self._store
        store(self.cloud.launched.remember)
        store(lambda: self.ledger.write(progress))

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

    def _record(self, write: typing.Callable[[], None]) -> None:
        """Writes to the ledger what must be there before anything is requested."""
        try:
            write()
        except OSError as error:
            raise UsageError(f'{CANNOT_WRITE}: {error}; nothing was requested') from None

    def _remember_deletion(self) -> None:
        progress = self.ledger.read()
        if progress.state is State.ABSENT:
            for other in self.ledger.elsewhere():
                if other.path.name == self.ledger.path.name:
                    self.say(f'a launch of that name has not ended: {other.place}')
        billed = progress.billed_seconds(self.clock.now())
        self._write(Progress(State.DONE, ending=True, billed=billed, chips=progress.chips))


@contextlib.contextmanager
def _explained(text: str) -> typing.Iterator[None]:
    """Puts a text before the reason of a cloud's error."""
    try:
        yield
    except CloudError as error:
        raise type(error)(f'{text}: {error}' if text else str(error)) from None


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
                {'fetch': transfers.fetch, 'push': transfers.push}[action](flags, commands)
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
        complain(str(error))
        return exit_codes.REFUSAL
    except KeyboardInterrupt:
        complain('interrupted: what was asked may be done or not; `status` says what is there')
        return 128 + signal.SIGINT
    except CloudError as error:
        complain(str(error))
        refused = error.cause in (Cause.REFUSED, Cause.LOGIN)
        return exit_codes.REFUSAL if refused else exit_codes.CRASH
    except OSError as error:  # of this machine, such as a full $TMPDIR
        complain(str(error))
        return exit_codes.CRASH
    return 0
