"""Keeps what Orbax prints after a failed read from following our own message.

Orbax reads all arrays of a checkpoint at once and closes its event loop at the first error. The
other reads fail too, later and on a loop that is gone, and each prints a traceback of its own.
"""

import contextlib
import gc
import logging
import sys
import time
from collections.abc import Iterator

SETTLE_S = 0.5
"""Time for the reads beside the one that failed."""
_CLOSED = 'Event loop is closed'
_PACKAGES = ('orbax', 'tensorstore')


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hides, in its body, tracebacks of reads whose results nobody takes; errors are raised."""
    hooks, log = (sys.excepthook, sys.unraisablehook), logging.getLogger('asyncio')
    sys.excepthook = lambda kind, error, trace: (
        None if _CLOSED in str(error) else hooks[0](kind, error, trace)
    )
    sys.unraisablehook = lambda what: None if _is_read(what.object) else hooks[1](what)
    log.addFilter(_drop)
    try:
        yield
    finally:
        log.removeFilter(_drop)
        sys.excepthook, sys.unraisablehook = hooks


def settle() -> None:
    """Lets the other reads end; call it within `hidden`, once the error is dealt with."""
    time.sleep(SETTLE_S)
    gc.collect()


def _drop(record: logging.LogRecord) -> bool:
    return 'exception was never retrieved' not in record.getMessage()


def _is_read(read: object) -> bool:
    code = getattr(read, 'cr_code', None)
    return code is not None and any(package in code.co_filename for package in _PACKAGES)
