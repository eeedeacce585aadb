"""Rollouts of an iteration: groups of judged episodes, and the refill of uninformative groups.

A group is the set of episodes whose rewards are compared with each other: the actor's samples of
one problem, or the critic's critiques of one attempt.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from elenchus.data import records
from elenchus.data.critiques.oracle import ConstructedAttempt
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.critique_data import annotators, step_labels
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.step_scores import StepScorer, score_steps
from elenchus.sampling.test_time.gates import Refine, asks_for_refinement
from elenchus.train.rl import actor_episodes, restarts, rewards
from elenchus.train.rl.settings import Player, RewardRules

Groups = list[RolloutGroup]


class RolloutSetup(NamedTuple):
    """Models, sampling method and sample counts of a rollout."""

    models: ModelPair  # the sampler and the current weights of both players
    scorer: StepScorer
    method: Method
    num_samples: int  # episodes of a group
    num_refinements: int  # of each critique, if its helpfulness is rewarded
    refine: Refine  # critiques that are refined for that: all, or those that do not say correct
    num_rollouts: int = 0  # from each line's end, which label a critic's attempts; 0: the judge's
    rollout_threshold: float = 0.0  # a line is wrong if a smaller share of them is right
    labels: str = 'threshold'  # of lines from them: of step_labels.LABELS


class Rollout(Protocol):
    """Samples a group for each problem; returns the groups and the number of sampled tokens."""

    def __call__(
        self, setup: RolloutSetup, rules: RewardRules, problems: Sequence[Problem], *, seed: int
    ) -> tuple[Groups, int]: ...


# Sampling


def sample_actor_groups(
    setup: RolloutSetup, rules: RewardRules, problems: Sequence[Problem], *, seed: int
) -> tuple[Groups, int]:
    """Samples `num_samples` judged episodes of each problem; returns (groups, sampled tokens).

    If a reward or advantage reads scores of steps, the critic writes a critique of each attempt and
    scores it. If a reward reads scores of refinements, it also writes a critique of each of these.
    """
    models, n = setup.models, setup.num_samples
    episodes = episode_lib.sample_attempts(
        models.sampler,
        models.actor,
        problems,
        judge=models.judge,
        spec=SampleSpec(n, setup.method, seed, 0),
    )
    tokens = episode_lib.sampled_tokens(episodes)
    groups = records.group_episodes(problems, episodes)
    groups, more = attempt_again(setup, rules, groups, seed=seed)
    episodes = [episode for group in groups for episode in group]
    tokens += more
    greedy = {'grammar': models.grammar, 'spec': SampleSpec.greedy(setup.method)}
    kind = rules.turns.episode
    if rules.needs_critiques:
        episodes = episode_lib.sample_critiques(models.sampler, models.critic, episodes, **greedy)
        tokens += sum(episode.turns[-1].num_sampled for episode in episodes)
        episodes = score_steps(models, episodes, scorer=setup.scorer)
    if not actor_episodes.reads_critique(kind):  # the scores stay on the attempt
        episodes = [without_turns(episode, 'critique') for episode in episodes]
    episodes = actor_episodes.refine(
        models,
        episodes,
        _repeat_each(problems, n),
        kind=kind,
        method=setup.method,
        seed=derive_seed(seed, 'refinement'),
    )
    refined = [i for i, episode in enumerate(episodes) if episode.turns[-1].role == 'refinement']
    tokens += sum(episodes[i].turns[-1].num_sampled for i in refined)
    if rules.needs_refinement_scores:
        # The critic reads a refinement as it reads an attempt: after the question, alone.
        bare = [episode_lib.as_attempt(models.sampler, episodes[i]) for i in refined]
        bare = episode_lib.sample_critiques(models.sampler, models.critic, bare, **greedy)
        tokens += sum(episode.turns[-1].num_sampled for episode in bare)
        scored = score_steps(models, bare, scorer=setup.scorer)
        for i, episode in zip(refined, scored, strict=True):
            episodes[i] = with_scores_of_last_turn(episodes[i], episode)
    return records.group_episodes(problems, episodes), tokens


def with_scores_of_last_turn(episode: Episode, scored: Episode) -> Episode:
    """Returns an episode with the step scores of `scored`, a copy whose last turn was criticised.

    The critique does not become part of the episode.
    """
    fields = {'steps': scored.attempt.steps, 'facts': scored.attempt.facts}
    last = dataclasses.replace(episode.turns[-1], **fields)
    return dataclasses.replace(episode, turns=(*episode.turns[:-1], last))


def attempt_again(
    setup: RolloutSetup, rules: RewardRules, groups: Groups, *, seed: int
) -> tuple[Groups, int]:
    """Samples attempts again after hints or from restarts; returns (groups, sampled tokens)."""
    if rules.turns.hint_share:
        return retry_with_hints(setup, groups, share=rules.turns.hint_share, seed=seed)
    if rules.turns.restart != 'none':
        name = rules.turns.restart
        return restarts.restart(setup.models, setup.method, groups, name=name, seed=seed)
    return groups, 0


def hint(problem: Problem, share: float) -> str:
    """First lines of the reference solution: `share` of all lines, but at least one.

    The last line, which has the answer, is never one of them: of a single line nothing is left.
    """
    lines = problem.solution.rstrip().split('\n')
    return '\n'.join(lines[:-1][: max(1, int(share * len(lines)))])


def retry_with_hints(
    setup: RolloutSetup, groups: Sequence[RolloutGroup], *, share: float, seed: int
) -> tuple[Groups, int]:
    """Samples the groups without a right attempt again, with a hint; returns (groups, tokens).

    The new episodes do not contain the hint: the policy must learn to answer without it. The new
    attempts have the fact `hinted`, because the sampler's log-probabilities are those after a hint.
    """
    models, n = setup.models, setup.num_samples
    sampler, groups = models.sampler, list(groups)
    failed = [
        i
        for i, group in enumerate(groups)
        if not any(e.attempt.facts.correct for e in group) and hint(group.problem, share)
    ]
    failed_problems = [groups[i].problem for i in failed]
    retries = sampler.sample_turns(
        models.actor,
        [sampler.chat.question_turns(p.question, guide=hint(p, share)) for p in failed_problems],
        'attempt',
        spec=SampleSpec(n, setup.method, derive_seed(seed, 'hint'), [i * n for i in failed]),
    )
    answers = [
        (problem, sampler.text(turn))
        for problem, turns in zip(failed_problems, retries, strict=True)
        for turn in turns
    ]
    facts = iter(models.judge(answers))
    for i, problem, turns in zip(failed, failed_problems, retries, strict=True):
        question = sampler.chat.question_turns(problem.question)
        judged = (dataclasses.replace(turn, facts=next(facts)) for turn in turns)
        episodes = (
            Episode(problem.id, problem.level, (*question, turn.with_facts(hinted=True)))
            for turn in judged
        )
        groups[i] = RolloutGroup(problem, tuple(episodes))
    return groups, sum(turn.num_sampled for turns in retries for turn in turns)


def sample_critic_groups(
    setup: RolloutSetup, rules: RewardRules, problems: Sequence[Problem], *, seed: int
) -> tuple[Groups, int]:
    """Samples `num_samples` critiques of one attempt at each problem; returns (groups, tokens).

    If helpfulness is rewarded, the actor writes `num_refinements` refinements after every critique
    that `setup.refine` selects. They determine the critique's fact `helpful`, and are not part of
    the episode.
    """
    models, n = setup.models, setup.num_samples
    attempts = episode_lib.sample_attempts(
        models.sampler,
        models.actor,
        problems,
        judge=models.judge,
        spec=SampleSpec(1, setup.method, seed, 0),
    )
    tokens = episode_lib.sampled_tokens(attempts)
    if setup.num_rollouts:
        attempts, more = label_by_rollouts(setup, attempts, problems, seed=seed)
        tokens += more
    episodes = episode_lib.sample_critiques(
        models.sampler,
        models.critic,
        _repeat_each(attempts, n),
        grammar=models.grammar,
        spec=SampleSpec(1, setup.method, derive_seed(seed, 'critique'), 0),
    )
    tokens += sum(episode.critique.num_sampled for episode in episodes)
    if rules.rewards.helpful:
        episodes, more = measure_helpfulness(setup, episodes, _repeat_each(problems, n), seed=seed)
        tokens += more
    return records.group_episodes(problems, episodes), tokens


def label_by_rollouts(
    setup: RolloutSetup, episodes: Sequence[Episode], problems: Sequence[Problem], *, seed: int
) -> tuple[list[Episode], int]:
    """Labels the steps of attempts by continuations; returns the episodes and sampled tokens.

    Sets the facts `first_error` and `steps_correct`. The first error is the first step that
    `setup.labels` calls wrong: by default the first after which a share below `rollout_threshold`
    of `num_rollouts` continuations reaches the answer (arXiv 2312.08935). If there is no such step
    and the answer is wrong, it is the line of the answer.
    """
    models, count = setup.models, setup.num_rollouts
    texts = [models.sampler.chat.text(episode.attempt) for episode in episodes]
    items = [
        ConstructedAttempt(problem, text, 'RG1', None, None)
        for problem, text in zip(problems, texts, strict=True)
    ]
    tokens_before = models.sampler.engine.tokens
    successes = annotators.count_successes(
        models.sampler,
        models.actor,
        items,
        judge=models.judge,
        spec=SampleSpec(count, setup.method, derive_seed(seed, 'labels'), 0),
    )
    labelled = []
    for episode, item, numbers in zip(episodes, items, successes, strict=True):
        lines = [i for i, line in enumerate(item.attempt.split('\n')) if line.strip()]
        wrong = step_labels.first_wrong(
            setup.labels,
            numbers,
            num_rollouts=count,
            threshold=setup.rollout_threshold,
            correct=bool(episode.attempt.facts.correct),
            problem=item.problem,
            field='reinforce.labels',
        )
        first = None if wrong is None else lines.index(wrong)
        if first is None and not episode.attempt.facts.correct:
            first = max(0, len(lines) - 1)
        facts = {'first_error': first, 'steps_correct': first is None}
        labelled.append(episode.with_turn_facts('attempt', **facts))
    return labelled, models.sampler.engine.tokens - tokens_before


def measure_helpfulness(
    setup: RolloutSetup,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    seed: int,
    first: int = 0,
) -> tuple[list[Episode], int]:
    """Adds to critiques the fact `helpful`, the mean effect of refinements; returns tokens too.

    A critique that `setup.refine` does not select has the effect 0: the attempt stays as it is.
    `first` is the number of the first episode among all; it selects the noise.
    """
    models, count = setup.models, setup.num_refinements
    due = [i for i, episode in enumerate(episodes) if asks_for_refinement(episode, setup.refine)]
    groups = episode_lib.sample_refinements(
        models.sampler,
        models.actor,
        [episodes[i] for i in due],
        problems=[problems[i] for i in due],
        judge=models.judge,
        spec=SampleSpec(
            count,
            setup.method,
            derive_seed(seed, 'refinement'),
            [(first + i) * count for i in due],
        ),
    )
    effects = [0.0] * len(episodes)
    for i, group in zip(due, groups, strict=True):
        after = [e.response.facts.correct for e in group]
        effects[i] = rewards.helpfulness(episodes[i].attempt.facts.correct, after)
    measured = [
        episode.with_turn_facts('critique', helpful=effect)
        for episode, effect in zip(episodes, effects, strict=True)
    ]
    return measured, sum(e.turns[-1].num_sampled for group in groups for e in group)


def without_turns(episode: Episode, role: str) -> Episode:
    """Returns the episode without the turns of a role."""
    turns = tuple(turn for turn in episode.turns if turn.role != role)
    return dataclasses.replace(episode, turns=turns)


def _repeat_each(items: Sequence, times: int) -> list:
    return [item for item in items for _ in range(times)]


ROLLOUTS: Mapping[Player, Rollout] = {
    'actor': sample_actor_groups,
    'critic': sample_critic_groups,
}


# Refill


class SampledGroups(NamedTuple):
    """Groups of an iteration; those from index `num_informative` on are not trained."""

    groups: Groups
    num_informative: int
    num_sampled: int  # groups, including those that were replaced
    num_zero_variance: int  # of the sampled groups
    tokens: int  # sampled


def sample_with_refill(
    sample: Callable[..., tuple[Groups, int]],
    is_zero_variance: Callable[[Sequence[Episode]], bool],
    problems: Sequence[Problem],
    *,
    num_groups: int,
    seeds: Sequence[int],
) -> SampledGroups:
    """Samples `num_groups` groups; replaces those of zero variance by groups of later problems.

    DAPO's dynamic sampling (arXiv 2503.14476) in at most len(seeds) rounds: each round calls
    sample(problems, seed=seeds[round]) for as many new problems as informative groups are missing.
    If some are missing in the end, groups of zero variance fill the batch, so that its shape never
    changes. With a single round all groups count as informative.
    """
    informative, zero_variance, tokens, used = [], [], 0, 0
    for seed in seeds:
        missing = num_groups - len(informative)
        chosen = problems[used : used + missing]
        if not chosen:
            break
        groups, more = sample(chosen, seed=seed)
        used, tokens = used + len(chosen), tokens + more
        for group in groups:
            (zero_variance if is_zero_variance(group) else informative).append(group)
    missing = num_groups - len(informative)
    num_informative = num_groups if len(seeds) == 1 else len(informative)
    return SampledGroups(
        informative + zero_variance[:missing], num_informative, used, len(zero_variance), tokens
    )
