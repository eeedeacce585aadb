"""Kinds of an actor's episode in reinforcement: what follows an attempt, and whether it is refined.

The slot `reinforce.turns.episode`. An episode without a refinement ends with its attempt.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from elenchus.data.records import Episode, Problem
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import user_functions
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.slots import Slot
from elenchus.sampling.writing import Notes, check_words

FIELD = 'reinforce.turns.episode'

ActorEpisode = Callable[[Problem, Notes], bool | str | None]
"""(problem, notes of an attempt) -> True: it is refined; a text: it is refined after this text,
which stands in the place of a critique; None, False or an empty text: its answer stands.

With the attribute `reads_critique = True` the critic criticises every attempt before, and the notes
have `critique` and `verdict`; a refinement follows the critique, unless the function returns
another text."""


def _if_called_wrong(problem: Problem, notes: Notes) -> bool:
    """As at test time: `evaluate.refine='wrong'`."""
    return notes.verdict is not True


def _built_in(function: ActorEpisode, *roles: str) -> ActorEpisode:
    """Returns a function with the roles of the turns behind the question, if none is left out."""
    function.roles, function.reads_critique = roles, 'critique' in roles
    return function


WITH_CRITIQUE = ('attempt', 'critique', 'refinement')
EPISODES = Slot(
    '(problem, notes) -> True, a text, or None',
    {
        'attempt': _built_in(lambda problem, notes: None, 'attempt'),
        'correction': _built_in(lambda problem, notes: True, 'attempt', 'refinement'),
        'critique': _built_in(lambda problem, notes: True, *WITH_CRITIQUE),
        'gated': _built_in(_if_called_wrong, *WITH_CRITIQUE),
    },
)


def reads_critique(episode: str) -> bool:
    """Returns whether the critic criticises each attempt of such an episode."""
    return bool(getattr(EPISODES.find(episode, FIELD), 'reads_critique', False))


def longest_roles(episode: str) -> tuple[str, ...]:
    """Returns the roles of the turns behind the question, where none is left out."""
    return getattr(EPISODES.find(episode, FIELD), 'roles', WITH_CRITIQUE)


def turn_overhead(chat: Chat, episode: str) -> int:
    """Returns the largest number of template tokens between two turns, or their mean if larger."""
    roles = longest_roles(episode)
    if roles == ('attempt', 'refinement'):
        return chat.correction_overhead
    if len(roles) == 1:
        return chat.overhead
    between = -(-chat.tokens_between(roles) // (len(roles) - 1))
    alone = 0 if reads_critique(episode) else chat.correction_overhead
    return max(chat.overhead, between, alone)


def longest_response(episode: str, limits: Mapping[str, int], *, overhead: int) -> int:
    """Returns the most tokens from the actor's first token to its last one.

    limits: tokens of a turn, by role; overhead: template tokens between two turns (turn_overhead).
    """
    roles = longest_roles(episode)
    return sum(limits[role] for role in roles) + overhead * (len(roles) - 1)


def refine(
    models: ModelPair,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    kind: str,
    method: Method,
    seed: int,
) -> list[Episode]:
    """Adds to judged attempts the refinements that an episode of this kind asks for.

    The attempts have critiques if `kind` reads them. A critique that is not followed is left out;
    its verdict stays as a fact of the attempt. problems[i] is the problem of episodes[i]. Raises
    ValueError, naming the function, for what is neither a boolean, None nor a text.
    """
    function, current, due = EPISODES.find(kind, FIELD), list(episodes), []
    if longest_roles(kind) == ('attempt',):
        return current
    for i, (episode, problem) in enumerate(zip(episodes, problems, strict=True)):
        notes = _notes(models, episode)
        reply = function(problem, notes)
        if isinstance(reply, str) and reply.strip():
            if reply != notes.critique:
                current[i] = _with_text(models, episode, reply, function=function)
        elif not (reply is None or isinstance(reply, bool | np.bool_ | str)):
            user_functions.refuse(function, reply, 'True, a text, or None', field=FIELD)
        elif not reply or isinstance(reply, str):
            current[i] = _bare(episode)
            continue
        due.append(i)
    refined = episode_lib.sample_refinements(
        models.sampler,
        models.actor,
        [current[i] for i in due],
        problems=[problems[i] for i in due],
        judge=models.judge,
        spec=SampleSpec(1, method, seed, due),
    )
    for i, (episode,) in zip(due, refined, strict=True):
        current[i] = episode
    return current


def _notes(models: ModelPair, episode: Episode) -> Notes:
    """What a function knows of an attempt."""
    text, last = models.sampler.chat.text, episode.turns[-1]
    notes = Notes(responses=(text(episode.attempt),))
    if last.role != 'critique':
        return notes
    return notes._replace(critique=text(last), verdict=last.facts.verdict)


def _bare(episode: Episode) -> Episode:
    """Returns the episode up to its attempt."""
    last = episode.turns[-1]
    if last.role != 'critique':
        return episode
    bare = dataclasses.replace(episode, turns=episode.turns[:-1])
    return bare.with_turn_facts('attempt', verdict=last.facts.verdict)


def _with_text(models: ModelPair, episode: Episode, text: str, *, function: Callable) -> Episode:
    """Returns the episode with a text in the place of the critique, no longer than one may be."""
    chat, limit = models.sampler.chat, models.sampler.max_tokens['critique']
    check_words(chat, text, function, field=FIELD)
    written = episode_lib.add_critique(chat, _bare(episode), text, grammar=models.grammar)
    *before, turn = written.turns
    if len(turn.tokens) > limit:
        ids = chat.text_ids(turn)
        ending = turn.tokens[len(ids) :]
        turn = chat.sampled_turn('critique', (*ids[: limit - len(ending)], *ending), ())
    return dataclasses.replace(written, turns=(*before, turn))
