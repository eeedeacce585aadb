"""A child Python process with a pipe to it, which can be killed with all that it started."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import connection


class ChildProcess:
    """A process that calls module.function(descriptor of its end of the pipe, *arguments).

    `environment` is all that it has besides what its own imports need; None: that of this process.
    `options` are Python's.
    """

    def __init__(
        self,
        module: str,
        function: str,
        arguments: Sequence[str | float],
        *,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ):
        self.connection, child_end = connection.Pipe()
        values = ', '.join(map(repr, (child_end.fileno(), *arguments)))
        call = f'import {module} as module; module.{function}({values})'
        # The child finds packages where this process does, also in an uninstalled clone.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, *options, '-c', call],
            pass_fds=[child_end.fileno()],
            stdin=subprocess.DEVNULL,
            env=(os.environ if environment is None else environment) | {'PYTHONPATH': paths},
            # A group of its own: the signals of a terminal are for the run, and `kill` ends
            # whatever the child may have started.
            start_new_session=True,
        )
        child_end.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Waits for the end of the process; returns its exit code, or minus the signal."""
        return self._process.wait()

    def kill(self) -> None:
        """Ends the process, with all that it started, and closes the pipe."""
        if self.connection.closed:  # its number may be another process's by now
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()
