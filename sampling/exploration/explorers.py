"""Explorers: the ways to sample the training responses of a self-improvement round."""

import collections
import functools
import types
from collections.abc import Callable, Mapping, Sequence

from elenchus.data import records
from elenchus.data.records import Episode, Problem
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.exploration import acceptance, proposals
from elenchus.sampling.exploration.context import (
    ExplorationContext,
    ExploreSettings,
    ProposalRequest,
    counts_as_right,
    is_valid_response,
    with_origin,
)
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.shuffling import exchange_critiques
from elenchus.sampling.test_time.partial_attempts import without_critique
from elenchus.sampling.trees.search import TreeSearch, ended_attempts, search_trees

Explorer = Callable[[ExplorationContext, Sequence[Problem]], list[Episode]]
"""Samples judged responses to some questions, correct or not, each as a whole conversation.

Every response has the facts of `context.with_origin`.
"""


def explore(
    settings: ExploreSettings,
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    explorer: str,
    method: Method,
    seed: int,
    first_id: int,
    room: int | None = None,
    memory: Mapping[str, str] = types.MappingProxyType({}),
    trees: TreeSearch | None = None,
) -> tuple[list[Episode], int]:
    """Runs one explorer of EXPLORERS; returns its episodes and the number of sampled tokens.

    All explorers start with the same `num_attempts` unguided attempts, so that they differ only in
    what they add. Question i uses the ids from first_id + i * settings.ids_per_question. Prompts
    with guides have at most `room` tokens; `memory` is of the rounds before. `trees` is for the
    explorer `tree_search` alone.
    """
    tokens_before = models.sampler.engine.tokens
    lines_before = trees.line_tokens if trees else 0
    spec = SampleSpec(settings.num_attempts, method, seed, first_id)
    context = ExplorationContext(settings, models, spec, tokens_before, room, memory, trees)
    episodes = EXPLORERS[explorer](context, problems)
    tokens = models.sampler.engine.tokens - tokens_before
    return episodes, tokens + (trees.line_tokens - lines_before if trees else 0)


def explore_vanilla(context: ExplorationContext, problems: Sequence[Problem]) -> list[Episode]:
    """Samples unguided attempts; with a token budget, more of them in rounds.

    A round samples one attempt per question. The rounds end when the budget is spent, or after
    `num_uniform_rounds` of them.
    """
    attempts = _sample_attempts(context, problems).episodes
    rounds = context.settings.num_uniform_rounds if context.settings.token_budget else 0
    return _run_rounds(
        context,
        problems,
        attempts,
        propose=proposals.propose_unguided,
        num_rounds=rounds,
        all_questions=True,
    )


def explore_with_critiques(
    context: ExplorationContext, problems: Sequence[Problem]
) -> list[Episode]:
    """Samples unguided attempts, and for each wrong one a greedy critique and refinements of it.

    With refine='always' right attempts are criticised and refined too.
    The fact `attempt_index` of a refined episode is the index of its attempt among all attempts.
    With critiques='shuffled' a refinement follows the critique of another question; if all wrong
    attempts are at one question, there is none, and nothing is refined.
    """
    models, spec = context.models, context.spec
    attempts, known = _sample_attempts(context, problems)
    attempt_problems = [p for p in problems for _ in range(context.settings.num_attempts)]
    takes_all = context.settings.refine == 'always'
    due = [i for i, e in enumerate(attempts) if takes_all or not counts_as_right(e.attempt)]
    problems_due = [attempt_problems[i] for i in due]
    if known is None:
        chosen = [attempts[i] for i in due]
        criticised = proposals.criticise_as_critic(context, problems_due, chosen)
    else:
        criticised = [episode_lib.add_turn(attempts[i], known[i].critique) for i in due]
    if context.settings.critiques == 'shuffled':
        criticised = exchange_critiques(criticised, seed=spec.seed)
        if not criticised:
            return attempts
    groups = episode_lib.sample_refinements(
        models.sampler,
        models.actor,
        criticised,
        problems=problems_due,
        judge=models.judge,
        # Their ids are also those of attempts, so they need another seed.
        spec=SampleSpec(
            context.settings.num_refinements,
            spec.method,
            derive_seed(spec.seed, 'refinement'),
            spec.first_id,
        ),
    )
    refined = [
        with_origin(models.sampler, episode, attempt_problems[i], origin='refinement').with_facts(
            attempt_index=i
        )
        for i, group in zip(due, groups, strict=True)
        for episode in group
    ]
    earlier = _by_problem(attempts)
    return attempts + _accepted(context, problems, refined, earlier=earlier).episodes


def explore_by_resampling(
    context: ExplorationContext, problems: Sequence[Problem], *, by: str
) -> list[Episode]:
    """Samples unguided attempts, then proposals for questions with too few correct ones."""
    s = context.settings
    return _run_rounds(
        context,
        problems,
        _sample_attempts(context, problems).episodes,
        propose=proposals.PROPOSALS[by],
        num_rounds=s.num_uniform_rounds if by == 'uniform' else s.num_guided_rounds,
        all_questions=False,
    )


def explore_by_trees(context: ExplorationContext, problems: Sequence[Problem]) -> list[Episode]:
    """Searches a tree at each question; samples unguided attempts too, as all explorers do.

    The responses are all attempts of the tree that have their end, the best first; the score of a
    step is the value of its node. Where none has, it is the best one, continued to its end.
    """
    attempts, spec = _sample_attempts(context, problems).episodes, context.spec
    results = search_trees(
        context.trees,
        context.models,
        problems,
        method=spec.method,
        seed=derive_seed(spec.seed, 'tree'),
        # The first attempt's id is one of the question's own.
        first_ids=[i * context.trees.settings.num_nodes for i in spec.first_ids(len(problems))],
    )
    responses = [
        with_origin(context.models.sampler, without_critique(e), problem, origin='tree_search')
        for problem, (tree, best) in zip(problems, results, strict=True)
        for e in ended_attempts(context.models, tree) or [best]
    ]
    earlier = _by_problem(attempts)
    return _accepted(context, problems, responses, earlier=earlier).episodes + attempts


def _sample_attempts(
    context: ExplorationContext, problems: Sequence[Problem]
) -> acceptance.Accepted:
    models = context.models
    attempts = episode_lib.sample_attempts(
        models.sampler, models.actor, problems, judge=models.judge, spec=context.spec
    )
    attempts = [
        with_origin(models.sampler, episode, group.problem, origin='attempt')
        for group in records.group_episodes(problems, attempts)
        for episode in group
    ]
    return _accepted(context, problems, attempts, earlier={})


def _by_problem(episodes: Sequence[Episode]) -> collections.defaultdict[str, list[Episode]]:
    groups = collections.defaultdict(list)
    for episode in episodes:
        groups[episode.problem_id].append(episode)
    return groups


def _accepted(
    context: ExplorationContext,
    problems: Sequence[Problem],
    episodes: Sequence[Episode],
    *,
    earlier: Mapping[str, Sequence[Episode]],
) -> acceptance.Accepted:
    """Returns new responses, marked by the rule `improve.explore.accept`."""
    return acceptance.accept(
        context.models,
        episodes,
        {problem.id: problem for problem in problems},
        rule=context.settings.accept,
        spec=context.spec,
        earlier=earlier,
    )


def _run_rounds(
    context: ExplorationContext,
    problems: Sequence[Problem],
    attempts: Sequence[Episode],
    *,
    propose: Callable[..., list[Episode]],
    num_rounds: int,
    all_questions: bool,
) -> list[Episode]:
    """Returns the attempts and, of each round, one proposal per question.

    Without `all_questions`, a question with `min_correct` valid responses gets no more.
    """
    episodes, groups = list(attempts), _by_problem(attempts)
    least = context.settings.min_correct
    for number in range(num_rounds):
        requests = [
            ProposalRequest(problem, groups[problem.id], context.spec.first_id + i)
            for i, problem in enumerate(problems)
            if all_questions or sum(map(is_valid_response, groups[problem.id])) < least
        ]
        # Checked between rounds only: the last round may exceed the budget.
        if not requests or not context.within_budget(len(problems)):
            break
        responses = propose(context, requests, number=number)
        responses = _accepted(context, problems, responses, earlier=groups).episodes
        for episode in responses:
            groups[episode.problem_id].append(episode)
        episodes += responses
    return episodes


EXPLORERS: dict[str, Explorer] = {
    **dict.fromkeys(('vanilla', 'vanilla_2'), explore_vanilla),
    'critique_in_the_loop': explore_with_critiques,
    **{by: functools.partial(explore_by_resampling, by=by) for by in proposals.PROPOSALS},
    'tree_search': explore_by_trees,
}
"""Explorer by the name of its stage; `vanilla_2` is `vanilla` again, in a run of several phases."""
