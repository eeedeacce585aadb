"""Faults of a launch on Cloud TPU, by state: what the user saw, what was billed, what stayed.

python -m tests.support.launch_faults      prints the table of docs/pods.md
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile

from elenchus.scripts.launch import actions, launched_run, sources
from elenchus.scripts.launch.ledger import FOLDER
from elenchus.scripts.launch.tpu import Tpu, TpuOptions
from tests.support import faults_before_run, faults_of_run
from tests.support.fake_gcloud import FakeClock, FakeGcloud, LaptopDies
from tests.support.launch_fault import HOUR

RUN = ('--config=configs/lab.py', '--workdir=gs://bucket/run')
FAULTS = (*faults_before_run.FAULTS, *faults_of_run.FAULTS)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    code: int
    lines: list[str]
    cloud: FakeGcloud

    @property
    def seen(self):
        """The last line that the user saw."""
        return self.lines[-1]


@contextlib.contextmanager
def launches_in(folder):
    """Ledgers are kept in this folder."""
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(FOLDER)
        if before is not None:
            os.environ[FOLDER] = before


def make_session(gcloud, lines, **flags):
    """A command line of tpu.sh at work on a stand-in."""
    cloud = Tpu(TpuOptions(name='pod', zone='z', **flags), RUN, gcloud)
    cloud.launched.sources = sources.Sources(
        pathlib.Path('/x/elenchus-abc.tar.gz'), 'abc', frozenset(), ''
    )
    cloud.launched.key = launched_run.key_of(RUN)
    session = actions.Session(cloud.flags, cloud, gcloud)
    session.clock, session.say = gcloud.clock, lines.append
    return session


def meet(fault):
    """Runs `keep` into a fault."""
    gcloud, lines = FakeGcloud(FakeClock(), **fault.cloud), []
    with tempfile.TemporaryDirectory() as folder, launches_in(folder):
        if fault.begin is not None:
            fault.begin(gcloud)
        try:
            code = make_session(gcloud, lines, **fault.flags).keep()
        except LaptopDies:
            code = None
            gcloud.clock.sleep(47 * HOUR)
        if fault.again:
            assert code == 130 and 'interrupted' in lines[-1]
            code = make_session(gcloud, lines, **fault.flags).keep()
    return Outcome(code, lines, gcloud)


def print_table():
    """The table in Markdown."""
    rows = [
        '| state | what happens | seen last | exit code | requests | starts | billed | stays |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for fault in FAULTS:
        end = meet(fault)
        starts = end.cloud.processes / 2
        code = 'none' if end.code is None else end.code
        stays = 'nothing' if not end.cloud.running else 'the slice'
        rows.append(
            f'| {fault.state} | {fault.name} | {end.seen} | {code} | '
            f'{end.cloud.count("create")} | {starts:g} | {end.cloud.hours:.2f} h | {stays} |'
        )
    return '\n'.join(rows)


if __name__ == '__main__':
    print(print_table())
