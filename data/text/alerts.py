"""Sends alerts about a run to a command or a web address; needs nothing installed.

    alerts.send('mail -s elenchus me@example.org', 'failed', 'runs/lab: step 2: loss nan')

A command is called with two more words, the event and a line of text; no shell reads them. An
address (https://...) gets a POST of {"event": ..., "text": ...}, which chat services show as text.
Sending does not block: a separate process does it, which outlives the run.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import typing
import urllib.request

PATIENCE_S = 30.0
"""Seconds that a command or an address has."""
ADDRESSES = ('https://', 'http://')
MAX_TEXT = 1000  # characters of the line


def check(target: str) -> str:
    """Returns what is wrong with a command or address, '' if nothing is."""
    if target.startswith(ADDRESSES):
        return ''
    try:
        words = shlex.split(target)
    except ValueError as error:
        return f'{str(error).lower()}; quote it as for a shell'
    return '' if words or not target.strip() else 'it has no word'


def send(
    target: str,
    event: str,
    text: str,
    *,
    warn: typing.Callable[[str], None] | None = None,
) -> subprocess.Popen | None:
    """Starts the command, or the POST; returns its process, None without a target.

    Args:
        target: Command or address; '' for none.
        event: 'done', 'preempted', 'failed': the end of a run, or of a launch. 'silent': a host
            gives no sign of life. 'stuck': no progress. 'nonfinite': a loss or gradient is NaN or
            infinite. 'crashed': it is started again.
        text: One line.
        warn: Is told, in a thread, that the command failed; nobody else is.
    """
    if not target.strip():
        return None
    text = ' '.join(text.split())[:MAX_TEXT]
    own = [sys.executable, '-I', __file__, target]
    words = own if target.startswith(ADDRESSES) else shlex.split(target)
    try:
        process = subprocess.Popen(
            [*words, event, text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if warn else subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        if warn:
            warn(f'the alert {event!r} was not sent: {error}')
        return None
    if warn:
        threading.Thread(target=_wait, args=(process, event, warn), daemon=True).start()
    return process


def _wait(process: subprocess.Popen, event: str, warn: typing.Callable[[str], None]) -> None:
    try:
        _, errors = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        warn(f'the alert {event!r} did not end in {PATIENCE_S:g} s')
        return
    if process.returncode:
        lines = errors.decode(errors='replace').strip().splitlines() or ['']
        warn(f'the alert {event!r} ended with exit code {process.returncode}: {lines[-1][:300]}')


def post(address: str, event: str, text: str) -> None:
    """Posts one event to a web address. Raises OSError if it cannot, or is refused."""
    body = json.dumps({'event': event, 'text': f'elenchus: {event}: {text}'}).encode()
    request = urllib.request.Request(address, body, {'Content-Type': 'application/json'})
    with urllib.request.urlopen(request, timeout=PATIENCE_S - 5):
        pass


if __name__ == '__main__':
    post(*sys.argv[1:])
