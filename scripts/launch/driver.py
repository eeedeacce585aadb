"""Runs a launch to its end: does what the transitions say, and remembers how far it came."""

from __future__ import annotations

import time
import typing

from elenchus.scripts.launch import transitions
from elenchus.scripts.launch.cloud import Cloud, CloudError
from elenchus.scripts.launch.states import (
    Action,
    Cause,
    Event,
    Failure,
    Kind,
    Policy,
    Progress,
    Success,
)


class Clock:
    """The time; tests have one that does not wait."""

    def now(self) -> float:
        """Returns seconds since 1970, which go on while a laptop sleeps."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


def perform(cloud: Cloud, kind: Kind) -> Event:
    """Does one action on a cloud; returns what came of it."""
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
    except (OSError, ValueError, LookupError, TypeError) as error:
        # This machine's fault, or an answer of another form: no reason to leave what is billed.
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
) -> int:
    """Brings a run to its end; returns the exit code of the launcher.

    Args:
        cloud: Where it runs.
        policy: Limits.
        progress: Where a former command was interrupted, else `Progress()`.
        clock: Time.
        remember: Stores the progress; called after every event.
        say: Prints a line; called when state or reason change.
    """
    action, line = Action(Kind.LOOK), ''
    while action.kind is not Kind.END:
        if action.delay:
            clock.sleep(action.delay)
        event = perform(cloud, action.kind)
        progress, action = transitions.advance(progress, event, now=clock.now(), policy=policy)
        remember(progress)
        before, line = line, _describe(progress, action)
        if line != before:
            say(line)
    return action.exit_code


def _describe(progress: Progress, action: Action) -> str:
    text = progress.state.value + (f': {progress.why}' if progress.why else '')
    if action.kind in (Kind.LOOK, Kind.END):
        return text
    delay = f' in {action.delay:.0f} s' if action.delay else ''
    return f'{text}; {action.kind.value}{delay}'
