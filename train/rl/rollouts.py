"""What reinforcement learns from: groups of judged episodes, refilled, and their values by step.

A group is what its advantages compare: an actor's samples of one problem, or a critic's critiques
of one attempt.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.sampling_methods import Greedy, Sampling
from elenchus.sampling.exploration.context import Players
from elenchus.sampling.step_scores import StepScorer
from elenchus.sampling.test_time.strategies import score_steps
from elenchus.train.rl import advantages, rewards
from elenchus.train.rl.rewards import ActorRewards, CriticRewards

Player = Literal['actor', 'critic']
ROLES: Mapping[Player, tuple[str, ...]] = {
    'actor': ('attempt', 'refinement'),
    'critic': ('critique',),
}
"""The roles of the turns that a player writes."""

Values = dict[int, np.ndarray]
"""Turn number, from 1 as in Batch.turns -> the value of each of its steps."""


@dataclasses.dataclass(frozen=True)
class AdvantageSettings:
    """How the rewards of a group become advantages.

    A step's is outcome_coef * A(turn's return) + step_coef * A(step), the latter on attempts.
    """

    outcome: Literal['grpo', 'dr_grpo', 'rloo']
    epsilon: float
    outcome_coef: float
    step_coef: float  # the critic judges steps only where this or a reward asks for it
    steps: Literal['normalised', 'difference']  # of step rewards: GRPO's, or V's difference


@dataclasses.dataclass(frozen=True)
class TurnSettings:
    """What an actor's episode consists of, and how its turns share the credit.

    'correction': attempt, refinement (SCoRe, arXiv 2409.12917). 'critique': attempt, the critic's
    critique, refinement (feedback inside rollouts, as ThinkTuning's, arXiv 2508.07616). A turn's
    return is its own reward and `discount` times the next turn's. In the first `first_phase_steps`
    attempts earn nothing and are held to the reference by attempt_kl_coef: SCoRe's stage I. Where
    every attempt at a problem failed, it is attempted again after a hint that training then drops,
    the ratio taken on the plain prompt: Guide-GRPO, arXiv 2506.13923.
    """

    episode: Literal['attempt', 'correction', 'critique']
    attempt: float  # weight of the attempt's reward
    refinement: float
    progress: float  # SCoRe's alpha: weight of refinement's - attempt's reward, added to the former
    discount: float
    first_phase_steps: int
    attempt_kl_coef: float
    hint_share: float  # of the solution's lines, shown where every attempt failed; 0: no hints

    def __post_init__(self):
        if self.first_phase_steps and (self.episode == 'attempt' or self.attempt_kl_coef <= 0):
            raise ValueError(
                f'reinforce.turns.first_phase_steps={self.first_phase_steps} needs '
                f"episode='correction' or 'critique', not {self.episode!r}, and attempt_kl_coef "
                f'above 0, not {self.attempt_kl_coef}'
            )
        if not 0 <= self.hint_share <= 1:
            raise ValueError(f'reinforce.turns.hint_share={self.hint_share} must be in [0, 1]')


def written_tokens(
    player: Player, episode: str, limits: Mapping[str, int], *, overhead: int
) -> int:
    """The most tokens from a player's first token to the end of what it is trained on.

    limits: tokens a turn may have, by role; overhead: the most that stand between two turns.
    """
    if player == 'critic':
        return limits['critique']
    roles = {
        'attempt': ('attempt',),
        'correction': ('attempt', 'refinement'),
        'critique': ('attempt', 'critique', 'refinement'),
    }[episode]
    return sum(limits[role] for role in roles) + overhead * (len(roles) - 1)


class Rules(NamedTuple):
    """All that decides what a sampled episode is worth."""

    player: Player
    rewards: ActorRewards | CriticRewards
    advantage: AdvantageSettings
    turns: TurnSettings
    overlong_tokens: int

    @property
    def reads_scores(self) -> bool:
        """Whether the critic must score the actor's steps."""
        r = self.rewards
        asked = isinstance(r, ActorRewards) and (r.steps or r.verdict)
        return self.player == 'actor' and bool(asked or self.advantage.step_coef)


# Sampling


class Table(NamedTuple):
    """Who samples, how, and how many."""

    players: Players
    scorer: StepScorer
    method: Sampling
    num_samples: int
    num_refinements: int  # of each critique, where its helpfulness counts


Groups = list[list[Episode]]
Play = Callable[[Table, Rules, Sequence[Problem], int], tuple[Groups, int]]


def actor_groups(
    table: Table, rules: Rules, problems: Sequence[Problem], seed: int
) -> tuple[Groups, int]:
    """(`num_samples` judged episodes of each problem, sampled tokens)."""
    players, asked = table.players, _each(problems, table.num_samples)
    episodes = _attempts(table, problems, num_samples=table.num_samples, seed=seed)
    tokens = episode_lib.sampled_tokens(episodes)
    if rules.turns.hint_share:
        episodes, more = hinted(table, problems, episodes, share=rules.turns.hint_share, seed=seed)
        tokens += more
    if rules.reads_scores or rules.turns.episode == 'critique':
        greedy = Greedy(table.method.banned)
        episodes = score_steps(players, episodes, scorer=table.scorer, greedy=greedy, seed=seed)
        tokens += sum(len(episode.turns[-1].tokens) for episode in episodes)
    if rules.turns.episode != 'critique':
        episodes = [without(episode, 'critique') for episode in episodes]
    if rules.turns.episode != 'attempt':
        refined = _refined(table, episodes, asked, num_samples=1, seed=seed)
        episodes = [group[0] for group in refined]
        tokens += sum(len(episode.turns[-1].tokens) for episode in episodes)
    return _grouped(episodes, table.num_samples), tokens


def _attempts(table: Table, problems, *, num_samples: int, seed: int) -> list[Episode]:
    players = table.players
    return episode_lib.attempts(
        players.sampler,
        players.actor,
        problems,
        judge=players.judge,
        method=table.method,
        seed=seed,
        num_samples=num_samples,
        first_id=0,
    )


def hint(problem: Problem, share: float) -> str:
    """The first lines of the reference solution, at least one and as many as `share` of all."""
    lines = problem.solution.split('\n')
    return '\n'.join(lines[: max(1, int(share * len(lines)))])


def hinted(
    table: Table, problems: Sequence[Problem], episodes: Sequence[Episode], *, share, seed: int
) -> tuple[list[Episode], int]:
    """(episodes, tokens sampled): the groups without a right attempt are attempted after a hint.

    The hint is no part of the episode; `hinted` in its outcome says that there was one.
    """
    players, n = table.players, table.num_samples
    sampler, groups = players.sampler, _grouped(episodes, n)
    failed = [i for i, group in enumerate(groups) if not any(e.outcome['correct'] for e in group)]
    asked = [problems[i] for i in failed]
    made = sampler.turns(
        players.actor,
        [sampler.chat.question_turns(p.question, guide=hint(p, share)) for p in asked],
        'attempt',
        num_samples=n,
        method=table.method,
        seed=_noise(seed, 'hint'),
        first_id=[i * n for i in failed],
    )
    facts = iter(
        players.judge(
            [
                (p, sampler.text(turn))
                for p, turns in zip(asked, made, strict=True)
                for turn in turns
            ]
        )
    )
    for i, problem, turns in zip(failed, asked, made, strict=True):
        question = sampler.chat.question_turns(problem.question)
        groups[i] = [
            Episode(problem.id, problem.level, (*question, turn), next(facts) | {'hinted': True})
            for turn in turns
        ]
    tokens = sum(len(turn.tokens) for turns in made for turn in turns)
    return [episode for group in groups for episode in group], tokens


def critic_groups(
    table: Table, rules: Rules, problems: Sequence[Problem], seed: int
) -> tuple[Groups, int]:
    """(`num_samples` critiques of one attempt at each problem, sampled tokens).

    `helpful` in an outcome is rewards.helpfulness of the critique's refinements, where it counts.
    """
    players = table.players
    made = _attempts(table, problems, num_samples=1, seed=seed)
    tokens = episode_lib.sampled_tokens(made)
    episodes = episode_lib.critiques(
        players.sampler,
        players.critic,
        _each(made, table.num_samples),
        grammar=players.grammar,
        method=table.method,
        seed=_noise(seed, 'critique'),
        first_id=0,
    )
    tokens += sum(len(episode.turn('critique').tokens) for episode in episodes)
    if rules.rewards.helpful:
        asked = _each(problems, table.num_samples)
        refined = _refined(table, episodes, asked, num_samples=table.num_refinements, seed=seed)
        tokens += sum(len(e.turns[-1].tokens) for group in refined for e in group)
        episodes = [_helped(e, group) for e, group in zip(episodes, refined, strict=True)]
    return _grouped(episodes, table.num_samples), tokens


def _refined(table: Table, episodes, problems, *, num_samples: int, seed: int) -> Groups:
    players = table.players
    return episode_lib.refinements(
        players.sampler,
        players.actor,
        episodes,
        problems,
        judge=players.judge,
        num_samples=num_samples,
        method=table.method,
        seed=_noise(seed, 'refinement'),
        first_id=0,
    )


def _noise(seed: int, drawn: str) -> int:
    """The seed of what is drawn beside the attempts of an iteration, which have `seed` itself."""
    return (seed + 1 + ('hint', 'critique', 'refinement').index(drawn)) % 2**32


def _helped(episode: Episode, refined: Sequence[Episode]) -> Episode:
    after = [e.outcome['refined_correct'] for e in refined]
    helpful = rewards.helpfulness(episode.outcome['correct'], after)
    return dataclasses.replace(episode, outcome=episode.outcome | {'helpful': helpful})


def without(episode: Episode, role: str) -> Episode:
    """The episode without the turns of a role."""
    turns = tuple(turn for turn in episode.turns if turn.role != role)
    return dataclasses.replace(episode, turns=turns)


def _each(items: Sequence, times: int) -> list:
    return [item for item in items for _ in range(times)]


def _grouped(episodes: Sequence[Episode], size: int) -> Groups:
    return [list(episodes[i : i + size]) for i in range(0, len(episodes), size)]


PLAYS: Mapping[Player, Play] = {'actor': actor_groups, 'critic': critic_groups}


# Values


class Valued(NamedTuple):
    """What a group's episodes earned: by episode, reward terms and values by turn and step."""

    terms: list[dict[str, float]]  # of the last turn that is trained
    rewards: list[float]  # weighted, of the last turn that is trained
    values: list[Values]

    @property
    def flat(self) -> bool:
        """Whether nothing in the group is better than anything else in it."""
        return not any(steps.any() for values in self.values for steps in values.values())


def trained_turns(episode: Episode, player: Player) -> list[tuple[int, Turn]]:
    """(number from 1, turn) of the turns that a player wrote."""
    return [(i, turn) for i, turn in enumerate(episode.turns, 1) if turn.role in ROLES[player]]


def value(
    group: Sequence[Episode],
    rules: Rules,
    *,
    limits: Mapping[str, int],
    first_phase: bool,
    penalties: Sequence[Mapping[int, float]] | None,
) -> Valued:
    """Rewards and advantages of a group; `penalties` are subtracted by episode and turn number.

    limits: tokens a turn may have, by role.
    """
    told, returns = [], []
    for i, episode in enumerate(group):
        turns = trained_turns(episode, rules.player)
        terms = [_terms(episode, turn, rules, limits) for _, turn in turns]
        earned = [rewards.total(rules.rewards, values) for values in terms]
        shared = _shared(earned, rules, first_phase=first_phase)
        if penalties is not None:
            shared = [r - penalties[i][n] for r, (n, _) in zip(shared, turns, strict=True)]
        told.append((terms[-1], earned[-1]))
        returns.append(advantages.discounted(shared, discount=rules.turns.discount))
    a = rules.advantage
    weigh = advantages.ADVANTAGES[a.outcome]
    by_turn = [weigh(column, epsilon=a.epsilon) for column in zip(*returns, strict=True)]
    values = [
        {
            number: np.full(len(turn.step_ends), a.outcome_coef * by_turn[k][i], np.float32)
            for k, (number, turn) in enumerate(trained_turns(episode, rules.player))
        }
        for i, episode in enumerate(group)
    ]
    if a.step_coef and rules.player == 'actor' and not first_phase:
        _add_steps(group, values, rules)
    terms, earned = zip(*told, strict=True)
    return Valued(list(terms), list(earned), values)


def _terms(episode: Episode, turn: Turn, rules: Rules, limits) -> dict[str, float]:
    outcome = rewards.facts_of(episode, turn)
    written = rewards.Written(turn, outcome, limits[turn.role], rules.overlong_tokens)
    return rewards.terms(rules.rewards, written)


def _shared(earned: Sequence[float], rules: Rules, *, first_phase: bool) -> list[float]:
    """What each turn is paid: SCoRe's weights and bonus where there are two."""
    t = rules.turns
    if rules.player == 'critic' or len(earned) == 1:
        return list(earned)
    first, second = earned
    if first_phase:
        return [0.0, second]
    return [t.attempt * first, t.refinement * second + t.progress * (second - first)]


def _add_steps(group: Sequence[Episode], values: Sequence[Values], rules: Rules) -> None:
    """Adds the attempts' step advantages to the values."""
    a = rules.advantage
    numbered = [trained_turns(episode, 'actor')[0] for episode in group]
    scores = [turn.step_scores for _, turn in numbered]
    if a.steps == 'normalised':
        found = advantages.process_normalised(scores, epsilon=a.epsilon)
    else:
        start = float(np.mean([episode.outcome['correct'] for episode in group]))
        found = [advantages.step_differences(s, start=start) for s in scores]
    for own, (number, _), more in zip(values, numbered, found, strict=True):
        own[number] = own[number] + np.float32(a.step_coef) * more


# Refill


class Filled(NamedTuple):
    """A batch's groups; those from `num_informative` on have no variance and weight zero."""

    groups: Groups
    num_informative: int
    num_sampled: int  # groups, those that were replaced too
    num_flat: int  # of them
    tokens: int


def filled(
    sample: Callable[[Sequence[Problem], int], tuple[Groups, int]],
    is_flat: Callable[[Sequence[Episode]], bool],
    problems: Sequence[Problem],
    *,
    num_groups: int,
    num_rounds: int,
) -> Filled:
    """`num_groups` groups of the first problems; those without variance are replaced by later ones.

    At most `num_rounds` further rounds sample(problems, round) as many as are missing; what is
    missing after them is made up of groups without variance, last. DAPO's dynamic sampling, arXiv
    2503.14476, on shapes that never change. Without rounds every group counts as informative.
    """
    informative, flat, tokens, used = [], [], 0, 0
    for number in range(num_rounds + 1):
        missing = num_groups - len(informative)
        chosen = problems[used : used + missing]
        if not chosen:
            break
        groups, spent = sample(chosen, number)
        used, tokens = used + len(chosen), tokens + spent
        for group in groups:
            (flat if is_flat(group) else informative).append(group)
    missing = num_groups - len(informative)
    counted = num_groups if num_rounds == 0 else len(informative)
    return Filled(informative + flat[:missing], counted, used, len(flat), tokens)
