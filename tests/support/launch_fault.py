"""One fault of a launch, and what happens to the stand-in for gcloud in it."""

import dataclasses
import typing

from tests.support.fake_gcloud import FakeGcloud

HOUR = 3600
TO_THE_END = 'done: the run is complete'


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        state: State of the launch when it happens.
        name: What happens.
        code: Exit code of the launcher, None if its machine never comes back.
        seen: Words that the user must have seen.
        hours: Billed hours.
        requests: Slices that were requested.
        processes: Processes that were started, on both hosts together.
        cloud: Arguments of the stand-in.
        flags: Flags of tpu.sh.
        begin: What is done to the cloud before; events on its clock.
        stays: Slices that stay and are billed.
        again: Whether the command is run twice, after Ctrl-C.
    """

    state: str
    name: str
    code: int | None
    seen: str
    hours: float
    requests: int = 1
    processes: int = 2
    cloud: dict = dataclasses.field(default_factory=dict)
    flags: dict = dataclasses.field(default_factory=dict)
    begin: typing.Callable[[FakeGcloud], None] | None = None
    stays: int = 0
    again: bool = False


def at(seconds, method, *arguments):
    """Something happens to the cloud this many seconds after the beginning."""
    return lambda cloud: cloud.clock.at(seconds, lambda: getattr(cloud, method)(*arguments))


def by_somebody(cloud):
    """The action `stop` in another terminal."""
    cloud.clock.at(2000, lambda: [cloud._end(host, 75) for host in cloud.hosts])


def by_somebody_after_a_crash(cloud):
    """The same, when the first run has crashed and `keep` has seen it, but not started the next."""

    def watch():
        now = cloud.clock.now()
        if cloud.hosts and all(h.key and h.ends and h.ends + 70 <= now for h in cloud.hosts):
            cloud._stop([], 'detached.sh stop pod')
        else:
            cloud.clock.at(5, watch)

    cloud.clock.at(600, watch)


def give_notice(cloud):
    """A preemption with a notice: all processes leave with 75, then the machines go."""
    cloud.clock.at(2000, cloud.notice)
    cloud.clock.at(2030, lambda: cloud.take_away('SUSPENDING'))


def forbid(cloud):
    """The service account of the hosts may not delete the slice."""
    cloud.guard.may_delete = False


def interrupt(cloud):
    """Ctrl-C."""
    raise KeyboardInterrupt


def always(verb, fault):
    return {'faults': {(verb, 0): fault}}


def first(verb, count, fault):
    return {'faults': {(verb, i): fault for i in range(1, count + 1)}}


def late(verb, start, count, fault):
    return {'faults': {(verb, i): fault for i in range(start, start + count)}}
