"""Proposals: one more response per question, unguided or with one of four kinds of guidance.

The four are those of arXiv 2411.00750. Each function of PROPOSALS takes questions with their
responses so far and returns a judged episode for each question that it can help.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.critique_data import constructions
from elenchus.sampling.exploration.context import (
    ExplorationContext,
    ProposalRequest,
    is_valid_response,
    with_origin,
)
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed

GUIDES: dict[str, Callable[[Problem], str]] = {
    'answer_driven': lambda problem: f'#### {problem.answer}',
    'rationale_driven': lambda problem: problem.solution,
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
    """Samples an attempt at each question after one of GUIDES."""
    guides = [GUIDES[by](request.problem) for request in requests]
    return _sample_responses(context, requests, guides, number=number, origin=by)


def propose_revisions(
    context: ExplorationContext, requests: Sequence[ProposalRequest], *, number: int
) -> list[Episode]:
    """Samples one revision of a wrong response of each question, after a critique of it.

    The critic acts as the teacher. Unlike critique in the loop, which refines every wrong attempt
    `num_refinements` times, a question gets one revision per round. Its wrong responses take turns,
    earlier revisions among them.
    """
    models, spec = context.models, context.spec
    wrong = [[e for e in r.episodes if not is_valid_response(e)] for r in requests]
    chosen = [(r, w[number % len(w)]) for r, w in zip(requests, wrong, strict=True) if w]
    if not chosen:
        return []
    criticised = episode_lib.sample_critiques(
        models.sampler,
        models.critic,
        [episode_lib.as_attempt(models.sampler, episode) for _, episode in chosen],
        grammar=models.grammar,
        spec=SampleSpec.greedy(spec.method.banned),
    )
    revised = episode_lib.sample_refinements(
        models.sampler,
        models.actor,
        criticised,
        problems=[request.problem for request, _ in chosen],
        judge=models.judge,
        spec=_round_spec(context, [request for request, _ in chosen], number=number),
    )
    return [
        with_origin(models.sampler, episode, request.problem, origin='interactive')
        for (request, _), (episode,) in zip(chosen, revised, strict=True)
    ]


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
    """Returns the specification of one response a question; kinds of guidance share its noise."""
    seed = derive_seed(context.spec.seed, 'proposal', number)
    ids = [request.request_id for request in requests]
    return SampleSpec(1, context.spec.method, seed, ids)


PROPOSALS: dict[str, Callable[..., list[Episode]]] = {
    'uniform': propose_unguided,
    **{by: functools.partial(propose_guided, by=by) for by in GUIDES},
    'interactive': propose_revisions,
    'state_reset': propose_from_prefix,
}
"""(context, requests, *, number of the round from 0) -> judged episodes."""
