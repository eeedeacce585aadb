"""A host of `fake_gcloud.py`, which answers as scripts/launch/detached.sh does."""

import dataclasses

from elenchus.scripts.launch import exit_codes


@dataclasses.dataclass
class Host:
    """A host of a slice; `ends` is when its process ends."""

    archives: set = dataclasses.field(default_factory=set)
    version: str = ''
    key: str = ''
    attempt: str = ''
    since: float = 0.0
    ends: float | None = None
    code: int = 0
    stopped: bool = False
    wiped: bool = False
    run_version: str = ''
    deadline: float | None = None
    watched: float | None = None

    def spend(self, now):
        """Ends the process half a minute after the end of the budget."""
        end = None if self.deadline is None else self.deadline + 30
        runs_on = self.ends is None or (end is not None and self.ends > end)
        if self.key and runs_on and end is not None and now >= end:
            self.ends, self.code, self.stopped = end, exit_codes.BUDGET, False

    def line(self, key, now):
        """The line of status of detached.sh."""
        self.spend(now)
        if not self.key or self.wiped:
            return 'absent'
        if self.ends is None or now < self.ends:
            return f'running 3 {self.run_version}' if key in (self.key, '-') else 'other'
        stopped = 'stopped' if self.stopped else '-'
        word = f'ended {self.code} {now - self.ends:.0f} {stopped} {self.run_version}'
        return word if key in (self.key, '-') else 'absent'
