"""The clock of billed seconds of a launch."""

from __future__ import annotations

import dataclasses

from elenchus.scripts.launch.states import Observation, Progress, Resource, Run, State


def bill(progress: Progress, event: Observation, now: float) -> Progress:
    """Starts or stops the clock of billed seconds; a slice that was taken away costs nothing.

    Returns:
        The progress with `billed` and `billing` as of now.
    """
    if event.run is Run.OTHER and progress.requested is None:
        return progress  # somebody else's bill
    is_there = event.resource is Resource.READY or event.is_billed
    if is_there and progress.billing is None:
        return dataclasses.replace(progress, billing=now)
    if event.at is not None and progress.billing is None and progress.state is not State.ABSENT:
        # It was there and went while nobody looked.
        progress = dataclasses.replace(progress, billing=event.since)
    if not is_there and progress.billing is not None:
        if event.at is not None:
            now = max(event.at, progress.billing)
        return dataclasses.replace(progress, billed=progress.billed_seconds(now), billing=None)
    return progress
