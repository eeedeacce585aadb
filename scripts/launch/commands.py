"""Runs commands of a cloud's tool, and classifies their errors: connection, refusal, failure."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import typing

from elenchus.data.text.printable import printable
from elenchus.scripts.launch.cloud import CloudError, LoggedOut, Refused, Unreachable

SSH_FAILED = 255
"""Exit code for an error of ssh itself (ssh(1)); gcloud passes it on for several hosts."""
LOST = re.compile(
    r'exited with return code \[255\]|connection (closed|lost|refused|reset|timed out)|timed? ?out|'
    r'network is unreachable|no route to host|could not resolve|temporary failure|broken pipe|'
    r'name resolution|max retries|unable to connect|ssl|UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL\b|'
    r'\b(429|500|502|503|504)\b|try again|rate limit|reauthentication|refreshing .* auth tokens|'
    r'not in a state that (can|allows)|still being created|'
    # SDK 528, command_lib/compute/tpus/tpu_vm/exceptions.py: the machines do not exist (any more).
    r'cannot be (currently connected to|used anymore)|is going through a maintenance event|'
    # Rate limits, such as `Create requests per minute`, pass with time; quotas of chips do not.
    r'requests? (per|/) (minute|100 seconds|second)',
    re.IGNORECASE,
)
TRIES = re.compile(
    r'(SSH|SCP): Attempting to connect|Retrying: |Failed to execute command on multiple workers|'
    r'##### Command execution on worker|\[XPK\] XPK failed, error code'
)
"""Lines that explain nothing: gcloud prints them around the output of a host (SDK 528,
tpu_vm/ssh.py), and XPK after the reason."""
RATE = re.compile(r'requests? (per|/) (minute|100 seconds|second)|rate.?limit', re.IGNORECASE)
FULL = re.compile(r'No space left on device|Disk quota exceeded|write remote .*: Failure')
"""A host's disk is full. scp prints this, and gcloud exits with ssh's code 255 (tpu_vm/ssh.py)."""
WRONG = re.compile(
    r'PERMISSION_DENIED|permission denied on|does not have permission|required .* permission|'
    r'INVALID_ARGUMENT|unrecognized argument|invalid choice|argument .*: (expected|must be)|'
    r'quota|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|has not been used in project|is disabled|'
    r'do not currently have an active account|invalid value|could not parse resource|'
    r'not present in the SSH agent|location \S+ (is|was) not found|billing to be enabled|'
    r"doesn't have a resource type|context .* does not exist|no configuration has been provided",
    re.IGNORECASE,
)
LOGIN = re.compile(
    r'invalid_grant|reauthentication (failed|required)|must be logged in to the server|'
    r'asked for the client to provide credentials|getting credentials: exec|\(Unauthorized\)|'
    r'executable \S*auth-plugin not found',
    re.IGNORECASE,
)
"""The login of gcloud or kubectl has expired, or must be confirmed."""
FAILED_ON = re.compile(r'Command execution on worker (\d+) failed')
"""Names the failed host of several (SDK 528, tpu_vm/ssh.py)."""
EXISTS = re.compile(r'ALREADY_EXISTS|already exists', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    code: int
    output: str
    error: str

    @property
    def reason(self) -> str:
        """The last line that explains something, for messages of one line."""
        said, printed = _telling_lines(self.error), _telling_lines(self.output)
        lines = said + printed
        # gcloud prints details of google.rpc.ErrorInfo after its message.
        errors = [line for line in lines if line.startswith('ERROR: ')]
        if not errors and self.code == SSH_FAILED:  # after a banner, which may mention errors
            errors = said
        if not errors:
            errors = [line for line in lines if re.search('error|unable to connect', line.lower())]
        return ((errors or lines or ['no output'])[-1])[:300] + f' (exit code {self.code})'


def _telling_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not TRIES.match(line)]


class Commands:
    """Runs commands, or with `dry_run` prints them.

    Attributes:
        dry_run: Whether commands are only printed; each then "succeeds" without output.
        patience: Time limit of a command in seconds; it is then killed and counts as lost.
    """

    def __init__(self, *, dry_run: bool = False, patience: float = 1800.0):
        self.dry_run = dry_run
        self.patience = patience

    def run(self, words: typing.Sequence[str], *, patience: float | None = None) -> Result:
        """Runs a command; returns its output and exit code.

        Raises:
            Unreachable: It did not end in time.
            Refused: There is no such program.
        """
        if self.dry_run:
            show(' '.join(shlex.quote(word) for word in words))
            return Result(0, '', '')
        environment = {**os.environ, 'CLOUDSDK_CORE_DISABLE_PROMPTS': '1'}
        seconds = patience or self.patience
        try:
            process = subprocess.Popen(
                list(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors='replace',
                env=environment,
            )
        except FileNotFoundError:
            raise Refused(f'{words[0]} is not installed, or not on the path') from None
        except OSError as error:
            raise Refused(f'{words[0]} cannot be run: {error.strerror}') from None
        with process:
            try:
                output, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise Unreachable(f'{words[0]} did not end in {seconds:g} s') from None
            finally:
                if process.returncode is None:  # lost, or Ctrl-C
                    end_family(process)
        return Result(process.returncode, output, errors)

    def check(self, words: typing.Sequence[str], *, patience: float | None = None) -> str:
        """Runs a command that must succeed; returns its output.

        Raises:
            CloudError: It failed; `error_of` selects the class.
        """
        result = self.run(words, patience=patience)
        if result.code:
            raise error_of(result)
        return result.output


def end_family(process: subprocess.Popen) -> None:
    """Kills a command and all its descendants: gcloud is a shell script that runs Python.

    A process group of its own could be killed at once, but could not ask for an ssh key's password.
    """
    table = ''
    with contextlib.suppress(OSError):  # without ps only the command itself is known
        words = ['ps', '-eo', 'pid=,ppid=']
        table = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    parents = dict(line.split() for line in table.splitlines() if len(line.split()) == 2)
    family = [str(process.pid)]
    for member in family:  # grows
        family += [child for child, parent in parents.items() if parent == member]
    for member in family:
        with contextlib.suppress(OSError):
            os.kill(int(member), signal.SIGKILL)
    process.wait()


def error_of(result: Result) -> CloudError:
    """Returns the error of a failed command: Unreachable, Refused, or another CloudError."""
    text = result.error + result.output
    if FULL.search(text):
        hosts = ' and '.join(dict.fromkeys(FAILED_ON.findall(text)))
        where = f' on host {hosts}' if hosts else ' on a host'
        return CloudError(FULL.search(text).group(0) + f'{where} (exit code {result.code})')
    if result.code == SSH_FAILED or RATE.search(text):
        return Unreachable(result.reason)
    if LOGIN.search(text):
        plugin = re.search('executable ([a-z-]*auth-plugin) not found', text)
        what = f'components install {plugin.group(1)}' if plugin else 'auth login'
        return LoggedOut(f'{result.reason}; run `gcloud {what}`')
    if WRONG.search(text):
        return Refused(result.reason)
    if LOST.search(text):
        return Unreachable(result.reason)
    return Refused(result.reason) if result.code == 2 else CloudError(result.reason)


def say(text: str) -> None:
    """Prints a line of the launcher to the terminal."""
    with contextlib.suppress(OSError):  # its reader went away
        print(f'[launch] {printable(text)}', file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Prints the one line that says why a launcher did not do what was asked."""
    with contextlib.suppress(OSError):
        print('error: ' + printable(' '.join(text.split('\n'))), file=sys.stderr, flush=True)


def show(text: str, *, end: str = '\n') -> None:
    """Prints the output of an action; if the reader is gone (`| head`), later actions still run.

    Raises:
        CloudError: It cannot be written, for example to a full disk.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        # Otherwise the rest of the buffer would fail when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise CloudError(f'the output cannot be written: {error}') from None
