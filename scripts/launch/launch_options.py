"""Flags that all launchers of slices have."""

from __future__ import annotations

import dataclasses

from elenchus.scripts.launch.options import describe
from elenchus.scripts.launch.states import Policy


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """Flags of every launcher of slices."""

    after: str = describe('delete', 'at the end of the run', choices=('delete', 'leave'))
    max_hours: float = describe(24.0, 'billed hours after which everything is deleted')
    retries: int = describe(3, 'crashes after which the launch fails')
    max_preemptions: int = describe(100, 'preemptions after which the launch fails')
    poll: float = describe(
        60.0, 'seconds between looks, and the first delay of a back-off', most=86400
    )
    update: bool = describe(False, 'yes: this commit and these arguments replace the run there')
    tree: str = describe('head', 'sources that are shipped', choices=('head', 'dirty'))
    workdir: str = describe('', 'of fetch and status: folder in the bucket')
    into: str = describe('runs/fetched', 'of fetch: local folder')
    everything: bool = describe(False, 'of fetch: yes copies checkpoints, models and episodes too')
    inputs: str = describe('', 'of push: local file or folder')
    to: str = describe('', 'of push: folder in the bucket')
    lines: int = describe(50, 'of logs: lines')
    alert: str = describe('', 'of keep: command or https://... told of preemptions and the end')

    def policy(self) -> Policy:
        """Returns the limits of the launch."""
        return Policy(
            retries=self.retries,
            max_preemptions=self.max_preemptions,
            max_hours=self.max_hours,
            poll=self.poll,
            after=self.after,
        )
