"""The transitions of a slice or job: a pure function from state and event to the next action.

    absent -> requested -> waiting -> ready -> running -> done
                 ^                      |         |
                 |                      v         +-----> failed
                 +------------------ preempted <--+

`advance` gets the last event and returns the next action, which `driver.py` carries out. It reads
no clock and starts no process, so that every fault can be tested without a cloud.

- A look asks the cloud and the hosts for their state. After a failed or lost command the launcher
  looks before it repeats the command. A look that fails changes nothing: a slice that is ready and
  has answered is never deleted because a connection was lost.
- Retries have a limit and a delay that doubles; billed hours have a budget.
- Every end deletes the slice, unless `after` is 'leave' or the run on it is another one.
"""

from __future__ import annotations

import dataclasses
import typing

from elenchus.scripts.launch import exit_codes
from elenchus.scripts.launch.billing import bill
from elenchus.scripts.launch.exit_codes import Ending
from elenchus.scripts.launch.states import (
    Action,
    Cause,
    Event,
    Failure,
    Kind,
    Observation,
    Policy,
    Progress,
    Resource,
    Run,
    State,
    Success,
)

SILENT = 'the hosts never answered (firewall? keys? --internal_ips?)'
COMPLETE = 'the run is complete'
STAYS = '; THE MACHINES WERE NOT REQUESTED FROM HERE, AND STAY'
MANY_MISSES = 3
"""Failed looks in a row after which unused machines are not requested again."""
Step = typing.Tuple[Progress, Action]  # noqa: UP006 - Python 3.9 runs this file


def advance(progress: Progress, event: Event, *, now: float, policy: Policy) -> Step:
    """Returns the progress after an event, and the next action.

    Args:
        progress: Before the event.
        event: An `Observation` after a look; after any other action its `Success` or `Failure`.
        now: Time in seconds, by any clock that never goes back.
        policy: The limits.
    """
    if isinstance(event, Observation):
        progress = bill(progress, event, now)
    if progress.ending:
        return _go_on_ending(progress, event, now=now, policy=policy)
    remaining = policy.max_hours * 3600 - progress.billed_seconds(now)
    is_others = isinstance(event, Observation) and event.run is Run.OTHER
    if remaining <= 0 and not is_others:
        if _is_unsure(event) and progress.misses < MANY_MISSES:
            # After a long sleep of this machine the hosts may have ended, or be gone, long ago.
            return _look(progress, 0.0, misses=progress.misses + 1)
        return _spend_budget(progress, event, policy)
    if isinstance(event, Success):
        progress, action = _succeed(progress, event.kind, now=now, policy=policy)
    elif isinstance(event, Failure):
        progress, action = _fail(progress, event, policy)
    else:
        progress, action = _observe(progress, event, now=now, policy=policy)
    if progress.billing is not None and not progress.ending:
        action = dataclasses.replace(action, delay=max(min(action.delay, remaining), 0.0))
    return progress, action


def _is_unsure(event: Event) -> bool:
    if isinstance(event, Observation):
        return event.resource is Resource.READY and event.run is Run.UNKNOWN
    return isinstance(event, Failure)


def _look(progress: Progress, delay: float, **changes: typing.Any) -> Step:
    return dataclasses.replace(progress, **changes), Action(Kind.LOOK, delay)


def _end(
    progress: Progress, exit_code: int, *, why: str, policy: Policy, keep: bool = False
) -> Step:
    """Ends the launch: deletes what there is, unless it is to be kept."""
    done = exit_code == exit_codes.DONE
    state = State.DONE if done else State.FAILED
    if _is_unknown(progress) and not keep:
        keep, why = True, why + STAYS
    progress = dataclasses.replace(progress, state=state, ending=True, exit_code=exit_code, why=why)
    if keep or policy.after == 'leave':
        return progress, Action(Kind.END, exit_code=exit_code)
    return progress, Action(Kind.DELETE)


def _is_unknown(progress: Progress) -> bool:
    """Returns whether machines were found there, and their hosts never said whose they are."""
    return progress.requested is None and progress.billing is not None and not progress.reached


def _spend_budget(progress: Progress, event: Event, policy: Policy) -> Step:
    """Stops the run, so that it saves; the deletion follows, whatever `after` says."""
    seen = event if isinstance(event, Observation) else None
    ended = seen is not None and seen.run is Run.ENDED
    runs = progress.reached and not ended and (seen is None or seen.resource is Resource.READY)
    why = f'the budget of {policy.max_hours:g} billed hours is spent; --max_hours=... raises it'
    if seen is not None and seen.resource is Resource.WAITING and seen.detail:
        why += f'; {seen.detail}'
    state, code = State.FAILED, exit_codes.BUDGET
    if ended and seen.exit_code == exit_codes.DONE:
        state, code, why = State.DONE, exit_codes.DONE, COMPLETE
    if _is_unknown(progress):
        return _end(progress, code, why=why, policy=policy)
    progress = dataclasses.replace(progress, state=state, ending=True, exit_code=code, why=why)
    return progress, Action(Kind.STOP if runs else Kind.DELETE)


def _go_on_ending(progress: Progress, event: Event, *, now: float, policy: Policy) -> Step:
    end = Action(Kind.END, exit_code=progress.exit_code)
    if isinstance(event, Observation) or event.kind is not Kind.DELETE:
        delay = (
            policy.grace if not isinstance(event, Observation) and event.kind is Kind.STOP else 0.0
        )
        return progress, Action(Kind.DELETE, delay)
    if isinstance(event, Success):
        billed = progress.billed_seconds(now)
        gone = {'billing': None, 'requested': None, 'place': ''}
        return dataclasses.replace(progress, billed=billed, **gone), end
    deletes = progress.deletes + 1
    if deletes >= policy.delete_tries:
        why = f'{progress.why}; IT WAS NOT DELETED AND MAY BE BILLED: {event.reason}'
        code = progress.exit_code or exit_codes.CRASH
        progress = dataclasses.replace(progress, deletes=deletes, why=why, exit_code=code)
        return progress, dataclasses.replace(end, exit_code=code)
    progress = dataclasses.replace(progress, deletes=deletes)
    return progress, Action(Kind.DELETE, policy.backoff(deletes - 1))


def _succeed(progress: Progress, kind: Kind, *, now: float, policy: Policy) -> Step:
    if kind is Kind.CREATE:
        return _look(progress, policy.poll, state=State.REQUESTED, absences=0, requested=now)
    if kind is Kind.INSTALL:
        progress = dataclasses.replace(progress, installed=True, reached=True, losses=0, why='')
        return progress, Action(Kind.START)
    if kind is Kind.START:
        changes = {'started': now, 'misses': 0, 'losses': 0, 'why': ''}
        return _look(progress, policy.poll, state=State.RUNNING, **changes)
    if kind is Kind.DELETE:  # of a slice that was taken away: ask for the next
        billed = progress.billed_seconds(now)
        progress = dataclasses.replace(
            progress,
            state=State.ABSENT,
            billed=billed,
            billing=None,
            installed=False,
            reached=False,
            deletes=0,
        )
        count = progress.preemptions + progress.requests
        return progress, Action(Kind.CREATE, policy.backoff(max(count - 1, 0)))
    return _look(progress, policy.poll, replaced=progress.replaced or kind is Kind.STOP)


def _fail(progress: Progress, event: Failure, policy: Policy) -> Step:
    kind, why = event.kind, f'{event.kind.value}: {event.reason}'
    if kind is Kind.DELETE:
        deletes = progress.deletes + 1
        if deletes >= policy.delete_tries:
            return _end(progress, exit_codes.CRASH, why=why, policy=policy)
        return dataclasses.replace(progress, deletes=deletes, why=why), Action(
            Kind.DELETE, policy.backoff(deletes - 1)
        )
    has_machines = progress.requested is not None or progress.billing is not None
    if event.cause is Cause.LOGIN and has_machines:
        event = dataclasses.replace(event, cause=Cause.UNREACHABLE)
    is_refused = event.cause in (Cause.REFUSED, Cause.LOGIN)
    if is_refused and progress.state is State.ABSENT and progress.billing is None:
        # Nothing is there yet, and nothing will be.
        return _end(progress, exit_codes.REFUSAL, why=why, policy=policy, keep=True)
    if event.cause is Cause.REFUSED and kind in (Kind.CREATE, Kind.INSTALL, Kind.START):
        return _end(progress, exit_codes.REFUSAL, why=why, policy=policy)
    if event.cause is Cause.UNREACHABLE and kind in (Kind.INSTALL, Kind.START):
        # No run is on the machines, so giving them up loses none.
        losses = progress.losses + 1
        if losses > policy.silence:
            return _end(progress, exit_codes.CRASH, why=why, policy=policy)
        return _look(progress, policy.backoff(min(losses - 1, 4)), losses=losses, why=why)
    if event.cause is Cause.UNREACHABLE or kind is Kind.LOOK:
        return _miss(progress, why, policy)
    name = 'requests' if kind is Kind.CREATE else 'installs'
    count = getattr(progress, name) + 1
    if count > policy.retries:
        return _end(progress, exit_codes.CRASH, why=why, policy=policy)
    installed = progress.installed and kind is not Kind.START  # its sources may be the reason
    return _look(progress, policy.backoff(count - 1), why=why, installed=installed, **{name: count})


def _miss(progress: Progress, why: str, policy: Policy) -> Step:
    """Waits, longer after each look in a row that saw nothing.

    Only hosts that never answered are given up, and launches that have requested nothing.
    """
    misses = progress.misses + 1
    has_machines = progress.requested is not None or progress.billing is not None
    if not has_machines and misses > policy.silence:
        return _end(progress, exit_codes.CRASH, why=why, policy=policy, keep=True)
    never = progress.billing is not None and not progress.reached
    if never and misses > policy.silence:
        return _end(progress, exit_codes.CRASH, why=f'{SILENT}: {why}', policy=policy)
    return _look(progress, policy.backoff(min(misses - 1, 4)), misses=misses, why=why)


def _observe(progress: Progress, event: Observation, *, now: float, policy: Policy) -> Step:
    if event.resource is Resource.ABSENT:
        return _observe_nothing(progress, event, policy)
    if event.resource is Resource.READY and event.run is Run.UNKNOWN:
        progress = dataclasses.replace(progress, absences=0)
        if progress.state in (State.ABSENT, State.REQUESTED, State.WAITING):
            progress = dataclasses.replace(progress, state=State.READY)
        if event.exit_code == exit_codes.REFUSAL and not progress.reached:
            return _end(progress, exit_codes.REFUSAL, why=event.detail, policy=policy)
        return _miss(progress, event.detail, policy)
    progress = dataclasses.replace(progress, misses=0, absences=0)
    if event.resource is Resource.WAITING:
        return _look(progress, policy.poll, state=State.WAITING, why=event.detail)
    if event.resource is Resource.LEAVING:  # its meaning depends on the state before
        return _look(progress, policy.poll, why=event.detail)
    if event.resource is Resource.READY:
        return _observe_run(progress, event, now=now, policy=policy)
    name, limit = 'requests', policy.retries
    if event.resource is Resource.LOST:
        name, limit = 'preemptions', policy.max_preemptions
    count = getattr(progress, name) + 1
    if count > limit:
        why = f'{name}: {limit} is the limit; {event.detail}'
        return _end(progress, exit_codes.CRASH, why=why, policy=policy)
    progress = dataclasses.replace(
        progress, **{name: count}, state=State.PREEMPTED, installed=False, why=event.detail
    )
    return progress, Action(Kind.DELETE)


def _observe_nothing(progress: Progress, event: Observation, policy: Policy) -> Step:
    """Requests what was never there; what somebody deleted is not brought back."""
    if progress.state is State.ABSENT:
        return dataclasses.replace(progress, why=''), Action(Kind.CREATE)
    if event.at is not None:
        return _observe_end(progress, event, policy)
    absences = progress.absences + 1
    if absences < policy.absences:
        return _look(progress, policy.poll, absences=absences)
    if progress.state is State.REQUESTED:
        requests = progress.requests + 1
        if requests > policy.retries:
            why = f'requested {requests} times, and it never appeared'
            return _end(progress, exit_codes.CRASH, why=why, policy=policy)
        progress = dataclasses.replace(progress, state=State.ABSENT, requests=requests)
        return progress, Action(Kind.CREATE, policy.backoff(requests - 1))
    why = 'it is gone: its own hosts or somebody deleted it'
    progress = dataclasses.replace(progress, requested=None, place='')
    return _end(progress, exit_codes.CRASH, why=why, policy=policy, keep=True)


def _observe_end(progress: Progress, event: Observation, policy: Policy) -> Step:
    """Goes on after hosts deleted themselves, because nobody watched them."""
    code, why = event.exit_code, event.detail
    if event.run is not Run.ENDED and progress.misses >= MANY_MISSES:
        return _end(progress, exit_codes.CRASH, why=f'{SILENT}: {why}', policy=policy, keep=True)
    ending = Ending.PREEMPTED if event.run is not Run.ENDED else exit_codes.ending_of(code)
    if ending is Ending.SPENT:
        return _spend_budget(progress, event, policy)
    crashes = progress.crashes + (ending in (Ending.CRASHED, Ending.KILLED))
    goes_on = ending in (Ending.PREEMPTED, Ending.CRASHED, Ending.KILLED) and not event.stopped
    if goes_on and crashes <= policy.retries:
        progress = dataclasses.replace(
            progress, state=State.ABSENT, crashes=crashes, installed=False, reached=False, why=why
        )
        return progress, Action(Kind.CREATE)
    why = COMPLETE if code == exit_codes.DONE else why
    return _end(progress, code, why=why, policy=policy, keep=True)


def _observe_run(progress: Progress, event: Observation, *, now: float, policy: Policy) -> Step:
    progress = dataclasses.replace(progress, reached=True)
    if event.run is Run.OTHER:
        why = f'another run is on it: {event.detail}'
        return _end(progress, exit_codes.REFUSAL, why=why, policy=policy, keep=True)
    if event.run is Run.OLD:
        if progress.replaced:  # a second signal would end it before it has saved
            return _look(progress, policy.poll, why=event.detail)
        return dataclasses.replace(progress, why=event.detail), Action(Kind.STOP)
    if event.run is Run.RUNNING:
        started = now if progress.started is None else progress.started
        changes = {'state': State.RUNNING, 'started': started, 'why': event.detail, 'due': False}
        return _look(progress, policy.poll, **changes)
    progress = dataclasses.replace(progress, state=State.READY)
    if event.run is Run.ENDED and event.exit_code is not None:
        return _end_attempt(progress, event, now=now, policy=policy)
    if progress.started is not None and progress.installed:
        # It was started, and the hosts know nothing of it: they were restarted or wiped.
        lost = dataclasses.replace(event, exit_code=exit_codes.CRASH, detail='the run has vanished')
        return _end_attempt(progress, lost, now=now, policy=policy)
    return _begin(progress)


def _begin(progress: Progress, delay: float = 0.0) -> Step:
    """Starts the run; after a delay only once it was looked whether somebody has stopped it."""
    if delay:
        return _look(progress, delay, due=True)
    kind = Kind.START if progress.installed else Kind.INSTALL
    return dataclasses.replace(progress, due=False), Action(kind)


def _end_attempt(progress: Progress, event: Observation, *, now: float, policy: Policy) -> Step:
    code, ending = event.exit_code, exit_codes.ending_of(event.exit_code)
    why = event.detail or f'the run ended with exit code {code}'
    if ending is Ending.DONE:
        return _end(progress, code, why=COMPLETE, policy=policy)
    if progress.started is None:
        return _begin(progress)  # it ended before this command, which asks to go on
    if ending is Ending.SPENT:
        return _spend_budget(progress, event, policy)
    if event.stopped:
        return _end(progress, code, why='stopped by the action stop', policy=policy)
    if ending is Ending.REFUSED:
        return _end(progress, code, why=why, policy=policy)
    if progress.due:  # its end was counted before the delay
        return _begin(progress)
    good = now - progress.started >= policy.healthy
    progress = dataclasses.replace(progress, why=why, started=now)
    if ending is Ending.PREEMPTED:
        count = progress.preemptions + 1
        if count > policy.max_preemptions:
            return _end(progress, code, why=f'preempted {count} times', policy=policy)
        progress = dataclasses.replace(progress, preemptions=count)
        return _begin(progress, policy.poll if good else policy.backoff(min(count - 1, 4)))
    crashes = 1 if good else progress.crashes + 1
    progress = dataclasses.replace(progress, crashes=crashes)
    if crashes > policy.retries:
        why = f'{why}, {crashes} times'
        return _end(progress, code, why=why, policy=policy)
    return _begin(progress, policy.backoff(crashes - 1))
