"""Right paths from reference solutions, for problems at which the actor has none.

A weak actor solves few problems, so nearly all of its attempts are wrong, and a critic that calls
everything wrong would be right about them. A reference is kept as it is, or the actor rewrites it:
it is shown the reference and writes its own solution, of which the right ones stay.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, EpisodeFacts, Problem, RolloutGroup
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data.constructions import is_fully_correct
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec

RightPaths = Literal['none', 'kept', 'rewritten']
CONSTRUCTION = 'reference'
"""Of these paths, beside RG1 to RG3."""


def right_paths(
    sampler: Sampler,
    actor: Transformer,
    groups: Sequence[RolloutGroup],
    *,
    kind: RightPaths,
    judge: Judge,
    spec: SampleSpec,
) -> list[Episode]:
    """Returns one right path at each problem of `groups` that has a solution and no right attempt.

    Longer ones than an attempt may be are left out, and rewritten ones that are not right.
    """
    lacking = [
        group.problem
        for group in groups
        if kind != 'none' and group.problem.solution and not any(map(is_fully_correct, group))
    ]
    if not lacking:
        return []
    if kind == 'kept':
        turns = [sampler.chat.text_turn('attempt', problem.solution) for problem in lacking]
    else:
        turns = _rewrite(sampler, actor, lacking, spec=spec)
    facts = judge([(p, sampler.text(turn)) for p, turn in zip(lacking, turns, strict=True)])
    limit = sampler.max_tokens['attempt']
    return [
        Episode(
            problem.id,
            problem.level,
            (
                *sampler.chat.question_turns(problem.question),
                dataclasses.replace(turn, facts=turn_facts),
            ),
            EpisodeFacts(construction=CONSTRUCTION),
        )
        for problem, turn, turn_facts in zip(lacking, turns, facts, strict=True)
        if len(turn.tokens) <= limit and turn_facts.correct
    ]


def _rewrite(
    sampler: Sampler, actor: Transformer, problems: Sequence[Problem], *, spec: SampleSpec
):
    """Samples one solution of each problem after its reference, which is not stored with it."""
    shown = [sampler.chat.question_turns(p.question, p.solution) for p in problems]
    spec = dataclasses.replace(spec, num_samples=1)
    return [turn for (turn,) in sampler.sample_turns(actor, shown, 'attempt', spec=spec)]
