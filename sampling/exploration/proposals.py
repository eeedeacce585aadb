"""One more response to a question: unguided, or by one of four guidances (arXiv 2411.00750).

Each function of PROPOSALS takes questions and what they have so far, and gives a judged episode
for each of them that it can help.
"""

import functools
from collections.abc import Callable, Sequence

from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.critique_data import constructions
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.exploration.context import Asked, Search, as_attempt, note, well_answered

GUIDES: dict[str, Callable[[Problem], str]] = {
    'answer_driven': lambda problem: f'#### {problem.answer}',
    'rationale_driven': lambda problem: problem.solution,
}
"""What the actor is shown in a guide's turn, behind the question."""

_FIRST_SEED = 3  # of the proposals' rounds: those below are taken by critique in the loop


def unguided(search: Search, asked: Sequence[Asked], *, number: int) -> list[Episode]:
    """A plain attempt at each question."""
    return _attempts(search, asked, [None] * len(asked), number=number, found_by='uniform')


def guided(search: Search, asked: Sequence[Asked], *, number: int, by: str) -> list[Episode]:
    """An attempt at each question with one of GUIDES shown."""
    guides = [GUIDES[by](a.problem) for a in asked]
    return _attempts(search, asked, guides, number=number, found_by=by)


def interactive(search: Search, asked: Sequence[Asked], *, number: int) -> list[Episode]:
    """One revision of a wrong response of each question, after the critic's critique of it.

    The critic is the teacher. Unlike critique in the loop, which refines every wrong attempt
    `num_refinements` times, a question gets one revision a round, its wrong responses by turns,
    earlier revisions among them.
    """
    sampler, players = search.players.sampler, search.players
    wrong = [[e for e in a.episodes if not well_answered(e)] for a in asked]
    chosen = [(a, w[number % len(w)]) for a, w in zip(asked, wrong, strict=True) if w]
    if not chosen:
        return []
    criticised = episode_lib.critiques(
        sampler,
        players.critic,
        [as_attempt(sampler, episode) for _, episode in chosen],
        grammar=players.grammar,
        method=Greedy(search.method.banned),
        seed=search.seed + _FIRST_SEED + number,
        first_id=search.first_id,
    )
    revised = episode_lib.refinements(
        sampler,
        players.actor,
        criticised,
        [a.problem for a, _ in chosen],
        judge=players.judge,
        num_samples=1,
        method=search.method,
        seed=search.seed + _FIRST_SEED + number,
        first_id=[a.id for a, _ in chosen],
    )
    return [
        note(sampler, episode, a.problem, 'interactive')
        for (a, _), (episode,) in zip(chosen, revised, strict=True)
    ]


def state_reset(search: Search, asked: Sequence[Asked], *, number: int) -> list[Episode]:
    """An attempt that begins with the reference's first lines: 1, 2, ... all but one, by turns.

    Kept as prefix and continuation; what leaves no room for one is not asked.
    """
    sampler = search.players.sampler
    begun = []
    for a in asked:
        lines = a.problem.solution.split('\n')
        if len(lines) > 1:
            count = 1 + number % (len(lines) - 1)
            opening = constructions.opening(sampler.chat, 'attempt', lines[:count])
            if len(opening.tokens) < sampler.max_tokens['attempt']:
                begun.append((a, opening))
    chosen, openings = [a for a, _ in begun], [opening for _, opening in begun]
    return _attempts(
        search,
        chosen,
        [None] * len(chosen),
        number=number,
        found_by='state_reset',
        openings=openings,
    )


def _attempts(
    search: Search,
    asked: Sequence[Asked],
    guides: Sequence[str | None],
    *,
    number: int,
    found_by: str,
    openings: Sequence[Turn] | None = None,
) -> list[Episode]:
    """A judged attempt at each question, behind its guide and from its opening on."""
    sampler, chat = search.players.sampler, search.players.sampler.chat
    shown = [chat.question_turns(a.problem.question, g) for a, g in zip(asked, guides, strict=True)]
    made = sampler.continued(
        search.players.actor,
        shown,
        openings or [Turn('attempt', chat.header('attempt'), ())] * len(asked),
        num_samples=1,
        method=search.method,
        seed=search.seed + _FIRST_SEED + number,
        first_id=[a.id for a in asked],
    )
    facts = search.players.judge(
        [(a.problem, sampler.text(turn)) for a, (turn,) in zip(asked, made, strict=True)]
    )
    episodes = (
        Episode(a.problem.id, a.problem.level, (*turns, turn), fact)
        for a, turns, (turn,), fact in zip(asked, shown, made, facts, strict=True)
    )
    return [note(sampler, e, a.problem, found_by) for e, a in zip(episodes, asked, strict=True)]


PROPOSALS: dict[str, Callable[..., list[Episode]]] = {
    'uniform': unguided,
    **{by: functools.partial(guided, by=by) for by in GUIDES},
    'interactive': interactive,
    'state_reset': state_reset,
}
"""(search, asked, *, number of the round from 0) -> judged episodes."""
