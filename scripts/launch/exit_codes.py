"""The table of exit codes that all launchers share: what the end of a process means.

Written once, for the state machine (`transitions.py`) and for the guide (docs/pods.md has what
`__main__.py codes` prints). Sources: 0, 1, 2 and 75 are those of scripts.run (docs/faults.md; 75 is
EX_TEMPFAIL of sysexits.h); 124 is that of timeout(1); a shell reports a process that signal N ended
as 128 + N (bash(1), EXIT STATUS).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable


class Ending(enum.Enum):
    """How a run on one or several hosts ended; the later of two hosts' endings is the run's."""

    DONE = 'done'
    PREEMPTED = 'preempted'
    CRASHED = 'crashed'
    KILLED = 'killed'
    REFUSED = 'refused'
    SPENT = 'out of budget'


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        codes: Exit codes as text, for the reader.
        ending: What they mean.
        cause: Where they come from.
        reaction: What a launcher does.
    """

    codes: str
    ending: Ending
    cause: str
    reaction: str


DONE, CRASH, REFUSAL, PREEMPTION, BUDGET = 0, 1, 2, 75, 124
FIRST_SIGNAL = 128
"""Codes above it are 128 + the number of a signal."""

TABLE = (
    Row('0', Ending.DONE, 'the run is complete', 'deletes what it made (--after=delete)'),
    Row(
        '2',
        Ending.REFUSED,
        'a wrong flag or config: the same command would fail again',
        'never starts again; deletes what it made',
    ),
    Row(
        '75',
        Ending.PREEMPTED,
        'stopped by SIGTERM with a checkpoint saved',
        'starts again, at most --max_preemptions times, unless the action `stop` asked for it',
    ),
    Row(
        '124',
        Ending.SPENT,
        '--max_hours are over: SIGTERM, so that it saves, and two minutes later SIGKILL',
        'never starts again; deletes what it made, whatever --after says',
    ),
    Row(
        '137, 143, other 129-192',
        Ending.KILLED,
        'a signal ended the process (out of memory, grace period over, crash in native code)',
        'starts again with back-off, at most --retries times together with crashes',
    ),
    Row(
        '1, any other',
        Ending.CRASHED,
        'a failure from outside, a non-finite number, or a traceback',
        'starts again with back-off, at most --retries times',
    ),
)
_ORDER = tuple(Ending)
_LAST_SIGNAL = FIRST_SIGNAL + 64


def ending_of(code: int) -> Ending:
    """Returns what the exit code of a process means.

    Negative codes are those of Python's subprocess: -N for a process that signal N ended.
    """
    endings = {
        DONE: Ending.DONE,
        REFUSAL: Ending.REFUSED,
        PREEMPTION: Ending.PREEMPTED,
        BUDGET: Ending.SPENT,
    }
    if code in endings:
        return endings[code]
    return Ending.KILLED if code < 0 or FIRST_SIGNAL < code <= _LAST_SIGNAL else Ending.CRASHED


def code_of_hosts(codes: Iterable[int]) -> int:
    """Returns the exit code of a run from those of its hosts.

    When one host is killed or refuses its config, the others end with 1 soon after, because they
    miss it; so the code that explains the others counts: out of budget, refused, killed, crashed,
    preempted, done.
    """
    return max(codes, key=lambda code: (_ORDER.index(ending_of(code)), code))


def print_table() -> str:
    """Returns the table in Markdown."""
    lines = ['| exit code | the run | because | a launcher |', '|---|---|---|---|']
    lines += [f'| {r.codes} | {r.ending.value} | {r.cause} | {r.reaction} |' for r in TABLE]
    return '\n'.join(lines)
