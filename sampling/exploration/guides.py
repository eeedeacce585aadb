"""Guides that a player writes, and openings of responses: slots of the explorer `self_guided`.

A guide is shown before a response and not trained on; an opening is the first part of the response.
`learn` of a guide adds texts to the memory, which later rounds get in their notes.
"""

import json
from collections.abc import Mapping, Sequence

from elenchus.data.records import Problem
from elenchus.sampling import user_functions
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.slots import Slot
from elenchus.sampling.writing import Notes, check_words, write

GUIDE, OPENING = 'improve.explore.player_guide', 'improve.explore.opening'

PLAYER_GUIDES = Slot(
    '(problem, notes) -> a guide, [a request] or None', {'none': lambda problem, notes: None}
)
"""A request is one text, which a player is asked; None: no guide yet.

Attribute, absent if nothing is kept: `learn(problem, notes) -> a request, or {name: text}`, called
for every problem after a round, whose texts are in `notes.memory` of later rounds."""
OPENINGS = Slot('(problem, notes) -> text', {'none': lambda problem, notes: ''})


def guides(
    models: ModelPair,
    items: Sequence[tuple[Problem, Notes]],
    *,
    reference: str,
    spec: SampleSpec,
    room: int | None,
    field: str = GUIDE,
    slot: Slot = PLAYER_GUIDES,
) -> list[str | None]:
    """Returns the guide of each problem, which a function of `slot` may have a player write.

    Raises ValueError, naming the function, for a guide that is no text.
    """
    function = slot.find(reference, field)
    results = write(models, function, items, spec=spec, room=room, field=field)
    for result in results:
        if result is not None and not isinstance(result, str):
            user_functions.refuse(function, result, 'a text, [a text] or None', field=field)
        check_words(models.sampler.chat, result or '', function, field=field)
    return results


def opening(models: ModelPair, problem: Problem, notes: Notes, *, reference: str) -> str:
    """Returns what a response begins with. Raises ValueError, naming the function, if no text."""
    function = OPENINGS.find(reference, OPENING)
    text = function(problem, notes)
    if not isinstance(text, str):
        user_functions.refuse(function, text, 'a text', field=OPENING)
    check_words(models.sampler.chat, text, function, field=OPENING)
    return text


def remembers(reference: str) -> bool:
    """Returns whether a guide's function keeps texts over rounds."""
    return hasattr(PLAYER_GUIDES.find(reference, GUIDE), 'learn')


def learn(
    models: ModelPair,
    items: Sequence[tuple[Problem, Notes]],
    *,
    reference: str,
    memory: Mapping[str, str],
    spec: SampleSpec,
    room: int | None,
) -> dict[str, str]:
    """Returns the memory with the texts that a guide's function learns from each problem, in order.

    A name that is in the memory keeps its first text. Raises ValueError, naming the function, if it
    returns anything but texts by name.
    """
    function = PLAYER_GUIDES.find(reference, GUIDE).learn
    kept = dict(memory)
    for result in write(models, function, items, spec=spec, room=room, field=GUIDE):
        entries = {} if result is None else result
        is_valid = isinstance(entries, Mapping) and all(
            isinstance(text, str) for pair in entries.items() for text in pair
        )
        if not is_valid:
            user_functions.refuse(function, result, '{name: text}, [a text] or None', field=GUIDE)
        kept = dict(entries) | kept
    return json.loads(json.dumps(kept))
