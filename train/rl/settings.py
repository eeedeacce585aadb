"""Settings of reinforcement learning, and the rules of reward that follow from them."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax

from elenchus.data.text.chat import Chat
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.lora import LoraSettings
from elenchus.sampling.test_time.strategies import Refine
from elenchus.train.loop import LoopSettings
from elenchus.train.objective import Objective
from elenchus.train.optimizer import OptimizerSettings
from elenchus.train.rl.advantages import Baseline
from elenchus.train.rl.rewards import ActorRewards, CriticRewards

Player = Literal['actor', 'critic']

TRAINED_ROLES: Mapping[Player, tuple[str, ...]] = {
    'actor': ('attempt', 'refinement'),
    'critic': ('critique',),
}
"""Player -> roles of the turns that it writes and is trained on."""


@dataclasses.dataclass(frozen=True)
class AdvantageSettings:
    """Conversion of the rewards of a group to advantages.

    Advantage of a step = outcome_coef * A(return of its turn) + step_coef * A(step). The second
    term exists for attempts only.
    """

    outcome: Literal['grpo', 'dr_grpo', 'rloo']  # formulas in rl/advantages.py
    epsilon: float  # added to the standard deviation ('grpo', 'normalised')
    outcome_coef: float
    step_coef: float  # 0 = off: the critic then scores steps only if a reward reads the scores
    steps: Literal['normalised', 'difference']  # GRPO's process supervision; V's differences
    std_floor: float  # least standard deviation that 'normalised' divides by; 0 = off
    unreached: Literal['zero', 'mask']  # steps after a finished critique's error: 0, or unknown
    baseline: Baseline  # of 'normalised': all steps of the group, or those of a position
    shuffle_scores: bool  # control: the step scores of a group are permuted

    def __post_init__(self):
        if not self.epsilon > 0:
            raise ValueError(
                f'reinforce.advantage.epsilon={self.epsilon} must be above 0: equal rewards would '
                'be divided by 0; nearest: 1e-8'
            )
        if self.std_floor < 0:
            raise ValueError(
                f'reinforce.advantage.std_floor={self.std_floor} must be at least 0; 0 is off'
            )
        if self.steps == 'difference' and (self.std_floor or self.baseline != 'group'):
            raise ValueError(
                f"reinforce.advantage.steps='difference' reads neither std_floor={self.std_floor} "
                f"nor baseline={self.baseline!r}: set them to 0.0 and 'group'"
            )


@dataclasses.dataclass(frozen=True)
class TurnSettings:
    """Turns of an actor's episode, and the division of credit among them.

    'correction': attempt, refinement (SCoRe, arXiv 2409.12917). 'critique': attempt, the critic's
    critique, refinement (feedback inside rollouts as in ThinkTuning, arXiv 2508.07616). The return
    of a turn is its own reward plus `discount` times the return of the next turn.

    SCoRe's stage I: in the first `first_phase_steps` iterations attempts earn no reward of their
    own, return that of the refinement, and are kept close to the reference by `attempt_kl_coef`.

    Guide-GRPO (arXiv 2506.13923): if all attempts at a problem fail, it is attempted again with a
    hint. Training drops the hint and takes the ratio on the plain prompt.
    """

    episode: Literal['attempt', 'correction', 'critique']
    attempt: float  # weight of the attempt's reward
    refinement: float  # weight of the refinement's reward
    progress: float  # SCoRe's alpha: bonus of the refinement per reward gained over the attempt
    discount: float  # in [0, 1]
    first_phase_steps: int  # iterations of SCoRe's stage I; 0 = off
    attempt_kl_coef: float  # KL coefficient on attempts in stage I
    hint_share: float  # share of the solution's lines given as a hint; 0 = no hints
    correction: str  # 'correction' under a family's template: the user's instruction; '' = SCoRe's

    def __post_init__(self):
        if self.first_phase_steps and (self.episode == 'attempt' or self.attempt_kl_coef <= 0):
            raise ValueError(
                f'reinforce.turns.first_phase_steps={self.first_phase_steps} needs '
                f"episode='correction' or 'critique', not {self.episode!r}, and attempt_kl_coef "
                f'above 0, not {self.attempt_kl_coef}'
            )
        if not 0 <= self.hint_share <= 1:
            raise ValueError(f'reinforce.turns.hint_share={self.hint_share} must be in [0, 1]')


class RewardRules(NamedTuple):
    """Everything that determines the rewards and advantages of one player's episodes."""

    player: Player
    rewards: ActorRewards | CriticRewards
    advantage: AdvantageSettings
    turns: TurnSettings
    overlong_tokens: int

    @property
    def needs_step_scores(self) -> bool:
        """True if the critic must score the steps of the actor's attempts."""
        r = self.rewards
        in_reward = isinstance(r, ActorRewards) and (r.steps or r.verdict)
        return self.player == 'actor' and bool(in_reward or self.advantage.step_coef)

    @property
    def needs_refinement_scores(self) -> bool:
        """True if a reward reads scores of refinements too, which a critique of them gives."""
        r = self.rewards
        in_reward = isinstance(r, ActorRewards) and (r.steps or r.verdict)
        return bool(in_reward) and self.turns.episode != 'attempt'


@dataclasses.dataclass(frozen=True)
class ReinforceSettings:
    """Reinforcement of a player: sampling, rewards, updates and memory layout of an iteration.

    An iteration samples `num_samples` episodes of each of `num_problems` problems; for the critic,
    `num_samples` critiques of one attempt at each problem.
    """

    num_steps: int  # iterations
    token_budget: int  # no iteration starts once this many tokens are sampled; 0 = no limit
    num_problems: int  # groups of an iteration
    num_samples: int  # episodes of a group
    num_refinements: int  # of each critique, if its helpfulness is rewarded
    refine: Refine  # which critiques for that; 'wrong': not those that call the attempt correct
    refill_rounds: int  # rounds that replace groups of zero variance; 0 = off (DAPO)
    num_minibatches: int  # updates of an epoch
    num_epochs: int  # passes over an iteration's samples
    length: int  # tokens of an actor's row: the longest conversation up to its last turn
    critic_length: int  # tokens of a critic's row: the longest conversation up to the critique
    advantage: AdvantageSettings
    turns: TurnSettings
    rewards: ActorRewards
    critic_rewards: CriticRewards
    overlong_tokens: int  # tokens before a turn's limit over which its length penalty grows
    mask_truncated: bool  # turns that were cut off at their limit have loss mask 0 (DAPO)
    importance_cap: float  # C of the token weight min(exp(trainer - sampler logp), C); 0 = off
    drop_zero_advantage_rows: bool  # skip rows that cannot affect the gradient of the objective
    samples_per_row: int  # samples of a group in one row behind their common prompt; 1 = separate
    checkpoint_every: int  # iterations
    objective: Objective
    optimizer: OptimizerSettings
    lora: LoraSettings  # adapters of the trained player; must equal those it already has

    def __post_init__(self):
        if self.objective.surrogate == 'dpo':
            raise ValueError("reinforce.objective.surrogate='dpo' needs pairs; use another one")
        for name in ('num_minibatches', 'num_epochs', 'num_refinements', 'overlong_tokens'):
            if getattr(self, name) < 1:
                raise ValueError(f'reinforce.{name}={getattr(self, name)} must be at least 1')
        if self.num_samples < 2:
            raise ValueError(
                f'reinforce.num_samples={self.num_samples} must be at least 2: the advantage of a '
                f'sample (reinforce.advantage.outcome={self.advantage.outcome!r}) is its distance '
                'from the others of its group; nearest: 2'
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
        if self.num_updates > 1 and self.objective.on_policy:
            raise ValueError(
                f'reinforce.objective.on_policy=True with {self.num_updates} updates an iteration: '
                'set it to False, or num_minibatches and num_epochs to 1'
            )
        if self.importance_cap and self.importance_cap < 1:
            raise ValueError(f'reinforce.importance_cap={self.importance_cap} must be 0 or >= 1')

    @property
    def rows(self) -> int:
        """Rows of an iteration's batch."""
        return self.num_problems * self.num_samples // self.samples_per_row

    @property
    def num_updates(self) -> int:
        """Updates of an iteration."""
        return self.num_minibatches * self.num_epochs

    @property
    def reuses_update_logprobs(self) -> bool:
        """True if the update's own log-probabilities serve as the old ones.

        With a single update the data are on-policy: old_logp = stop_gradient(logp) has the same
        gradient as a forward pass before the update, and saves that pass. Importance weights, hints
        and the k1 penalty need the policy's log-probabilities earlier.
        """
        needed_before = self.importance_cap or self.turns.hint_share or self.objective.kl == 'k1'
        return self.num_updates == 1 and not needed_before

    def row_length(self, player: Player) -> int:
        """Tokens of a row of one sample."""
        return self.length if player == 'actor' else self.critic_length

    def shared_prompt(
        self, player: Player, limits: Mapping[str, int], *, overhead: int
    ) -> SharedPrompt | None:
        """Layout of rows whose samples share a prompt; None with one sample per row.

        Arguments as of max_response_tokens.
        """
        if self.samples_per_row == 1:
            return None
        response = max_response_tokens(player, self.turns.episode, limits, overhead=overhead)
        return SharedPrompt(self.samples_per_row, self.row_length(player) - response, response)

    def reward_rules(self, player: Player) -> RewardRules:
        """Rules that turn a player's episodes into rewards and advantages."""
        rewards = self.rewards if player == 'actor' else self.critic_rewards
        return RewardRules(player, rewards, self.advantage, self.turns, self.overlong_tokens)


def turn_overhead(chat: Chat, episode: str) -> int:
    """Returns the largest number of template tokens between two turns of an actor's episode."""
    return chat.correction_overhead if episode == 'correction' else chat.overhead


def max_response_tokens(
    player: Player, episode: str, limits: Mapping[str, int], *, overhead: int
) -> int:
    """Returns the longest distance from a player's first token to its last trained token.

    limits: tokens of a turn, by role; overhead: template tokens between two turns (turn_overhead).
    """
    if player == 'critic':
        return limits['critique']
    roles = {
        'attempt': ('attempt',),
        'correction': ('attempt', 'refinement'),
        'critique': ('attempt', 'critique', 'refinement'),
    }[episode]
    return sum(limits[role] for role in roles) + overhead * (len(roles) - 1)


def check_rows(settings: ReinforceSettings, loop: LoopSettings, mesh: jax.sharding.Mesh) -> int:
    """Returns the number of parts into which mesh and microbatches split the rows of an update.

    Raises ValueError if a minibatch does not divide into them.
    """
    rows = settings.rows // settings.num_minibatches
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * loop.num_microbatches
    if rows % parts:
        raise ValueError(
            f'reinforce.num_problems * num_samples / samples_per_row / num_minibatches = {rows} '
            f'does not divide over data * fsdp * num_microbatches = {parts}; nearest: '
            f'{max(1, rows // parts) * parts}'
        )
    return parts
