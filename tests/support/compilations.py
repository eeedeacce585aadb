"""Counts what XLA compiles, for tests that nothing compiles after a warm-up."""

import contextlib
from collections.abc import Iterator

import jax.monitoring


@contextlib.contextmanager
def count_compilations() -> Iterator[list[str]]:
    """Yields a list that gets one event name per compilation inside the block."""
    events = []

    def listener(event, duration, **_):
        if 'backend_compile' in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield events
    jax.monitoring.unregister_event_duration_listener(listener)
