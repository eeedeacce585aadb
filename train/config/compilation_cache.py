"""The persistent compilation cache: compiled programs outlive the process that made them.

The only place that turns it on. `train.config.cli.parse_flags` calls it for every entry point.
"""

import os
import pathlib

import jax

from elenchus.train.config.build import ROOT

CLONE = (ROOT / 'requirements.lock').exists()
FOLDER = ROOT / '.cache' / 'jax' if CLONE else pathlib.Path.home() / '.cache' / 'elenchus' / 'jax'
"""In the clone; in the home directory for an installed package, whose folder may be read-only."""

# JAX's own limits (1 s) would leave out the many small programs of a run.
LIMITS = {
    'jax_persistent_cache_min_compile_time_secs': 0.3,
    'jax_persistent_cache_min_entry_size_bytes': 0,
}


def turn_on(folder: str | None = None) -> None:
    """Keeps compiled programs in a folder; '' keeps none.

    None means the environment's JAX_COMPILATION_CACHE_DIR or, without one, `FOLDER`. Limits that
    the environment sets (JAX_PERSISTENT_CACHE_...) stay as they are.
    """
    if folder == '':
        jax.config.update('jax_enable_compilation_cache', False)
        return
    if folder is None:
        folder = os.environ.get('JAX_COMPILATION_CACHE_DIR') or os.fspath(FOLDER)
    jax.config.update('jax_compilation_cache_dir', folder)
    for name, value in LIMITS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
