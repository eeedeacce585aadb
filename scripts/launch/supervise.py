"""Runs a process of a job; its exit code tells the job's manager what to do next.

python -m scripts.launch.supervise RETRIES COMMAND...     what worker.sh runs on GKE and SLURM

A manager sees only exit codes, and interprets them in its own way: XPK restarts a job for ever on
every code from 127 on, also after it ran out of memory (137). So this program restarts the process
after crashes itself, with a doubling delay and a limit, and exits with one of these codes:

- 0: the run is complete. 2: a wrong flag or config.
- 75: start the job again. The process saved after SIGTERM, or was ended before it could.
- 124: do not start it again; the budget is spent. $ELENCHUS_SECONDS has its seconds, and
  $ELENCHUS_METER the file with those of all starts (`budget.py`).
- 1: do not start it again; it crashed, or was killed, more often than RETRIES allows.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
import typing

from elenchus.scripts.launch import exit_codes
from elenchus.scripts.launch.budget import Budget
from elenchus.scripts.launch.exit_codes import Ending
from elenchus.scripts.launch.states import Policy

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
METER_SECONDS = 60.0
"""Time between two entries of the used seconds."""
NOTICE_SECONDS = 5.0
"""Longest time by which a notice may reach this process after it ended the other one."""


class Supervisor:
    """A process that is started again after crashes.

    Attributes:
        notice: Set by SIGTERM, SIGINT or SIGHUP: nothing is started any more.
        grace: Seconds from SIGTERM to SIGKILL when the budget is spent.
    """

    grace = 120.0

    def __init__(self, command: list[str], policy: Policy, *, budget: Budget | None = None):
        self.command = command
        self.policy = policy
        self.budget = budget or Budget()
        self.notice = threading.Event()
        self._process: subprocess.Popen | None = None
        self._signals = 0

    def pass_on(self, number: int, frame: typing.Any) -> None:
        """Passes a signal to the process; a handler for `signal.signal`."""
        del frame
        self.notice.set()
        if self._process is not None and self._process.poll() is None:
            # SIGHUP and SIGINT as SIGTERM: it saves at the first, and ends at once at the second.
            self._process.send_signal(signal.SIGTERM)
            self._signals += 1

    def run(self) -> int:
        """Returns the exit code for the job's manager."""
        crashes = 0
        while not self.notice.is_set():
            started = time.monotonic()
            # Signals are blocked until the process is assigned, so that `pass_on` never misses it.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self._process = subprocess.Popen(self.command, preexec_fn=_unblock)
            self._signals = 0
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            code = self._wait()
            ending = exit_codes.ending_of(code)
            self.budget.write()
            if ending is not Ending.DONE and self.budget.remaining() <= 0:
                return exit_codes.BUDGET
            if ending is Ending.DONE or ending is Ending.REFUSED or ending is Ending.PREEMPTED:
                return code
            if code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
                # A notice to the whole process group may reach the process before this one.
                self.notice.wait(NOTICE_SECONDS)
            if self.notice.is_set():
                break
            healthy = time.monotonic() - started >= self.policy.healthy
            crashes = 1 if healthy else crashes + 1
            if crashes > self.policy.retries:
                _say(f'exit code {code}, {crashes} times; not started again')
                return exit_codes.CRASH
            delay = self.policy.backoff(crashes - 1)
            _say(f'exit code {code}; start {crashes} of {self.policy.retries} in {delay:.0f} s')
            self.notice.wait(delay)
        return exit_codes.PREEMPTION

    def _wait(self) -> int:
        """Returns the exit code of the process, which ends when the budget is spent."""
        while True:
            try:
                return self._process.wait(max(min(self.budget.remaining(), METER_SECONDS), 0.01))
            except subprocess.TimeoutExpired:
                self.budget.write()
            if self.budget.remaining() <= 0:
                break
        _say(f'the budget is spent: SIGTERM, and SIGKILL in {self.grace:.0f} s')
        if not self._signals:  # otherwise it is saving, and a second signal would end it at once
            self._process.send_signal(signal.SIGTERM)
            self._signals += 1
        try:
            return self._process.wait(self.grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _say(text: str) -> None:
    print(f'[supervise] {text}', file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Runs the command of the command line; returns the exit code."""
    if len(arguments) < 2 or not arguments[0].isdigit():
        print('error: use supervise RETRIES COMMAND...', file=sys.stderr)
        return exit_codes.REFUSAL
    policy = Policy(retries=int(arguments[0]), poll=30.0, max_delay=600.0)
    seconds = os.environ.get('ELENCHUS_SECONDS', '')
    if seconds and not seconds.isdigit():
        print(f'error: ELENCHUS_SECONDS={seconds} must be a whole number', file=sys.stderr)
        return exit_codes.REFUSAL
    budget = Budget(float(seconds or math.inf), os.environ.get('ELENCHUS_METER', ''))
    supervisor = Supervisor(arguments[1:], policy, budget=budget)
    for number in SIGNALS:
        signal.signal(number, supervisor.pass_on)
    return supervisor.run()


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
