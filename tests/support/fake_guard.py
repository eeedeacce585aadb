"""The guard of a slice (scripts/launch/guard.sh) on the fake clock of `fake_gcloud.py`.

The script itself has tests of its own (tests/scripts/launch/test_guard.py).
"""

import pathlib
import shlex

GRACE, IDLE, UNUSED, POLL = 300, 1800, 3600, 30


class FakeGuard:
    """What hosts do when nobody watches.

    Attributes:
        settings: Of the startup script, empty without one.
        may_delete: Whether the service account of the hosts may.
        ends: Lines that hosts have left in the bucket.
    """

    def __init__(self, cloud):
        self.cloud = cloud
        self.settings = {}
        self.may_delete = True
        self.ends = []

    def read_script(self, words):
        """Reads the settings from the startup script of a request."""
        mark = '--metadata-from-file=startup-script='
        path = next((word.removeprefix(mark) for word in words if word.startswith(mark)), '')
        line = pathlib.Path(path).read_text(encoding='utf-8').splitlines()[1] if path else ''
        self.settings = dict(word.split('=', 1) for word in shlex.split(line))

    def watch(self):
        """Begins on the slice that came up."""
        bill = self.cloud.bills[-1]
        if self.settings:
            self.cloud.clock.at(POLL, lambda: self._look(bill))

    def _look(self, bill):
        cloud, now = self.cloud, self.cloud.clock.now()
        if bill[1] is not None:
            return
        if self.may_delete and self._decides(bill[0], now):
            for i, host in enumerate(cloud.hosts):
                code = host.code if host.key else 'unused'
                stopped = 'stopped' if host.stopped else '-'
                line = f'elenchus-end h{i} {code} {stopped} {bill[0]:.0f} {now:.0f} '
                self.ends.append(line + (host.run_version or '-'))
            cloud.take_away()
            cloud.state, cloud.node = None, ''
            return
        cloud.clock.at(POLL, lambda: self._look(bill))

    def _decides(self, began, now):
        hosts = self.cloud.hosts
        for host in hosts:
            host.spend(now)
        deadlines = [host.deadline for host in hosts if host.deadline is not None]
        if now >= max(deadlines, default=began + int(self.settings['BUDGET'])) + GRACE:
            return True
        if self.settings['AFTER'] != 'delete':
            return False
        runs = [host for host in hosts if host.key]
        if any(host.ends is None or host.ends > now for host in runs):
            return False
        times = [began, *(host.watched for host in hosts if host.watched is not None)]
        times += [host.ends for host in runs]
        return now - max(times) > (IDLE if runs else UNUSED)
