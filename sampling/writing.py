"""Texts that a player writes on request: a plan before an attempt, new problems, notes to keep.

A function of a user's returns one request after the other, and then the result:

    def plan(problem, notes):
        if not notes.written:
            return [f'Write a plan for this problem: {problem.question}']  # a request
        return notes.written[-1]  # the result

It is called again after each answer, with all answers in `notes.written`, so it must be a pure
function of its arguments.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from elenchus.data.records import Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.data.text.prompts import Prompts
from elenchus.sampling import user_functions
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed

MOST_REQUESTS = 16
"""Requests of one result: more are taken for a function that never ends."""
UNKNOWN = '⁇'
"""What a tokenizer reads in place of a word that its vocabulary lacks."""


class Notes(NamedTuple):
    """What a function knows besides the problem."""

    number: int = 0  # of the round, from 0: of proposals, of self-improvement, or of refinement
    written: tuple[str, ...] = ()  # the answers to its requests
    responses: tuple[str, ...] = ()  # to the problem so far; or the attempt that is followed
    accepted: tuple[bool, ...] = ()  # which of them count as right; () where nothing may say so
    critique: str = ''  # of this attempt: what the critic has written
    verdict: bool | None = None  # of that critique
    words: tuple[tuple[str, float], ...] = ()  # of the question, with their attributions
    memory: Mapping[str, str] = types.MappingProxyType({})  # texts kept over rounds, by name


Writing = Callable[[Problem, Notes], Any]
"""(problem, notes) -> a list of one text: a request; anything else: the result.

Attribute, 'actor' where absent: `writer`, the player that answers its requests."""


def write(
    models: ModelPair,
    function: Writing,
    items: Sequence[tuple[Problem, Notes]],
    *,
    spec: SampleSpec,
    room: int | None,
    field: str,
    must_fit: bool = True,
) -> list[Any]:
    """Returns what a function makes of each problem and its notes, asking a player on the way.

    The first id of item i selects the noise of its answers. An item whose request leaves no room
    in a prompt of `room` tokens has the result None. Raises ValueError, naming the function, if the
    vocabulary lacks a word of a request, or if there are more than MOST_REQUESTS; with `must_fit`
    also if no item's first request has room in round 0: later there may be only a few items.
    """
    results: list[Any] = [None] * len(items)
    waiting, ids = dict(enumerate(items)), spec.first_ids(len(items))
    for step in range(MOST_REQUESTS + 1):
        requests = {}
        for i, (problem, notes) in waiting.items():
            result = function(problem, notes)
            if is_request(result):
                requests[i] = result[0]
            else:
                results[i] = result
        if not requests:
            return results
        if step == MOST_REQUESTS:
            wanted = f'a result after at most {MOST_REQUESTS} requests'
            user_functions.refuse(function, [*requests.values()][:1], wanted, field=field)
        prompts = _prompts(models, function, requests, room=room, field=field)
        if not prompts:
            if must_fit and not step and len(requests) == len(items):
                _check_round(function, items, requests, room=room, field=field)
            return results
        waiting = _answered(
            models,
            function,
            {i: waiting[i] for i in prompts},
            prompts=prompts,
            spec=dataclasses.replace(
                spec,
                num_samples=1,
                seed=derive_seed(spec.seed, 'written', step),
                first_id=[ids[i] for i in prompts],
            ),
        )
    return results


def is_request(result: Any) -> bool:
    """Returns whether a function asks for a text, and has no result yet."""
    return isinstance(result, list) and len(result) == 1 and isinstance(result[0], str)


def check_words(chat: Chat, text: str, function: Callable, *, field: str) -> None:
    """Raises ValueError, naming the function, if the vocabulary lacks a word of its text."""
    read = chat.tokenizer.decode(chat.tokenizer.encode(text))
    if UNKNOWN in read and UNKNOWN not in text:
        wanted = f'a text whose words the vocabulary has; this one would be {read!r}'
        user_functions.refuse(function, text, wanted, field=field)


def _prompts(
    models: ModelPair,
    function: Writing,
    requests: Mapping[int, str],
    *,
    room: int | None,
    field: str,
) -> dict[int, tuple[Turn, ...]]:
    """Returns the requests for which there is room, as questions."""
    chat = _plain_chat(models)
    prompts = {}
    for i, request in requests.items():
        question = chat.question_turns(request)
        check_words(chat, request, function, field=field)
        if room is None or len(chat.context(question, 'attempt')) <= room:
            prompts[i] = question
    return prompts


def _check_round(
    function: Writing,
    items: Sequence[tuple[Problem, Notes]],
    requests: Mapping[int, str],
    *,
    room: int | None,
    field: str,
) -> None:
    """Raises ValueError, in round 0, for first requests of which none has room."""
    if any(notes.number for _, notes in items):
        return
    wanted = (
        f'requests of at most {room} tokens, for which sampling.engine.prompt_buckets and '
        'max_length have room'
    )
    user_functions.refuse(function, [*requests.values()][:1], wanted, field=field)


def _answered(
    models: ModelPair,
    function: Writing,
    items: Mapping[int, tuple[Problem, Notes]],
    *,
    prompts: Mapping[int, Sequence[Turn]],
    spec: SampleSpec,
) -> dict[int, tuple[Problem, Notes]]:
    """Samples an answer to each prompt, an attempt's turn also of a critic, and notes it."""
    sampler = dataclasses.replace(models.sampler, chat=_plain_chat(models))
    model = getattr(models, getattr(function, 'writer', 'actor'))
    turns = sampler.sample_turns(model, [*prompts.values()], 'attempt', spec=spec)
    texts = [sampler.chat.text(turn) for (turn,) in turns]
    return {
        i: (problem, notes._replace(written=(*notes.written, text)))
        for (i, (problem, notes)), text in zip(items.items(), texts, strict=True)
    }


def _plain_chat(models: ModelPair) -> Chat:
    """The chat without the prompts of the config, which are those of problems."""
    return dataclasses.replace(models.sampler.chat, prompts=Prompts())
