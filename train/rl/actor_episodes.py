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
which stands in the place of a critique; None or False: it is the end of the episode.

With the attribute `reads_critique = True` the critic criticises every attempt before, and the notes
have `critique` and `verdict`; a refinement follows the critique, unless the function returns a
text."""


def _after_critique(problem: Problem, notes: Notes) -> bool:
    return True


def _if_called_wrong(problem: Problem, notes: Notes) -> bool:
    """As at test time: `evaluate.refine='wrong'`."""
    return notes.verdict is not True


_after_critique.reads_critique = True
_if_called_wrong.reads_critique = True

EPISODES = Slot(
    '(problem, notes) -> True, a text, or None',
    {
        'attempt': lambda problem, notes: None,
        'correction': lambda problem, notes: True,
        'critique': _after_critique,
        'gated': _if_called_wrong,
    },
)


def reads_critique(episode: str) -> bool:
    """Returns whether the critic criticises each attempt of such an episode."""
    return bool(getattr(EPISODES.find(episode, FIELD), 'reads_critique', False))


def longest_roles(episode: str) -> tuple[str, ...]:
    """Returns the roles of the turns that follow the question, where none is left out."""
    roles = {'attempt': ('attempt',), 'correction': ('attempt', 'refinement')}
    return roles.get(episode, ('attempt', 'critique', 'refinement'))


def turn_overhead(chat: Chat, episode: str) -> int:
    """Returns the largest number of template tokens between two turns of an episode."""
    if episode == 'correction':
        return chat.correction_overhead
    if episode == 'attempt' or reads_critique(episode):
        return chat.overhead
    return max(chat.overhead, chat.correction_overhead)


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
    ValueError, naming the function, for what is neither a boolean, None nor a text for which there
    is room.
    """
    function, current = EPISODES.find(kind, FIELD), list(episodes)
    due = []
    for i, (episode, problem) in enumerate(zip(episodes, problems, strict=True)):
        reply = function(problem, _notes(models, episode))
        if isinstance(reply, str) and reply.strip():
            current[i] = _with_text(models, episode, reply, function=function)
        elif not (reply is None or isinstance(reply, bool | np.bool_)):
            user_functions.refuse(function, reply, 'True, a text, or None', field=FIELD)
        elif not reply:
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
    """Returns the episode with a text in the place of the critique."""
    sampler = models.sampler
    check_words(sampler.chat, text, function, field=FIELD)
    written = episode_lib.add_critique(sampler.chat, _bare(episode), text, grammar=models.grammar)
    limit = sampler.max_tokens['critique']
    if len(written.turns[-1].tokens) > limit:
        wanted = f'a text of at most {limit} tokens, as many as sampling.critique_tokens'
        user_functions.refuse(function, text, wanted, field=FIELD)
    return written
