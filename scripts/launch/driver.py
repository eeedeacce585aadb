"""Runs a launch to its end: performs the actions of the state machine and stores its progress."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing

from elenchus.data.text.printable import printable
from elenchus.scripts.launch import exit_codes, transitions
from elenchus.scripts.launch.cloud import Cloud, CloudError
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
    Run,
    State,
    Success,
)

LOG_LINES = 20
"""Lines of the log of a failed run that are shown."""
LOG_WIDTH = 400
"""Characters of each of them."""


class Clock:
    """Wall clock; tests replace it with one that does not wait."""

    def now(self) -> float:
        """Returns seconds since 1970, which go on while a laptop sleeps."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


def perform(cloud: Cloud, kind: Kind) -> Event:
    """Performs one action on a cloud; returns the resulting event."""
    actions = {
        Kind.CREATE: cloud.create,
        Kind.INSTALL: cloud.install,
        Kind.START: cloud.start,
        Kind.STOP: cloud.stop,
        Kind.DELETE: cloud.delete,
    }
    try:
        if kind is Kind.LOOK:
            return cloud.look()
        actions[kind]()
    except CloudError as error:
        return Failure(kind, error.cause, str(error))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # An error of this machine, or an unknown form of answer: must not end the launch, because
        # billed machines would stay.
        return Failure(kind, Cause.FAILED, f'{type(error).__name__}: {error}')
    return Success(kind)


def keep(
    cloud: Cloud,
    policy: Policy,
    progress: Progress,
    *,
    clock: Clock,
    remember: typing.Callable[[Progress], None],
    say: typing.Callable[[str], None],
    alert: typing.Callable[[str, str], None] = lambda event, text: None,
) -> int:
    """Brings a run to its end; returns the exit code of the launcher.

    Args:
        cloud: Where it runs.
        policy: Limits.
        progress: Where a former command was interrupted, else `Progress()`.
        clock: Time.
        remember: Stores the progress; called after every event.
        say: Prints a line; called when state or reason change.
        alert: Is told an event (`data/text/alerts.py`) and a line: preemptions, crashes, the end.
    """
    action, line = Action(Kind.LOOK), ''
    while action.kind is not Kind.END:
        if action.delay:
            clock.sleep(action.delay)
        cloud.since = None if progress.state is State.ABSENT else progress.requested
        cloud.budget = max(policy.max_hours * 3600 - progress.billed_seconds(clock.now()), 0.0)
        if action.kind is Kind.CREATE:
            with contextlib.suppress(CloudError):
                cloud.settle()
            now = clock.now()  # stored before the request, so that an interruption does not lose it
            remember(dataclasses.replace(progress, requested=now, place=cloud.place))
        event = perform(cloud, action.kind)
        progress = dataclasses.replace(progress, place=cloud.place)
        if not progress.due:  # otherwise it was shown before the delay
            _show_failure(cloud, event, say)
        former = progress
        progress, action = transitions.advance(progress, event, now=clock.now(), policy=policy)
        remember(progress)
        for name, text in _news(former, progress, action):
            alert(name, text)
        before, line = line, _describe(progress, action)
        if line != before:
            say(line)
    return action.exit_code


def _news(
    before: Progress, after: Progress, action: Action
) -> typing.Iterator[typing.Tuple[str, str]]:  # noqa: UP006 - Python 3.9 runs this file
    """Yields the events of which the user is told, once each."""
    if action.kind is Kind.END:
        yield after.state.value, after.why
    elif not after.ending:
        if after.preemptions > before.preemptions:
            yield 'preempted', f'{after.why}; it goes on, number {after.preemptions}'
        if after.crashes > before.crashes:
            yield 'crashed', f'{after.why}; it is started again'


def _show_failure(cloud: Cloud, event: Event, say: typing.Callable[[str], None]) -> None:
    """Shows the end of the log of a run that failed, before it is started again or deleted."""
    if not isinstance(event, Observation) or event.run is not Run.ENDED or event.at is not None:
        return
    if exit_codes.ending_of(event.exit_code) in (Ending.DONE, Ending.PREEMPTED, Ending.SPENT):
        return
    try:
        lines = cloud.read_logs(LOG_LINES, host=event.host).splitlines()[-LOG_LINES:]
    except (CloudError, OSError) as error:
        lines = [f'(its log cannot be read: {error})']
    name = f' of {event.host}, which failed first' if event.host else ''
    say(f'exit code {event.exit_code}; the end of the log{name}:')
    for line in lines:
        line = printable(line)
        say(f'  | {line[:LOG_WIDTH]}' + ('...' if len(line) > LOG_WIDTH else ''))


def _describe(progress: Progress, action: Action) -> str:
    text = progress.state.value + (f': {progress.why}' if progress.why else '')
    if progress.due and action.kind is Kind.LOOK:
        return f'{text}; start in {action.delay:.0f} s'
    if action.kind in (Kind.LOOK, Kind.END):
        return text
    delay = f' in {action.delay:.0f} s' if action.delay else ''
    return f'{text}; {action.kind.value}{delay}'
