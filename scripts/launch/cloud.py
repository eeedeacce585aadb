"""Interface of a cloud for the state machine, and the errors that its methods raise."""

from __future__ import annotations

import typing

from elenchus.scripts.launch.states import Cause, Observation


class CloudError(Exception):
    """An action on a cloud failed; the text is one line for the reader.

    Attributes:
        cause: What may be done about it (`states.Cause`).
    """

    cause = Cause.FAILED


class Unreachable(CloudError):
    """It is unknown whether the action was done: connection lost, time limit, server error."""

    cause = Cause.UNREACHABLE


class LoggedOut(Unreachable):
    """The cloud's tool has no valid login; before anything was requested, that ends a launch."""

    cause = Cause.LOGIN


class Refused(CloudError):
    """The same command would be refused again: a wrong flag, no permission, no quota."""

    cause = Cause.REFUSED


class Cloud(typing.Protocol):
    """A slice or job of one name on one cloud.

    Every method may raise a `CloudError`. Actions are idempotent, because ssh repeats commands
    and users run them twice: a repeated call creates or starts nothing more.
    A cloud whose job starts by itself (SLURM, GKE) does so in `create`, leaves `install` empty, and
    sees `Run.RUNNING` or `Run.ENDED` in `look` as soon as the machines are ready.

    Attributes:
        budget: Seconds that may still be billed, for the machines to enforce; None: no limit sent.
        since: Time of the request for these machines; None if there is none.
        place: Project or context of kubectl of these machines, '' for the tool's default: other
            terminals may switch that, so a launch goes on where it began.
    """

    budget: float | None
    since: float | None
    place: str

    def prepare(self) -> None:
        """Checks and packs what is local, before anything is created: a mistake costs nothing."""

    def look(self) -> Observation:
        """Returns what is there now; waits for nothing."""

    def settle(self) -> None:
        """Sets `place` before a request, where the tool's default can be asked for."""

    def create(self) -> None:
        """Requests the machines, or submits the job; one that is there already is no error."""

    def install(self) -> None:
        """Puts sources, inputs and the environment on all hosts."""

    def start(self) -> None:
        """Starts the run on all hosts and returns; a run that is already there goes on."""

    def stop(self) -> str:
        """Ends the run with SIGTERM, so that it saves; the machines stay.

        Returns what to tell the user, '' if a run was alive there.
        """

    def delete(self) -> None:
        """Deletes all that `create` made; nothing being there is no error."""

    def find_others(self) -> str:
        """Returns a description of other users' runs on the machines; '' if there are none."""

    def read_logs(self, lines: int, *, host: str = '') -> str:
        """Returns the last lines of the run's log, of a host that `look` named or of the first."""

    def run_on_host(self, command: str) -> str:
        """Runs a shell command on the first host, in the home folder; returns what it printed."""

    def dump_stacks(self) -> str:
        """Makes all processes write the stacks of their threads to their logs; returns the ends.

        The run goes on.
        """
