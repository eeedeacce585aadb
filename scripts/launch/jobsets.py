"""Reads the state of a run from a Kubernetes JobSet and its pods (jobset.sigs.k8s.io, v1alpha2)."""

from __future__ import annotations

import base64
import re
import typing

from elenchus.scripts.launch import exit_codes
from elenchus.scripts.launch.states import Observation, Resource, Run

STUCK = {
    *('ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull'),
    'CreateContainerConfigError',
}
"""Reasons for which a pod waits for ever on billed nodes (kubernetes.io, containers/images)."""


def observe(jobset: dict, pods: list[dict]) -> Observation:
    """Returns the state of a run from its JobSet and pods.

    A failed JobSet has used up its restarts, or a process exited with a code that forbids another.
    """
    status = jobset.get('status') or {}
    conditions = status.get('conditions') or ()
    conditions = {c['type']: c for c in conditions if c.get('status') == 'True'}
    restarts = status.get('restarts', 0)
    note = f'{restarts} restarts' if restarts else ''
    if 'Completed' in conditions:
        return Observation(Resource.READY, Run.ENDED, exit_codes.DONE, detail=note)
    if 'Failed' in conditions:
        codes = [code for pod in pods for code in _codes(pod) if code] or [exit_codes.CRASH]
        code = exit_codes.code_of_hosts(codes)
        reason = conditions['Failed'].get('message') or conditions['Failed'].get('reason', '')
        detail = f'exit code {code}: {reason}' + (f', {note}' if note else '')
        host = first_to_fail(pods)
        return Observation(Resource.READY, Run.ENDED, code, detail=detail, host=host)
    if jobset.get('spec', {}).get('suspend') or 'Suspended' in conditions:
        return Observation(Resource.WAITING, detail='the workload waits in the queue')
    if any(pod.get('status', {}).get('phase') == 'Running' for pod in pods):
        return Observation(Resource.READY, Run.RUNNING, detail=note)
    stuck = sorted({reason for pod in pods for reason in _reasons(pod)} & STUCK)
    if stuck:
        return Observation(Resource.FAILED, detail=f'its pods cannot start: {", ".join(stuck)}')
    why = sorted({reason for pod in pods for reason in (*_reasons(pod), _obstacle(pod))} - {''})
    return Observation(
        Resource.WAITING,
        detail=': '.join(['its pods are not running yet', *([', '.join(why)] if why else [])]),
        is_billed=any(_has_node(pod) for pod in pods),
    )


def read_command(jobset: str) -> tuple[tuple[str, ...], str]:
    """Returns arguments and version of the run of a JobSet, from the text of its command."""
    packed = re.search(r'--encoded=([A-Za-z0-9+/=]+)', jobset)
    version = re.search(r'ELENCHUS_VERSION=([\w.+-]+)', jobset)
    try:
        text = base64.b64decode(packed.group(1)).decode() if packed else ''
    except ValueError:
        text = ''
    return tuple(text.split('\0')[:-1]), version.group(1) if version else ''


def first_to_fail(pods: list[dict]) -> str:
    """Returns the name of the pod that failed first, '' if none says when."""
    ends = [
        (ended['finishedAt'], pod['metadata']['name'])
        for pod in pods
        for ended in _endings(pod)
        if ended.get('exitCode') and 'finishedAt' in ended and 'metadata' in pod
    ]
    return min(ends, default=('', ''))[1]


def _reasons(pod: dict) -> typing.Iterator[str]:
    """Yields why containers of a pod wait."""
    status = pod.get('status', {})
    for name in ('initContainerStatuses', 'containerStatuses'):
        for container in status.get(name) or ():
            waiting = (container.get('state') or {}).get('waiting') or {}
            yield waiting.get('reason', '')


def _obstacle(pod: dict) -> str:
    """Returns why a pod has no node; '' if it has one, or the reason is unknown."""
    for condition in pod.get('status', {}).get('conditions') or ():
        if condition.get('type') == 'PodScheduled' and condition.get('status') == 'False':
            reason, text = condition.get('reason', ''), condition.get('message', '')
            return f'{reason} ({text[:200]})' if text else reason
    return ''


def _has_node(pod: dict) -> bool:
    """Returns whether a pod holds a node, which is billed; one that has failed holds none."""
    status = pod.get('status', {})
    is_over = status.get('phase') in ('Failed', 'Succeeded')
    return not is_over and bool(
        pod.get('spec', {}).get('nodeName') or status.get('containerStatuses')
    )


def _codes(pod: dict) -> typing.Iterator[int]:
    for ended in _endings(pod):
        yield ended.get('exitCode', exit_codes.CRASH)


def _endings(pod: dict) -> typing.Iterator[dict]:
    for container in pod.get('status', {}).get('containerStatuses') or ():
        ended = (container.get('state') or {}).get('terminated')
        if ended:
            yield ended
