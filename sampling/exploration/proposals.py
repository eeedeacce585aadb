"""Proposals: functions that sample one more response per question, unguided or guided.

Four kinds of guidance are those of arXiv 2411.00750; the fifth is a guide that a player writes.
Each function of PROPOSALS takes questions with their responses so far, and returns a judged episode
for each question that it can help.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from elenchus.data.critiques import grammars, oracle
from elenchus.data.critiques.oracle import ConstructedAttempt
from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.critique_data import annotators, constructions
from elenchus.sampling.exploration import guides as guide_lib
from elenchus.sampling.exploration.context import (
    ExplorationContext,
    ProposalRequest,
    counts_as_right,
    is_valid_response,
    with_origin,
)
from elenchus.sampling.metrics.measures import CONDITIONS
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.shuffling import exchange_critiques, has_others, other_question
from elenchus.sampling.writing import Notes

GUIDES: dict[str, Callable[[Problem], str]] = {
    'answer_driven': CONDITIONS['answer'],
    'rationale_driven': CONDITIONS['solution'],
}
"""Text of the guide turn, which follows the question."""


def propose_unguided(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int
) -> list[Episode]:
    """Samples a plain attempt at each question."""
    guides = [None] * len(requests)
    return _sample_responses(context, requests, guides, number=number, origin='uniform')


def propose_guided(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int, by: str
) -> list[Episode]:
    """Samples an attempt at each question after one of GUIDES.

    With guides='shuffled' the guide is that of another question of the same level, as a control;
    without another question nothing is sampled.
    """
    guides = [GUIDES[by](request.problem) for request in requests]
    if context.settings.guides == 'shuffled':
        seed = derive_seed(context.spec.seed, 'guides', number)
        bare = [Episode(r.problem.id, r.problem.level, ()) for r in requests]
        if not has_others(bare):
            return []
        guides = [guides[i] for i in other_question(bare, seed=seed)]
    return _sample_responses(context, requests, guides, number=number, origin=by)


def propose_self_guided(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int
) -> list[Episode]:
    """Samples an attempt at each question after a guide that a player writes.

    The function `player_guide` says how the guide is written; 'none' samples without guides. The
    function `opening` may begin the attempt. A question gets no response if it gets no guide, or
    if guide and opening leave no room.
    """
    s, sampler = context.settings, context.models.sampler
    items = [(request.problem, notes_on(context, request, number=number)) for request in requests]
    spec, texts = _round_spec(context, requests, number=number), [None] * len(requests)
    if s.player_guide != 'none':
        options = {'reference': s.player_guide, 'spec': spec, 'room': context.room}
        texts = guide_lib.guides(context.models, items, **options)
    chosen, guides, openings = [], [], []
    for request, (problem, notes), text in zip(requests, items, texts, strict=True):
        beginning = guide_lib.opening(context.models, problem, notes, reference=s.opening)
        lines = beginning.split('\n') if beginning else []
        opening = constructions.turn_from_lines(sampler.chat, 'attempt', lines)
        if not lines:
            opening = Turn('attempt', sampler.chat.header('attempt'), ())
        prompt = sampler.chat.context(
            sampler.chat.question_turns(problem.question, text), 'attempt'
        )
        has_room = context.room is None or len(prompt) + len(opening.tokens) <= context.room
        is_short = len(opening.tokens) < sampler.max_tokens['attempt']
        if has_room and is_short and (text is not None or s.player_guide == 'none'):
            chosen.append(request)
            guides.append(text)
            openings.append(opening)
    return _sample_responses(
        context, chosen, guides, number=number, origin='self_guided', openings=openings
    )


def notes_on(context: ExplorationContext, request: ProposalRequest, *, number: int = 0) -> Notes:
    """Returns what a user's function may read of a question: its responses, and the memory."""
    text = context.models.sampler.chat.text
    return Notes(
        number=number,
        responses=tuple(text(episode.response) for episode in request.episodes),
        accepted=tuple(counts_as_right(episode.response) for episode in request.episodes),
        memory=context.memory,
    )


def propose_revisions(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int
) -> list[Episode]:
    """Samples one revision of a wrong response of each question, after a critique of it.

    The teacher that criticises is the critic, or with teacher='reference' one that knows the
    reference, as in arXiv 2411.00750. A response without a critique is not revised. Unlike critique
    in the loop, which refines every wrong attempt `num_refinements` times, a question gets one
    revision per round; its wrong responses, with earlier revisions, take turns. With
    critiques='shuffled' the critiques are those of other questions, as a control.
    """
    models = context.models
    wrong = [[e for e in r.episodes if not is_valid_response(e)] for r in requests]
    chosen = [(r, w[number % len(w)]) for r, w in zip(requests, wrong, strict=True) if w]
    if not chosen:
        return []
    criticise = TEACHERS[context.settings.teacher]
    criticised = criticise(
        context,
        [request.problem for request, _ in chosen],
        [episode_lib.as_attempt(models.sampler, episode) for _, episode in chosen],
    )
    ready = [(r, e) for (r, _), e in zip(chosen, criticised, strict=True) if e is not None]
    if context.settings.critiques == 'shuffled':
        seed = derive_seed(context.spec.seed, 'critiques', number)
        exchanged = exchange_critiques([episode for _, episode in ready], seed=seed)
        ready = [(r, e) for (r, _), e in zip(ready, exchanged, strict=bool(exchanged))]
    revised = episode_lib.sample_refinements(
        models.sampler,
        models.actor,
        [episode for _, episode in ready],
        problems=[request.problem for request, _ in ready],
        judge=models.judge,
        spec=_round_spec(context, [request for request, _ in ready], number=number),
    )
    return [
        with_origin(models.sampler, episode, request.problem, origin='interactive')
        for (request, _), (episode,) in zip(ready, revised, strict=True)
    ]


def criticise_as_critic(
    context: ExplorationContext, problems: Sequence[Problem], attempts: Sequence[Episode]
) -> list[Episode | None]:
    """Samples a greedy critique of each attempt by the critic, which sees no reference."""
    models = context.models
    return episode_lib.sample_critiques(
        models.sampler,
        models.critic,
        attempts,
        grammar=models.grammar,
        spec=SampleSpec.greedy(context.spec.method),
    )


def criticise_with_reference(
    context: ExplorationContext, problems: Sequence[Problem], attempts: Sequence[Episode]
) -> list[Episode | None]:
    """Adds to each attempt a critique by a teacher that knows the reference.

    On the lab the oracle writes it. Elsewhere the critic does, after a guide with the reference
    answer, which the refiner does not see. The result is None for a critique without a final
    verdict, or longer than the critic's limit.
    """
    models, sampler = context.models, context.models.sampler
    if models.grammar is grammars.LAB:
        annotate = oracle.oracle
    else:
        annotate = annotators.model_annotator(
            sampler,
            models.critic,
            grammar=models.grammar,
            spec=SampleSpec.greedy(context.spec.method),
        )
    texts = annotate(
        [
            ConstructedAttempt(problem, sampler.chat.text(e.attempt), 'RG1', None, None)
            for problem, e in zip(problems, attempts, strict=True)
        ]
    )
    criticised = [
        text and episode_lib.add_critique(sampler.chat, episode, text, grammar=models.grammar)
        for episode, text in zip(attempts, texts, strict=True)
    ]
    limit = sampler.max_tokens['critique']
    return [e if e and len(e.critique.tokens) <= limit else None for e in criticised]


TEACHERS: dict[str, Callable[..., list[Episode | None]]] = {
    'critic': criticise_as_critic,
    'reference': criticise_with_reference,
}
"""(context, problems, attempts at them) -> attempts with a critique, or None."""


def propose_from_prefix(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int
) -> list[Episode]:
    """Samples an attempt that starts with the reference's first lines ("state reset").

    The number of lines is 1, 2, ... all but one, and changes with the round. A question whose
    prefix leaves no room for a continuation gets no response.
    """
    sampler = context.models.sampler
    chosen, openings = [], []
    for request in requests:
        lines = request.problem.solution.split('\n')
        if len(lines) > 1:
            count = 1 + number % (len(lines) - 1)
            opening = constructions.turn_from_lines(sampler.chat, 'attempt', lines[:count])
            if len(opening.tokens) < sampler.max_tokens['attempt']:
                chosen.append(request)
                openings.append(opening)
    return _sample_responses(
        context,
        chosen,
        [None] * len(chosen),
        number=number,
        origin='state_reset',
        openings=openings,
    )


def _sample_responses(
    context: ExplorationContext,
    requests: Sequence[ProposalRequest],
    guides: Sequence[str | None],
    *,
    number: int,
    origin: str,
    openings: Sequence[Turn] | None = None,
) -> list[Episode]:
    """Samples a judged attempt at each question, after its guide and continuing its opening."""
    models = context.models
    sampler, chat = models.sampler, models.sampler.chat
    prompts = [
        chat.question_turns(request.problem.question, guide)
        for request, guide in zip(requests, guides, strict=True)
    ]
    groups = sampler.continue_turns(
        models.actor,
        prompts,
        openings or [Turn('attempt', chat.header('attempt'), ())] * len(requests),
        spec=_round_spec(context, requests, number=number),
    )
    turns = [turn for (turn,) in groups]
    problems = [request.problem for request in requests]
    facts = models.judge(
        [(problem, sampler.text(turn)) for problem, turn in zip(problems, turns, strict=True)]
    )
    return [
        with_origin(
            sampler,
            Episode(
                problem.id, problem.level, (*prompt, dataclasses.replace(turn, facts=turn_facts))
            ),
            problem,
            origin=origin,
        )
        for problem, prompt, turn, turn_facts in zip(problems, prompts, turns, facts, strict=True)
    ]


def _round_spec(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int
) -> SampleSpec:
    """Returns the specification of one response a question, with the same seed for all kinds."""
    seed = derive_seed(context.spec.seed, 'proposal', number)
    ids = [request.request_id for request in requests]
    return SampleSpec(1, context.spec.method, seed, ids)


PROPOSALS: dict[str, Callable[..., list[Episode]]] = {
    'uniform': propose_unguided,
    **{by: functools.partial(propose_guided, by=by) for by in GUIDES},
    'interactive': propose_revisions,
    'state_reset': propose_from_prefix,
    'self_guided': propose_self_guided,
}
"""(context, requests, *, number of the round from 0) -> judged episodes."""
