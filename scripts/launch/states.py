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
    """What the cloud says of the machines."""

    ABSENT = 'absent'
    WAITING = 'waiting'
    READY = 'ready'
    LEAVING = 'leaving'  # somebody deletes them
    LOST = 'lost'  # preempted, suspended or stopped by the cloud
    FAILED = 'failed'  # the request was refused or has expired


class Run(enum.Enum):
    """What the hosts say of the run."""

    UNKNOWN = 'unknown'  # they could not be asked
    ABSENT = 'absent'
    RUNNING = 'running'
    ENDED = 'ended'
    OLD = 'old'  # it runs from other sources or arguments, and is to be started from these
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
    """What a look has seen.

    Attributes:
        resource: State of the machines.
        run: State of the run on them.
        exit_code: Of a run that ended; of all hosts together (`exit_codes.code_of_hosts`). 2 of an
            unknown run: no host can be asked from this machine.
        stopped: Whether somebody ended the run by the action `stop`.
        detail: The cloud's own words, for the reader.
        host: Of a run that failed: the host that failed first.
        is_billed: Whether machines are there, on which no run is up yet.
        since, at: From when to when machines were there that their own hosts deleted
            (guard.sh), None if nobody knows.
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
    """An action other than a look or the end was done."""

    kind: Kind


@dataclasses.dataclass(frozen=True)
class Failure:
    """An action failed, or nobody knows whether it was done."""

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
        retries: Crashes, kills, failed installations and failed requests (each counted alone) after
            which the launch fails. A run of `healthy` seconds sets the count of crashes back.
        max_preemptions: Preemptions after which the launch fails.
        max_hours: Billed hours, of all slices together, after which everything is deleted.
        poll: Seconds between looks, and the first delay of a back-off.
        max_delay: Longest delay of a back-off, in seconds.
        healthy: Seconds after which an attempt counts as good.
        grace: Seconds between the stop and the deletion when the budget is spent.
        absences: Looks in a row that must not see a resource before it counts as gone.
        silence: Failed looks in a row at hosts that never answered, or before anything was
            requested, and lost connections in a row during installations and starts, after which
            the launch fails.
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
        """Returns the delay in seconds before the try number `count`, 0 the first: it doubles."""
        return min(self.poll * 2.0 ** min(count, 30), self.max_delay)


@dataclasses.dataclass(frozen=True)
class Progress:
    """State of a launch, with what its limits count; kept in a file between commands (`ledger.py`).

    Attributes:
        state: The state.
        installed: Whether the sources of this launch are on these machines.
        reached: Whether these machines ever answered.
        requested: Time of the last request, None before it.
        started: Time of the last start, None before it.
        crashes: Crashes and kills since the last good attempt.
        installs, requests, preemptions, deletes: Failed installations or starts, failed requests,
            preemptions, and failed deletions in a row.
        misses: Failed looks in a row.
        losses: Connections lost in a row during installations and starts.
        absences: Looks in a row that saw nothing.
        billed: Billed seconds of slices that are gone.
        billing: Time since when the present slice is billed, None if it is not.
        due: Whether a run that ended is to be started again after a delay that is over at the
            next look.
        replaced: Whether the old run was told to stop, so that new sources can start.
        ending: Whether the launch only deletes and ends.
        exit_code: Of the launcher, at its end.
        chips: Chips of the machines that were requested, 0 before that.
        place: Project or context of kubectl in which the machines were requested, '' before that.
        why: One line for the reader: the reason of the last change.
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
