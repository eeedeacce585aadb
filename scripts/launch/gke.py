"""Workloads on GKE through XPK; `gke.sh --help` has the usage.

Source of XPK's flags: github.com/AI-Hypercomputer/xpk, docs/usage/workloads.md, src/xpk/parser/.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import tarfile
import time
import typing

from elenchus.scripts.launch import actions, exit_codes, jobsets, launched_run, options, remote
from elenchus.scripts.launch.cloud import CloudError, Refused, Unreachable
from elenchus.scripts.launch.commands import EXISTS, LOGIN, Commands, Result, error_of, say
from elenchus.scripts.launch.launch_options import LaunchOptions
from elenchus.scripts.launch.launched_run import LaunchedRun
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError, describe
from elenchus.scripts.launch.states import Observation, Resource, Run

JOBSET = 'jobset.sigs.k8s.io/jobset-name'
QUICK = 120.0
"""Seconds after which a short command counts as lost."""
STACKS_SINCE = 20
"""Seconds of a pod's log that are shown after its processes were asked for their stacks."""
NO_CONTEXT = re.compile(
    r'localhost:8080|context .* does not exist|no configuration has been provided|'
    r'current-context is not set|no context exists',
    re.IGNORECASE,
)
"""Matches kubectl's errors when it has no context of a cluster."""
PLAIN = re.compile(r'[A-Za-z0-9_./:=+,@-]*')
"""Characters that neither a shell nor YAML changes: XPK writes the command into both unquoted."""


@dataclasses.dataclass(frozen=True)
class GkeOptions(LaunchOptions):
    """Flags of gke.sh."""

    name: str = describe('', 'name of the workload')
    cluster: str = describe('', 'GKE cluster')
    zone: str = describe('', 'zone of the cluster, such as us-east5-a')
    project: str = describe('', "Google Cloud project; empty: the one of gcloud's configuration")
    device: str = describe('tpu', 'kind of nodes', choices=('tpu', 'gpu'))
    type: str = describe('v5p-128', '--tpu-type; for gpu --device-type, such as h100-mega-80gb-8')
    slices: int = describe(1, 'number of TPU slices or GPU nodes')
    accelerator: str = describe(
        '', 'packages of JAX; empty: tpu or cuda13', choices=('', 'tpu', 'cuda13', 'cuda12')
    )
    image: str = describe('python:3.12-slim', 'base image')
    repository: str = describe('', 'image REPOSITORY:COMMIT-ACCELERATOR is built and pushed there')
    docker_image: str = describe('', 'image that is ready; no sources are shipped')
    image_folder: str = describe('.', 'with docker_image: folder of the clone in it')
    restarts: int = describe(50, 'restarts by the cluster, after preemptions')
    grace: int = describe(120, 'seconds from notice to kill; Spot nodes give 15 at most')
    priority: str = describe('medium', 'class of the workload, very-low to very-high')
    env: str = describe('', 'variables of the processes: KEY=VALUE,...')
    storage: str = describe('', 'storages of `xpk storage` that the pods mount: NAME,...')
    context: str = describe('', 'context of kubectl; empty: the current one, which XPK sets')


class Workload:
    """A workload, which is a JobSet of Kubernetes; implements `cloud.Cloud`."""

    def __init__(self, flags: GkeOptions, run: tuple[str, ...], commands: Commands):
        options.require(flags, 'name', 'cluster', 'zone')
        # The limit of xpk, parser/validators.py: Kubernetes appends to the name.
        if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', flags.name):
            raise UsageError(
                f'--name={flags.name} must be at most 40 lower-case letters, digits and hyphens'
            )
        if flags.docker_image and flags.repository:
            raise UsageError('--docker_image and --repository exclude each other')
        self.flags = flags
        self.commands = commands
        self.accelerator = flags.accelerator or {'tpu': 'tpu', 'gpu': 'cuda13'}[flags.device]
        self.launched = LaunchedRun(
            run, Ledger(*self.ledger_names), tree=flags.tree, update=flags.update
        )
        self.budget: float | None = None
        self.since: float | None = None
        self.place = flags.context

    @property
    def ledger_names(self) -> tuple[str, ...]:
        """Words that identify this workload; they name its ledger file."""
        return ('gke', self.flags.project, self.flags.cluster, self.flags.name)

    @property
    def chips(self) -> int:
        """Number of slices or nodes, not of chips: how many chips each has depends on its type."""
        return self.flags.slices

    def prepare(self) -> None:
        """Exports the sources that the image gets, and checks the arguments of the run."""
        self.launched.prepare(image=self.flags.docker_image)
        self.command()  # raises for characters that XPK would change, before an image is built

    def look(self) -> Observation:
        """Returns the state of the JobSet and of its pods."""
        result = self.commands.run(
            self._kubectl('get', 'jobset', self.flags.name, '--output=json'), patience=QUICK
        )
        if result.code:
            if self._is_missing(result):
                return Observation(Resource.ABSENT)
            if NO_CONTEXT.search(result.error):
                raise Refused(
                    f'{result.reason}; --context=... names the context of {self.flags.cluster}: '
                    f'`gcloud container clusters get-credentials {self.flags.cluster} '
                    f'--location={self.flags.zone}` makes it, without -a, -b or -c for a region'
                )
            raise error_of(result)
        if self.commands.dry_run:
            return Observation(Resource.ABSENT)
        pods = self.commands.check(
            self._kubectl('get', 'pods', f'--selector={JOBSET}={self.flags.name}', '-ojson'),
            patience=QUICK,
        )
        try:
            seen = jobsets.observe(json.loads(result.output), json.loads(pods)['items'] or [])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # Another version may answer in another form: the state is then unknown, not absent.
            what = f'{type(error).__name__}: {error}'
            raise Unreachable(f'kubectl answers in a form that is not known ({what})') from None
        arguments, version = jobsets.read_command(result.output)
        if self.launched.key == launched_run.ANY:
            return dataclasses.replace(
                seen, detail=_join(seen.detail, launched_run.commit_of(version))
            )
        if launched_run.key_of(arguments) != self.launched.key:
            return Observation(Resource.READY, Run.OTHER, detail='it has another work directory')
        if seen.run is Run.RUNNING and self.launched.is_replaced_by_this(version):
            return Observation(Resource.READY, Run.ABSENT)  # `start` replaces the workload
        is_done = seen.run is Run.ENDED and seen.exit_code == exit_codes.DONE
        if is_done and self.launched.is_news_after(version):
            return Observation(Resource.READY, Run.ABSENT)
        return seen

    def settle(self) -> None:
        """Does nothing: XPK sets the context of kubectl when it submits."""

    def create(self) -> None:
        """Builds the image and submits the workload."""
        if self.launched.key == launched_run.ANY:
            self.prepare()
        self.launched.check_startable()
        flags = self.flags
        size = {
            'tpu': [f'--tpu-type={flags.type}', f'--num-slices={flags.slices}'],
            'gpu': [f'--device-type={flags.type}', f'--num-nodes={flags.slices}'],
        }[flags.device]
        result = self.commands.run(
            [
                *self._xpk('create'),
                *size,
                *self._image(),
                f'--priority={flags.priority}',
                f'--max-restarts={flags.restarts}',
                f'--restart-on-exit-codes={exit_codes.PREEMPTION}',
                f'--termination-grace-period-seconds={flags.grace}',
                *(f'--env={pair}' for pair in flags.env.split(',') if pair),
                *(f'--storage={name}' for name in flags.storage.split(',') if name),
                f'--command={self.command()}',
            ],
            patience=7200.0,
        )
        if result.code and not EXISTS.search(result.error + result.output):
            raise error_of(result)
        if not self.place:  # XPK has set the current context to that of the cluster
            words = ['kubectl', 'config', 'current-context']
            self.place = self.commands.run(words, patience=QUICK).output.strip()

    def command(self) -> str:
        """Returns the command of a pod.

        Raises UsageError if a word has characters that XPK would change (`PLAIN`).
        """
        workdir = self.launched.workdir.rstrip('/')
        cache = remote.compilation_cache(workdir)
        seconds = self.flags.max_hours * 3600 if self.budget is None else self.budget
        words = [
            *('cd', self.flags.image_folder, '&&', 'exec', 'env'),
            f'ELENCHUS_SUPERVISE={self.flags.retries}',
            f'ELENCHUS_SECONDS={math.ceil(seconds)}',
            f'ELENCHUS_METER={workdir}/launch/{self.flags.name}-{int(time.time())}.seconds',
            f'ELENCHUS_VERSION={self.launched.version}',
            *([f'JAX_COMPILATION_CACHE_DIR={cache}'] if cache else []),
            *remote.worker_command(self.accelerator, (self._encoded(),)),
        ]
        for word in words:
            if word != '&&' and not PLAIN.fullmatch(word):
                raise UsageError(f'{word!r} has characters that do not survive XPK')
        return ' '.join(words)

    def _encoded(self) -> str:
        """Returns the arguments of the run as one word."""
        arguments = self.launched.arguments
        if self.flags.device == 'tpu':
            arguments = (*arguments, '--distributed')
        packed = base64.b64encode(b''.join(word.encode() + b'\0' for word in arguments)).decode()
        return f'--encoded={packed}'

    def _image(self) -> list[str]:
        """Exports the sources for XPK, or builds the image itself; returns XPK's flags."""
        flags = self.flags
        if flags.docker_image:
            return [f'--docker-image={flags.docker_image}']
        folder = f'{self.launched.scratch}/sources'
        with tarfile.open(self.launched.sources.path) as archive:
            # We wrote the archive, so extraction without a filter is safe; early 3.9 has none.
            archive.extractall(
                folder, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {})
            )
        if not flags.repository:
            return [f'--base-docker-image={flags.image}', f'--script-dir={folder}']
        version = self.launched.sources.version.replace('+', '-')
        image = f'{flags.repository}:{version}-{self.accelerator}'
        self.commands.check(
            [
                *('docker', 'buildx', 'build', '--platform=linux/amd64', '--push'),
                *(f'--build-arg=BASE={flags.image}', f'--target={self.accelerator}'),
                *(f'--file={folder}/scripts/launch/Dockerfile', f'--tag={image}', folder),
            ],
            patience=7200.0,
        )
        return [f'--docker-image={image}']

    def install(self) -> None:
        """Does nothing: the image has the sources."""

    def start(self) -> None:
        """Submits the workload again after it failed."""
        if self.commands.dry_run:
            return  # `create` has printed it
        self.delete()
        self.create()

    def stop(self) -> str:
        """Deletes the workload: its processes get SIGTERM and save within the grace period."""
        self.delete()
        return ''

    def kill(self) -> str:
        """Deletes the pods at once, then the workload."""
        self.commands.run(
            self._kubectl(
                *('delete', 'pods', f'--selector={JOBSET}={self.flags.name}'),
                *('--grace-period=0', '--force', '--wait=false'),
            ),
            patience=QUICK,
        )
        self.delete()
        return ''

    def delete(self) -> None:
        """Deletes the workload."""
        result = self.commands.run([*self._xpk('delete'), '--force'])
        if result.code and not self._is_missing(result):
            raise error_of(result)
        if result.code:
            say(f'{self.flags.name} is not in {self.flags.cluster}: nothing was deleted')

    def find_others(self) -> str:
        """Returns '': a workload has exactly one run, which its command identifies."""
        return ''

    def read_logs(self, lines: int, *, host: str = '') -> str:
        """Returns the end of the log of a pod, or of the first slice's first host."""
        selector = f'{JOBSET}={self.flags.name},batch.kubernetes.io/job-completion-index=0'
        which = [host] if host else [f'--selector={selector}']
        return self.commands.check(self._kubectl('logs', *which, f'--tail={lines}'), patience=QUICK)

    def run_on_host(self, command: str) -> str:
        """Runs a shell command in the first pod; returns what it printed."""
        return self._in_pod(self._running_pods()[0], command)

    def dump_stacks(self) -> str:
        """Makes the processes of every pod write their stacks; returns the end of its log."""
        pods, words = self._running_pods(), [self.flags.image_folder]
        command = f'cd {remote.quote(words)} && bash scripts/launch/stacks.sh && sleep 2'
        texts = []
        for pod in pods:
            said = self._in_pod(pod, command)
            log = self._kubectl('logs', pod, f'--since={STACKS_SINCE}s')
            texts.append(f'--- {pod}\n{said}{self.commands.check(log, patience=QUICK)}')
        return ''.join(texts)

    def _running_pods(self) -> list[str]:
        words = ('get', 'pods', f'--selector={JOBSET}={self.flags.name}', '--output=name')
        output = self.commands.check(
            self._kubectl(*words, '--field-selector=status.phase=Running'), patience=QUICK
        )
        pods = output.split() or (['pod/POD'] if self.commands.dry_run else [])
        if not pods:
            raise CloudError(f'no pod of {self.flags.name} is running')
        return sorted(pods)

    def _in_pod(self, pod: str, command: str) -> str:
        return self.commands.check(
            self._kubectl('exec', pod, '--', 'bash', '-c', command), patience=QUICK
        )

    def _is_missing(self, result: Result) -> bool:
        """Returns whether the server itself says that it has no workload of the name."""
        missing = rf'\(NotFound\): jobsets\S* "{re.escape(self.flags.name)}" not found'
        text = result.error + result.output
        return not LOGIN.search(text) and bool(re.search(missing, text))

    def _xpk(self, action: str) -> list[str]:
        flags = self.flags
        # Contexts of get-credentials are gke_PROJECT_LOCATION_CLUSTER.
        named = re.fullmatch(r'gke_([^_]+)_[^_]+_[^_]+', self.place)
        project = flags.project or (named.group(1) if named else '')
        place = [f'--zone={flags.zone}', *([f'--project={project}'] if project else [])]
        names = [f'--workload={flags.name}', f'--cluster={flags.cluster}']
        return ['xpk', 'workload', action, *names, *place]

    def _kubectl(self, *words: str) -> list[str]:
        context = [f'--context={self.place}'] if self.place else []
        return ['kubectl', *context, *words]


def _join(*texts: str) -> str:
    return '; '.join(text for text in texts if text)


def main(arguments: typing.Sequence[str]) -> int:
    """Runs gke.sh; returns its exit code."""
    return actions.main(GkeOptions, Workload, usage_of='gke.sh', arguments=arguments)
