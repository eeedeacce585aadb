"""Writes shell commands for the hosts of a run, and interprets their output."""

from __future__ import annotations

import dataclasses
import math
import posixpath
import shlex
import typing

from elenchus.scripts.launch import exit_codes, owners
from elenchus.scripts.launch.launched_run import LaunchedRun, commit_of
from elenchus.scripts.launch.states import Observation, Resource, Run

STATUS = 'elenchus-status'
GUARD = 'elenchus-guard'
END = 'elenchus-end'
STRAGGLING = 600
"""Seconds after a host failed at which the hosts that still run are killed."""
UNPACK = """set -e
mkdir -p {folder}
exec 9>{folder}/.unpacking
if command -v flock >/dev/null; then flock 9; fi
export LC_ALL=C
tar -tzf {archive} | grep -v '/$' | sort >{folder}/.files.new
tar -xzf {archive} -C {folder} || exit 1 # its 2 would read as a refusal, which is never repeated
if [ -f {folder}/.files ]; then
    comm -23 {folder}/.files {folder}/.files.new | (
        cd {folder} && while IFS= read -r f; do rm -f -- "$f"; done
    )
fi
mv {folder}/.files.new {folder}/.files
printf '%s\\n' {version} >{folder}/.version
exec 9>&-
cd {folder}
{then}"""


def quote(words: typing.Iterable[str]) -> str:
    """Returns words joined for a shell, each of them quoted."""
    return ' '.join(shlex.quote(word) for word in words)


def home_folder(folder: str) -> str:
    """Returns a folder on a host; commands start in the home directory, so `~/` is dropped."""
    return folder[2:] if folder.startswith('~/') else folder


def compilation_cache(workdir: str) -> str:
    """Returns the folder of compiled programs beside a work directory in a bucket, '' for others.

    Only JAX's process 0 writes the cache. On the hosts' own disks the other hosts would compile
    again at every start, and all hosts would on a new slice.
    """
    bucket, _, path = workdir.rstrip('/').removeprefix('gs://').partition('/')
    if not workdir.startswith('gs://') or not bucket:
        return ''
    return 'gs://' + posixpath.join(bucket, posixpath.dirname(path), 'compilation_cache')


def unpack_command(folder: str, archive: str, *, version: str, then: str) -> str:
    """Returns the command that unpacks an archive in the home directory, then runs another command.

    Files of the previous archive that this one lacks are removed; others (.venv, .cache) stay.
    """
    words = {'folder': folder, 'archive': archive, 'version': version}
    return UNPACK.format(**{name: shlex.quote(word) for name, word in words.items()}, then=then)


def worker_command(accelerator: str, arguments: typing.Sequence[str]) -> list[str]:
    """Returns the command of a host's process; without arguments it makes only the environment."""
    return ['bash', 'scripts/launch/worker.sh', accelerator, *arguments]


def detached_command(folder: str, *words: str) -> str:
    """Returns the command that calls detached.sh on a host."""
    return f'cd {shlex.quote(folder)} && {quote(["bash", "scripts/launch/detached.sh", *words])}'


def stacks_command(folder: str, name: str) -> str:
    """Returns the command that prints a host's name and the stacks of its process."""
    return f'echo "--- $(uname -n)"; {detached_command(folder, "stacks", name)}'


def budget_command(name: str, budget: float | None) -> str:
    """Returns the command that tells a host that it is watched, and when the budget is spent."""
    folder = f'"${{ELENCHUS_STATE:-$HOME/.elenchus}}"/{shlex.quote(name)}'
    deadline = '' if budget is None else f'echo $((now + {math.ceil(budget)})) >"$d/deadline"; '
    return (
        f'd={folder}; now=$(date +%s); {{ mkdir -p "$d" && echo "$now" >"$d/watched"; {deadline}}} '
        '2>/dev/null; '
    )


def status_command(
    folder: str, name: str, key: str, *, budget: float | None, shared: bool = False
) -> str:
    """Returns the command that prints one line of status, on hosts without sources too.

    Args:
        folder: Folder of the sources on the host.
        name: Name of the launch.
        key: Key that identifies the run (`launched_run.key_of`).
        budget: Seconds that may still be billed; None leaves the host's deadline unchanged.
        shared: Whether others may use the host. If one does, the command only reports that.
    """
    script = shlex.quote(f'{folder}/scripts/launch/detached.sh')
    tell = budget_command(name, budget)
    if shared:
        tell = (
            f'{owners.find_command(name)}if [ -n "$others" ]; then echo "$others"; else {tell}fi; '
        )
    return (
        f'{tell}'
        'g="${ELENCHUS_GUARD:-/var/lib/elenchus-guard}/may_delete"; '
        f'if [ -f "$g" ]; then echo "{GUARD} $(cat "$g")"; fi; '
        f'if [ -f {script} ]; then bash {script} status {quote([name, key])}; '
        f'else echo "{STATUS} $(uname -n) absent"; fi'
    )


@dataclasses.dataclass(frozen=True)
class HostStatus:
    """A line of status of a host (`detached.sh`)."""

    host: str
    run: Run
    code: int | None = None
    age: int = 0
    stopped: bool = False
    version: str = ''


def read_status(output: str) -> list[HostStatus]:
    """Returns the lines of status in what the hosts printed; other lines are ignored."""
    hosts = []
    for line in output.splitlines():
        _, mark, rest = line.partition(STATUS + ' ')
        words = rest.split()
        if not mark or len(words) < 2:
            continue
        host, run, *more = words
        if run not in {r.value for r in Run}:
            continue
        numbers = [int(word) for word in more if word.lstrip('-').isdigit()]
        version = more[-1] if more and '-' in more[-1].strip('-') else ''
        if run == Run.ENDED.value and len(numbers) == 2:
            stopped = 'stopped' in more
            hosts.append(HostStatus(host, Run.ENDED, *numbers, stopped=stopped, version=version))
        elif run != Run.ENDED.value:
            hosts.append(HostStatus(host, Run(run), age=(numbers or [0])[0], version=version))
    return hosts


def note_of_stop(output: str) -> str:
    """Returns a message on hosts that were told to stop; '' if a run was alive there."""
    hosts = read_status(output)
    if Run.RUNNING in {host.run for host in hosts}:
        return ''
    if Run.ENDED in {host.run for host in hosts}:
        return 'no run was alive there; a `keep` that waits to start it again ends'
    return 'no run was there, and none is marked: a `keep` that installs it will start it'


def code_of_stragglers(hosts: typing.Sequence[HostStatus]) -> int:
    """Returns the exit code of a host that failed long ago while others wait for it, else 0."""
    codes = [h.code for h in hosts if h.run is Run.ENDED and h.code and h.age > STRAGGLING]
    waiting = any(host.run is Run.RUNNING for host in hosts)
    return exit_codes.code_of_hosts(codes) if codes and waiting else 0


def first_to_fail(hosts: typing.Iterable[HostStatus]) -> str:
    """Returns the host that failed first, whose log says why; '' if none failed."""
    good = (exit_codes.DONE, exit_codes.PREEMPTION)
    failed = [host for host in hosts if host.run is Run.ENDED and host.code not in good]
    earliest = [host for host in failed if host.age == max(other.age for other in failed)]
    if not earliest:
        return ''
    # Several may fail in the same second: takes the one whose code explains the others'.
    code = exit_codes.code_of_hosts(host.code for host in earliest)
    return next(host.host for host in earliest if host.code == code)


def observe(
    hosts: typing.Sequence[HostStatus], *, launched: LaunchedRun, silent: str = ''
) -> Observation:
    """Returns the state of a run from the status of its hosts, on machines that are ready.

    Args:
        hosts: Status of the hosts that answered.
        launched: The run that should be there.
        silent: Why some hosts did not answer; empty if all did.
    """
    runs = {host.run for host in hosts}
    note = f'not all hosts answer: {silent}' if silent else ''
    if Run.OTHER in runs:
        return Observation(Resource.READY, Run.OTHER, detail='its hosts run something else')
    versions = sorted({host.version for host in hosts if host.run is Run.RUNNING})
    if any(launched.is_replaced_by_this(version) for version in versions):
        detail = f'it makes room for commit {launched.sources.version}'
        return Observation(Resource.READY, Run.OLD, detail=detail)
    if silent and Run.RUNNING not in runs:
        return Observation(Resource.READY, Run.UNKNOWN, detail=silent)
    if Run.ABSENT in runs or not runs:
        return Observation(Resource.READY, Run.ABSENT)
    if Run.RUNNING in runs:
        age = max(host.age for host in hosts if host.run is Run.RUNNING)
        late = f'no heartbeat for {age // 60} min' if age > 120 else ''
        commit = ', '.join(commit_of(version) for version in versions if version)
        texts = [text for text in (commit, late, note) if text]
        return Observation(Resource.READY, Run.RUNNING, detail='; '.join(texts))
    code = exit_codes.code_of_hosts(host.code for host in hosts)
    if code == exit_codes.DONE and any(launched.is_news_after(host.version) for host in hosts):
        return Observation(Resource.READY, Run.ABSENT, detail='complete, with other arguments')
    names = ', '.join(sorted(host.host for host in hosts if host.code == code)[:3])
    return Observation(
        Resource.READY,
        Run.ENDED,
        code,
        stopped=any(host.stopped for host in hosts),
        host=first_to_fail(hosts),
        detail=f'the run ended with exit code {code} on {names}',
    )


def observe_end(output: str, *, since: float, workdir: str) -> Observation:
    """Returns the state from the lines of hosts that deleted themselves (`guard.sh`).

    Args:
        output: Lines `elenchus-end HOST CODE|unused stopped|- BEGAN AT VERSION`.
        since: Time of the request for these machines; older lines are of earlier machines.
        workdir: The work directory, in a bucket.
    """
    lines = [line.split() for line in output.splitlines() if line.startswith(END + ' ')]
    lines = [line for line in lines if len(line) == 7 and (line[4] + line[5]).isdigit()]
    lines = [line for line in lines if int(line[5]) >= since]
    if not lines:
        return Observation(Resource.ABSENT)
    codes = [int(line[2]) for line in lines if line[2].isdigit()]
    ended = 'its hosts deleted it, because nobody watched'
    code = exit_codes.code_of_hosts(codes) if codes else None
    return Observation(
        Resource.ABSENT,
        Run.ENDED if codes else Run.ABSENT,
        code,
        stopped=any(line[3] == 'stopped' for line in lines),
        detail=ended + (f'; exit code {code}, log in {workdir}/launch' if codes else ''),
        since=float(min(int(line[4]) for line in lines)),
        at=float(max(int(line[5]) for line in lines)),
    )
