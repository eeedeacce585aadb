"""Which requests enter slots together, and as which arrays.

Requests with one prompt share its row. A prompt whose beginning is parked goes on from there.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from elenchus.sampling.engine.prefix_cache import Store
from elenchus.sampling.engine.requests import EngineSettings, Request, holding


class Entry(NamedTuple):
    """A request, and how many tokens its prompt shares with which row of a store; 0 is none."""

    request: Request
    row: int
    shared: int


@dataclasses.dataclass(frozen=True)
class Insertion:
    """The arrays of decode.insert; see there."""

    prompts: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    requests: np.ndarray
    stop_at: np.ndarray
    texts: np.ndarray | None
    parked: np.ndarray
    shared: np.ndarray

    @classmethod
    def empty(cls, settings: EngineSettings, *, rows: int, length: int, slots: int) -> 'Insertion':
        """Arrays that insert nothing: no slot is one."""
        row, request, stop_at = (np.zeros(slots, np.int32) for _ in range(3))
        return cls(
            np.zeros((rows, length), np.int32),
            np.ones(rows, np.int32),
            row,
            np.full(slots, settings.num_slots, np.int32),
            request,
            stop_at,
            np.zeros((rows, settings.prompt_buckets[-1]), np.int32)
            if settings.draft_tokens
            else None,
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
        )


def groups(
    settings: EngineSettings, entering: dict[int, Request], store: Store | None
) -> Iterator[dict[int, Entry]]:
    """Splits {slot: request} so that each group has no more prompts than rows.

    Prompts that go on from the store are apart from those that are read whole.
    """
    entries = {slot: _entry(settings, request, store) for slot, request in entering.items()}
    for going_on in (False, True):
        group, prompts = {}, set()
        for slot, entry in entries.items():
            if bool(entry.shared) != going_on:
                continue
            prompt = entry.request.prompt
            if prompt not in prompts and len(prompts) == settings.insert_rows[-1]:
                yield group
                group, prompts = {}, set()
            group[slot] = entry
            prompts.add(prompt)
        if group:
            yield group


def pack(settings: EngineSettings, group: dict[int, Entry]) -> Insertion:
    """The arrays that put a group's requests into their slots, each different prompt once."""
    entries = {entry.request.prompt: entry for entry in group.values()}
    longest = max(len(prompt) - entry.shared for prompt, entry in entries.items())
    rows = holding(settings.insert_rows, len(entries))
    arrays = Insertion.empty(
        settings,
        rows=rows,
        length=holding(settings.prompt_buckets, longest),
        slots=rows if len(group) <= rows else settings.num_slots,
    )
    for row, (prompt, entry) in enumerate(entries.items()):
        arrays.prompts[row, : len(prompt) - entry.shared] = prompt[entry.shared :]
        arrays.lengths[row] = len(prompt)
        arrays.parked[row], arrays.shared[row] = entry.row, entry.shared
        if arrays.texts is not None:
            arrays.texts[row, : len(prompt)] = prompt
    row_of = {prompt: row for row, prompt in enumerate(entries)}
    for i, (slot, (request, _, _)) in enumerate(group.items()):
        arrays.rows[i] = row_of[request.prompt]
        arrays.slots[i], arrays.requests[i] = slot, request.id
        arrays.stop_at[i] = len(request.prompt) + request.max_tokens
    return arrays


def _entry(settings: EngineSettings, request: Request, store: Store | None) -> Entry:
    """A request goes on from what is parked where that takes a smaller bucket."""
    row, found = (0, 0) if store is None else store.find(request.prompt)
    whole = len(request.prompt)
    shared, buckets = min(found, whole - 1), settings.prompt_buckets
    pays = holding(buckets, whole - shared) < holding(buckets, whole)
    return Entry(request, row, shared) if pays else Entry(request, 0, 0)
