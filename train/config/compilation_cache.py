"""The persistent compilation cache: compiled programs outlive the process that made them.

The only place that turns it on. `train.config.cli.parse_flags` calls it for every entry point.
"""

import os
import pathlib
import sys

import jax

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable
from elenchus.train.config.build import ROOT

FOLDER = ROOT / '.cache' / 'jax'

# JAX's own limits (1 s) would leave out the many small programs of a run.
LIMITS = {
    'jax_persistent_cache_min_compile_time_secs': 0.3,
    'jax_persistent_cache_min_entry_size_bytes': 0,
}


def turn_on(folder: str | None = None) -> None:
    """Keeps compiled programs in a folder; '' keeps none.

    None means the environment's JAX_COMPILATION_CACHE_DIR or, without one, `.cache/jax` in the
    clone. Limits that the environment sets (JAX_PERSISTENT_CACHE_...) stay as they are.
    """
    if folder == '':
        jax.config.update('jax_enable_compilation_cache', False)
        return
    if folder is None:
        folder = os.environ.get('JAX_COMPILATION_CACHE_DIR') or os.fspath(FOLDER)
    if not atomic.is_remote(folder):
        _check_owner(pathlib.Path(folder))
    jax.config.update('jax_compilation_cache_dir', folder)
    for name, value in LIMITS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def _check_owner(folder: pathlib.Path) -> None:
    """Makes the folder for its owner alone; warns if others may write into one that is there.

    Programs are loaded from it and run, so whoever writes there runs code in this process.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:  # a place that cannot be written keeps no programs; JAX says so
        return
    if status.st_mode & 0o022 or status.st_uid not in (os.getuid(), 0):
        print(
            printable(
                f'warning: others may write into the compilation cache {folder}, from which '
                f'programs are run: chmod 700 {folder}, or set --compilation_cache'
            ),
            file=sys.stderr,
        )
