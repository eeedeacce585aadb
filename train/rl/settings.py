"""Settings of reinforcement learning, and the rules of reward that follow from them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.lora import LoraSettings
from elenchus.model.ranges import (
    MOST,
    Coefficient,
    Length,
    NonNegativeInt,
    PositiveInt,
    Range,
    SampleCount,
    Share,
    checked,
)
from elenchus.sampling.critique_data.step_labels import LABELS
from elenchus.sampling.test_time.gates import Refine
from elenchus.train.config.stage_names import StartName
from elenchus.train.objective import Objective
from elenchus.train.optimizer import OptimizerSettings, Rate
from elenchus.train.rl.actor_episodes import (
    EPISODES,
    longest_response,
    longest_roles,
    reads_critique,
)
from elenchus.train.rl.advantages import AdvantageSettings, reads_values
from elenchus.train.rl.advantages import reads_scores as steps_read_scores
from elenchus.train.rl.gae import ValueSettings
from elenchus.train.rl.off_policy import check_ratio
from elenchus.train.rl.restarts import RESTARTS
from elenchus.train.rl.rewards import ActorRewards, CriticRewards, reads_labels, reads_scores

Player = Literal['actor', 'critic']
Rounds = Annotated[int, Range(0, 1000)]
ImportanceCap = Annotated[float, Range(1.0, 1e6, off=0.0)]

TRAINED_ROLES: Mapping[Player, tuple[str, ...]] = {
    'actor': ('attempt', 'refinement'),
    'critic': ('critique',),
}
"""Player -> roles of the turns that it writes and is trained on."""


@dataclasses.dataclass(frozen=True)
@checked('reinforce.turns')
class TurnSettings:
    """Turns of an actor's episode, and how their rewards become returns.

    Episodes (actor_episodes.py): 'attempt'; 'correction': attempt, refinement (SCoRe, arXiv
    2409.12917); 'critique': attempt, the critic's critique, refinement (as in ThinkTuning, arXiv
    2508.07616); 'gated': so only for attempts that the critic does not call correct. The return of
    a turn is its own reward plus `discount` times the return of the next turn.

    SCoRe's stage I: in the first `first_phase_steps` iterations an attempt has no reward of its
    own, its return is the refinement's, and `attempt_kl_coef` keeps it close to the reference.

    Guide-GRPO (arXiv 2506.13923): if all attempts at a problem fail, they are sampled again after a
    hint. Training leaves out the hint; the ratio is (policy on the plain prompt) / (sampler).
    """

    episode: Annotated[str, EPISODES]  # what follows an attempt
    attempt: Coefficient  # weight of the attempt's reward
    refinement: Coefficient  # weight of the refinement's reward
    # SCoRe's alpha: bonus of the refinement per reward gained over the attempt.
    progress: Coefficient
    discount: Share  # of the next turn's return
    first_phase_steps: NonNegativeInt  # iterations of SCoRe's stage I; 0 = off
    attempt_kl_coef: Coefficient  # KL coefficient on attempts in stage I
    hint_share: Share  # share of the solution's lines given as a hint; 0 = no hints
    restart: Annotated[str, RESTARTS]  # samples that begin with a part of another one
    # The user's instruction before a refinement without a critique, under a family's template; '':
    # SCoRe's.
    correction: str

    def __post_init__(self):
        if self.hint_share and self.restart != 'none':
            raise ValueError(
                f'reinforce.turns.hint_share={self.hint_share} and restart={self.restart!r} both '
                "sample attempts again: use one of them; nearest: restart='none'"
            )
        if self.first_phase_steps and (self.episode == 'attempt' or self.attempt_kl_coef <= 0):
            raise ValueError(
                f'reinforce.turns.first_phase_steps={self.first_phase_steps} needs '
                f"an episode with a refinement, as 'correction', not {self.episode!r}, and "
                f'attempt_kl_coef above 0, not {self.attempt_kl_coef}'
            )


class RewardRules(NamedTuple):
    """Everything that determines the rewards and advantages of one player's episodes."""

    player: Player
    rewards: ActorRewards | CriticRewards
    advantage: AdvantageSettings
    turns: TurnSettings
    overlong_tokens: int
    has_implicit_scores: bool = False  # steps have the scores of reinforce.implicit
    imitates: bool = False  # turns are written: their reward is what an advantage is to others

    def discount(self, *, first_phase: bool) -> float:
        """Returns the discount of the next turn's return.

        It is 1 in SCoRe's stage I, which maximises E[r2]: the gradient has the score functions of
        both turns, so both have the return r2. Else the attempt would only get the KL term.
        """
        return 1.0 if first_phase else self.turns.discount

    @property
    def reads_values(self) -> bool:
        """True if advantages follow from rewards and from the values of a value model."""
        return reads_values(self.advantage.outcome)

    @property
    def needs_step_scores(self) -> bool:
        """True if the critic must score the steps of the actor's attempts."""
        in_reward = reads_scores(self.rewards)
        in_steps = self.advantage.step_coef and steps_read_scores(self.advantage.steps)
        by_critic = in_steps and not self.has_implicit_scores
        return self.player == 'actor' and bool(in_reward or by_critic)

    @property
    def needs_critiques(self) -> bool:
        """True if the critic must criticise the actor's attempts."""
        return self.needs_step_scores or reads_critique(self.turns.episode)

    @property
    def num_trained_turns(self) -> int:
        """Turns of an episode that the player writes, if none is left out."""
        if self.player == 'critic':
            return 1
        return sum(role in TRAINED_ROLES['actor'] for role in longest_roles(self.turns.episode))

    @property
    def needs_refinement_scores(self) -> bool:
        """True if a reward reads scores of refinements, so that the critic must criticise these."""
        return reads_scores(self.rewards) and self.turns.episode != 'attempt'


@dataclasses.dataclass(frozen=True)
@checked('reinforce.implicit')
class ImplicitSettings:
    """Step scores of a copy of the actor that learns from outcomes (implicit_rewards.py)."""

    beta: Coefficient  # scale of its log-ratio to the reference; 0 = off: the critic scores steps
    learning_rate: Rate  # of the copy, by AdamW; the rest is as in reinforce.optimizer


@dataclasses.dataclass(frozen=True)
@checked('reinforce')
class ReinforceSettings:
    """Reinforcement learning: sampling, rewards, updates and layout of rows of an iteration.

    An iteration samples `num_samples` episodes of each of `num_problems` problems; for the critic,
    `num_samples` critiques of one attempt at each problem.
    """

    start: StartName  # stage whose actor it begins with
    critic_start: StartName  # stage whose critic it begins with
    one_model: bool  # where both players train, they are one model, which begins as the critic
    teacher: str  # saved model whose log-probabilities are the reference's; '': none
    num_steps: Annotated[int, Range(1, 1_000_000)]  # iterations
    staleness: Annotated[int, Range(0, 100)]  # iterations that sampling is ahead (overlap.py)
    rollout_devices: NonNegativeInt  # of the mesh, that only sample ahead; 0: the trainer's
    # No iteration starts once this many tokens are sampled; 0 = no limit.
    token_budget: NonNegativeInt
    num_problems: Annotated[int, Range(1, 1_000_000)]  # groups of an iteration
    num_samples: SampleCount  # episodes of a group; 1 with a value model alone
    num_refinements: SampleCount  # of each critique, if its helpfulness is rewarded
    refine: Refine  # which critiques for that; 'wrong': not those that call the attempt correct
    # Continuations from the end of each line that label a critic's attempts; 0 = the lab's truth.
    num_rollouts: Annotated[int, Range(0, 10_000)]
    rollout_threshold: Share  # a line is wrong if a smaller share of them reach the answer
    labels: Annotated[str, LABELS]  # of lines, from how many of them do
    critiques: Literal['sampled', 'true']  # that train the critic; 'true': true_verdicts.py
    refill_rounds: Rounds  # rounds that replace groups of zero variance; 0 = off (DAPO)
    replay_groups: NonNegativeInt  # newest groups kept, for those without variance; 0 = off
    num_minibatches: PositiveInt  # updates of an epoch
    num_epochs: Annotated[int, Range(1, 1000)]  # passes over an iteration's samples
    length: Length  # tokens of an actor's row: the longest conversation up to its last turn
    critic_length: Length  # tokens of a critic's row: the longest conversation up to the critique
    advantage: AdvantageSettings
    implicit: ImplicitSettings
    value: ValueSettings
    turns: TurnSettings
    rewards: ActorRewards
    critic_rewards: CriticRewards
    # Tokens before a turn's limit over which its length penalty grows.
    overlong_tokens: PositiveInt
    mask_truncated: bool  # turns that were cut off at their limit have loss mask 0 (DAPO)
    # C of the token weight min(exp(trainer - sampler logp), C); 0 = off.
    importance_cap: ImportanceCap
    drop_zero_advantage_rows: bool  # skip rows that cannot affect the gradient of the objective
    # Samples of a group in one row behind their common prompt; 1 = separate.
    samples_per_row: SampleCount
    checkpoint_every: PositiveInt  # iterations
    objective: Objective
    optimizer: OptimizerSettings
    lora: LoraSettings  # adapters of the trained player; must equal those it already has

    def __post_init__(self):
        if self.teacher and self.objective.kl == 'none':
            raise ValueError(
                f"reinforce.teacher={self.teacher!r} is read by the KL term: set objective.kl='k2' "
                'and objective.kl_coef=1.0'
            )
        if self.objective.pairs:
            raise ValueError("reinforce.objective.surrogate='pair' needs pairs: use stage 'prefer'")
        if self.implicit.beta and (not self.advantage.step_coef or reads_scores(self.rewards)):
            raise ValueError(
                f'reinforce.implicit.beta={self.implicit.beta} gives steps scores for '
                'reinforce.advantage.step_coef, which must be above 0, in place of those of the '
                'critic, which no reward may read; nearest: beta=0.0'
            )
        self._check_values()
        if self.num_rollouts and not reads_labels(self.critic_rewards):
            raise ValueError(
                f'reinforce.num_rollouts={self.num_rollouts} labels steps, which no reward of the '
                "critic reads: set critic_rewards.located, or verdict_of='steps'; nearest: 0"
            )
        divisors = [n for n in range(1, self.num_samples + 1) if self.num_samples % n == 0]
        if self.samples_per_row not in divisors:
            nearest = min(divisors, key=lambda n: abs(n - self.samples_per_row))
            raise ValueError(
                f'reinforce.samples_per_row={self.samples_per_row} must divide num_samples = '
                f'{self.num_samples}; nearest: {nearest}'
            )
        if self.rows % self.num_minibatches:
            raise ValueError(
                f'reinforce.num_minibatches={self.num_minibatches} must divide num_problems * '
                f'num_samples / samples_per_row = {self.rows}'
            )
        check_ratio(
            self.objective,
            num_updates=self.num_updates,
            sampled_by_others={
                'replay_groups': self.replay_groups,
                'staleness': self.staleness,
                'turns.hint_share': self.turns.hint_share,
            },
        )
        if self.num_steps * self.num_updates > MOST:  # the schedule counts in int32
            raise ValueError(
                f'reinforce.num_steps={self.num_steps} of {self.num_updates} updates are more than '
                f'{MOST}; nearest: {max(1, MOST // self.num_updates)}'
            )

    def _check_values(self) -> None:
        """Raises ValueError for what a value model, or its lack, makes meaningless."""
        has_values = reads_values(self.advantage.outcome)
        if self.num_samples == 1 and not has_values:
            raise ValueError(
                'reinforce.num_samples=1 leaves reinforce.advantage.outcome='
                f"{self.advantage.outcome!r} nothing to compare; nearest: 2, or outcome='gae'"
            )
        for field in ('refill_rounds', 'replay_groups'):
            if has_values and getattr(self, field):
                raise ValueError(
                    f'reinforce.{field}={getattr(self, field)} replaces groups of equal rewards, '
                    f'from which outcome={self.advantage.outcome!r} learns too; nearest: 0'
                )

    @property
    def implicit_optimizer(self) -> OptimizerSettings:
        """Optimizer of the model that gives implicit scores."""
        return self._copy_optimizer(self.implicit.learning_rate)

    @property
    def value_optimizer(self) -> OptimizerSettings:
        """Optimizer of a value model."""
        return self._copy_optimizer(self.value.learning_rate)

    def _copy_optimizer(self, rate: float) -> OptimizerSettings:
        return dataclasses.replace(self.optimizer, name='adamw', learning_rate=rate)

    @property
    def rows(self) -> int:
        """Rows of an iteration's batch."""
        return self.num_problems * self.num_samples // self.samples_per_row

    @property
    def num_updates(self) -> int:
        """Updates of an iteration."""
        return self.num_minibatches * self.num_epochs

    @property
    def first_phase_objective(self) -> Objective:
        """The objective of SCoRe's stage I, which keeps attempts close to the reference.

        It is held by KL(pi || ref). As a term of the loss, 'k2' has the gradient of this KL, and
        'k3' that of KL(ref || pi). A 'k1' penalty is part of the reward, which attempts lack here.
        """
        in_loss = self.objective.kl in ('k2', 'k3')
        return dataclasses.replace(
            self.objective,
            kl='k2',
            kl_coef=self.objective.kl_coef if in_loss else 0.0,
            attempt_kl_coef=self.turns.attempt_kl_coef,
        )

    @property
    def reuses_update_logprobs(self) -> bool:
        """True if the update's own log-probabilities serve as the old ones.

        With a single update the data are on-policy: old_logp = stop_gradient(logp) gives the same
        gradient as a forward pass before the update, and saves that pass. Importance weights,
        hints, replays and the k1 penalty need old_logp earlier; staleness needs older weights.
        """
        reasons = (self.importance_cap, self.turns.hint_share, self.replay_groups, self.staleness)
        return self.num_updates == 1 and not any(reasons) and self.objective.kl != 'k1'

    def row_length(self, player: Player) -> int:
        """Tokens of a row of one sample."""
        return self.length if player == 'actor' else self.critic_length

    def shared_prompt(
        self, player: Player, limits: Mapping[str, int], *, overhead: int
    ) -> SharedPrompt | None:
        """Layout of rows whose samples share a prompt; None with one sample per row.

        limits: tokens of a turn, by role; overhead: see actor_episodes.turn_overhead.
        """
        if self.samples_per_row == 1:
            return None
        response = self.longest_response(player, limits, overhead=overhead)
        return SharedPrompt(self.samples_per_row, self.row_length(player) - response, response)

    def longest_response(self, player: Player, limits: Mapping[str, int], *, overhead: int) -> int:
        """Returns the most tokens from a player's first token to its last trained token."""
        if player == 'critic':
            return limits['critique']
        return longest_response(self.turns.episode, limits, overhead=overhead)

    def imitates(self, player: Player) -> bool:
        """True if the player learns turns that were written for it (true_verdicts.py)."""
        return player == 'critic' and self.critiques == 'true'

    def reward_rules(self, player: Player) -> RewardRules:
        """Rules that turn a player's episodes into rewards and advantages."""
        rewards = self.rewards if player == 'actor' else self.critic_rewards
        implicit = player == 'actor' and self.implicit.beta > 0
        rules = (self.advantage, self.turns, self.overlong_tokens, implicit, self.imitates(player))
        return RewardRules(player, rewards, *rules)
