"""Feedback: what a function appends to a critique before its refinement is written.

The slot `evaluate.feedback`. The appended tokens are `forced` ones of the critique: they were not
sampled, count as read and not as written, and are never trained. The critic's scores of the
attempt are those of its critique alone.
"""

import dataclasses
from collections.abc import Callable, Sequence

from elenchus.data.records import Episode, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.sampling import user_functions
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.paused_turns import appended_ids
from elenchus.sampling.slots import Slot
from elenchus.sampling.test_time.attribution import Words
from elenchus.sampling.writing import Notes

FIELD = 'evaluate.feedback'

Attribute = Callable[..., Sequence[Words]]
"""(episodes, steps=number) -> words of each episode's question, with attributions."""

FEEDBACKS = Slot('(problem, notes) -> text', {'critique': lambda problem, notes: ''})
"""The text is appended to the critique; '' appends nothing.

The notes have the attempt, the critique, its verdict, and the round from 0. With the attribute
`attribution_steps`, a number, they have the question's words with their attributions too
(attribution.py); 0 leaves them out."""


def add_feedback(
    sampler: Sampler,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    reference: str,
    number: int,
    attribute: Attribute,
) -> list[Episode]:
    """Returns criticised attempts whose critiques end with what a function of FEEDBACKS appends.

    `attribute` is called for a function that reads attributions. A critique is never longer than
    `sampler` allows: what does not fit is cut off. Raises ValueError, naming the function, for what
    is no text, or has words that the vocabulary lacks.
    """
    if reference == 'critique':
        return list(episodes)
    function, limit = FEEDBACKS.find(reference, FIELD), sampler.max_tokens['critique']
    steps = getattr(function, 'attribution_steps', 0)
    if not isinstance(steps, int) or steps < 0:
        name = user_functions.name_of(getattr(function, 'function', function))
        raise ValueError(
            f'{FIELD}: {name}.attribution_steps={steps!r} must be a whole number, such as 32'
        )
    words = attribute(episodes, steps=steps) if steps else [()] * len(episodes)
    extended = []
    for episode, problem, of_question in zip(episodes, problems, words, strict=True):
        critique, text = episode.turns[-1], sampler.chat.text
        notes = Notes(
            number,
            responses=(text(episode.attempt),),
            critique=text(critique),
            verdict=critique.facts.verdict,
            words=of_question,
        )
        added = function(problem, notes)
        if not isinstance(added, str):
            user_functions.refuse(function, added, 'a text', field=FIELD)
        if added.strip():
            ids = appended_ids(sampler.chat, added, function, field=FIELD)
            critique = with_appended(sampler.chat, critique, ids[: limit - len(critique.tokens)])
        extended.append(dataclasses.replace(episode, turns=(*episode.turns[:-1], critique)))
    return extended


def with_appended(chat: Chat, turn: Turn, ids: Sequence[int]) -> Turn:
    """Returns a turn with forced tokens behind its text, before its ending if it has one.

    `Turn.feedback` says which they are.
    """
    count = len(chat.text_ids(turn))
    tokens, logprobs = list(turn.tokens), list(turn.logprobs)
    tokens[count:count] = ids
    if logprobs:
        logprobs[count:count] = [0.0] * len(ids)
    forced = [i if i < count else i + len(ids) for i in turn.forced]
    changed = chat.sampled_turn(turn.role, tokens, logprobs, tools=turn.tools)
    added = range(count, count + len(ids))
    return dataclasses.replace(
        changed,
        facts=turn.facts,
        forced=(*sorted([*forced, *added]),),
        feedback=(*turn.feedback, *added),
    )


def without_feedback(chat: Chat, turn: Turn) -> Turn:
    """Returns a turn as it was before `add_feedback`."""
    if not turn.feedback:
        return turn
    kept = [i for i in range(len(turn.tokens)) if i not in turn.feedback]
    logprobs = [turn.logprobs[i] for i in kept] if turn.logprobs else ()
    bare = chat.sampled_turn(turn.role, [turn.tokens[i] for i in kept], logprobs, tools=turn.tools)
    forced = tuple(new for new, old in enumerate(kept) if old in turn.forced)
    return dataclasses.replace(bare, facts=turn.facts, forced=forced)
