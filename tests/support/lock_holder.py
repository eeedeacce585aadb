"""A process that has a work directory: locks it as train/run/lock.py does, and sleeps.

    python -S tests/support/lock_holder.py FOLDER SECONDS

It imports the standard library alone, so that it starts at once.
"""

import fcntl
import json
import os
import pathlib
import struct
import subprocess
import sys
import time


def start(folder: os.PathLike, *, seconds: float = 600.0) -> subprocess.Popen:
    """Starts such a process; returns it when it has the lock."""
    command = [sys.executable, '-S', __file__, os.fspath(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'locked\n'
    return process


if __name__ == '__main__':
    path = pathlib.Path(sys.argv[1])
    path.mkdir(parents=True, exist_ok=True)
    with open(path / 'lock.json', 'a+', encoding='utf-8') as file:
        whole = struct.pack('hhqqi0q', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole)
        file.truncate(0)
        file.write(json.dumps({'host': 'h1', 'process': os.getpid(), 'since': 'now'}))
        file.flush()
        print('locked', flush=True)
        time.sleep(float(sys.argv[2]))
