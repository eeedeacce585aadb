"""States, events, actions and limits of the state machine of a slice or job (`transitions.py`)."""

from __future__ import annotations

import dataclasses
import enum
import typing


class State(enum.Enum):
    """Where a slice or job is."""

    ABSENT = 'absent'
    REQUESTED = 'requested'
    WAITING = 'waiting'
    READY = 'ready'
    RUNNING = 'running'
    PREEMPTED = 'preempted'
    FAILED = 'failed'
    DONE = 'done'


class Resource(enum.Enum):
    """State of the machines, as the cloud reports it."""

    ABSENT = 'absent'
    WAITING = 'waiting'
    READY = 'ready'
    LEAVING = 'leaving'  # they are being deleted
    LOST = 'lost'  # preempted, suspended or stopped by the cloud
    FAILED = 'failed'  # the request was refused or has expired


class Run(enum.Enum):
    """State of the run, as the hosts report it."""

    UNKNOWN = 'unknown'  # they could not be asked
    ABSENT = 'absent'
    RUNNING = 'running'
    ENDED = 'ended'
    OLD = 'old'  # it runs with other sources or arguments, and is to be restarted with these
    OTHER = 'other'  # a run with another work directory is on the machines


class Kind(enum.Enum):
    """What to do next."""

    LOOK = 'look'
    CREATE = 'create'
    INSTALL = 'install'
    START = 'start'
    STOP = 'stop'
    DELETE = 'delete'
    END = 'end'


class Cause(enum.Enum):
    """Why an action failed."""

    UNREACHABLE = 'unreachable'  # a connection, a time limit, a server error: try again
    FAILED = 'failed'  # it ran and failed: try again at most `retries` times
    LOGIN = 'login'  # the user must log in first; nobody knows what is there
    REFUSED = 'refused'  # wrong flags, no permission, no quota: would fail again


@dataclasses.dataclass(frozen=True)
class Observation:
    """Result of a look at the machines and the run.

    Attributes:
        resource: State of the machines.
        run: State of the run on them.
        exit_code: Exit code of a run that ended, combined over its hosts
            (`exit_codes.code_of_hosts`). With Run.UNKNOWN, 2: no host can be asked from here.
        stopped: Whether the run was ended by the action `stop`.
        detail: One line of explanation for the user, such as the cloud's own message.
        host: The host that failed first, if the run failed.
        is_billed: Whether machines exist, and are billed, on which no run is up yet.
        since, at: Start and end of machines that their own hosts deleted (guard.sh); None if
            unknown.
    """

    resource: Resource
    run: Run = Run.ABSENT
    exit_code: int | None = None
    stopped: bool = False
    detail: str = ''
    host: str = ''
    is_billed: bool = False
    since: float | None = None
    at: float | None = None


@dataclasses.dataclass(frozen=True)
class Success:
    """An action other than a look or the end succeeded."""

    kind: Kind


@dataclasses.dataclass(frozen=True)
class Failure:
    """An action failed, or it is unknown whether it succeeded."""

    kind: Kind
    cause: Cause
    reason: str = ''


Event = typing.Union[Observation, Success, Failure]  # noqa: UP007 - `|` of classes needs Python 3.10


@dataclasses.dataclass(frozen=True)
class Action:
    """What to do next, after `delay` seconds; an END has the exit code of the launcher."""

    kind: Kind
    delay: float = 0.0
    exit_code: int = 0


@dataclasses.dataclass(frozen=True)
class Policy:
    """Limits of a launch.

    Attributes:
        retries: Number of crashes or kills, of failed installations, or of failed requests after
            which the launch fails. A run of `healthy` seconds resets the count of crashes.
        max_preemptions: Preemptions after which the launch fails.
        max_hours: Billed hours, summed over all slices, after which everything is deleted.
        poll: Seconds between looks, and the first delay of an exponential back-off.
        max_delay: Longest delay of a back-off, in seconds.
        healthy: Seconds after which an attempt counts as good.
        grace: Seconds between the stop and the deletion when the budget is spent.
        absences: Consecutive looks without a resource after which it counts as gone.
        silence: Number of consecutive failures after which the launch fails: of looks, at hosts
            that never answered or before any request, and of connections during installations
            and starts.
        delete_tries: Failed deletions after which the launcher gives up and says so.
        after: 'delete' or 'leave': what happens to the machines at the end of the run.
    """

    retries: int = 3
    max_preemptions: int = 100
    max_hours: float = 24.0
    poll: float = 60.0
    max_delay: float = 1800.0
    healthy: float = 3600.0
    grace: float = 60.0
    absences: int = 3
    silence: int = 10
    delete_tries: int = 10
    after: str = 'delete'

    def backoff(self, count: int) -> float:
        """Returns the delay in seconds before try number `count`, from 0; it doubles each time."""
        return min(self.poll * 2.0 ** min(count, 30), self.max_delay)


@dataclasses.dataclass(frozen=True)
class Progress:
    """State of a launch and the counts for its limits; stored between commands (`ledger.py`).

    Attributes:
        state: The state.
        installed: Whether the sources of this launch are on these machines.
        reached: Whether these machines ever answered.
        requested: Time of the last request; None before the first.
        started: Time of the last start; None before the first.
        crashes: Crashes and kills since the last good attempt.
        installs, requests, preemptions, deletes: Failed installations or starts, failed requests,
            preemptions, and consecutive failed deletions.
        misses: Consecutive failed looks.
        losses: Consecutive lost connections during installations and starts.
        absences: Consecutive looks that saw no resource.
        billed: Billed seconds of former slices.
        billing: Time from which the current slice is billed; None if it is not.
        due: Whether a run that ended is to be restarted at the next look, after a delay.
        replaced: Whether the old run was told to stop, so that new sources can start.
        ending: Whether all that remains is to delete the machines and end.
        exit_code: Exit code of the launcher, at its end.
        chips: Chips of the requested machines; 0 before the request.
        place: Project, or context of kubectl, of the requested machines; '' before the request.
        why: Reason of the last change, one line for the user.
    """

    state: State = State.ABSENT
    installed: bool = False
    reached: bool = False
    requested: float | None = None
    started: float | None = None
    crashes: int = 0
    installs: int = 0
    requests: int = 0
    preemptions: int = 0
    deletes: int = 0
    misses: int = 0
    losses: int = 0
    absences: int = 0
    billed: float = 0.0
    billing: float | None = None
    due: bool = False
    replaced: bool = False
    ending: bool = False
    exit_code: int = 0
    chips: int = 0
    place: str = ''
    why: str = ''

    def billed_seconds(self, now: float) -> float:
        """Returns the billed seconds of all slices of the launch up to now."""
        return self.billed + (0.0 if self.billing is None else now - self.billing)
