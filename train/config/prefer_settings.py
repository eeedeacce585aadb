"""Settings of the stages of preference optimisation, and of `average`."""

import dataclasses
from typing import Annotated, Literal

from elenchus.model.lora import LoraSettings
from elenchus.model.ranges import (
    Coefficient,
    NonNegativeInt,
    PositiveInt,
    Range,
    SampleCount,
    checked,
)
from elenchus.sampling.exploration.context import ExploreSettings
from elenchus.sampling.test_time.gates import Refine
from elenchus.train.config.stage_names import StageName, StartName
from elenchus.train.pair_rules import PAIR_RULES
from elenchus.train.preferences import PairLoss
from elenchus.train.sft import FitSettings


@dataclasses.dataclass(frozen=True)
@checked('prefer')
class PreferSettings:
    """The stages `prefer` and `prefer_critic`: groups of responses, pairs of them, one loss.

    A round samples with the players at its start. Its reference model is the trained player as it
    was at the start of the round.
    """

    start: StartName  # stage whose actor it begins with
    critic_start: StartName  # stage whose critic it begins with
    num_problems: Annotated[int, Range(1, 10_000_000)]  # training problems of a round
    num_rounds: Annotated[int, Range(1, 1000)]
    restart: Literal['start', 'last']  # a round trains the first model, or the last round's
    # What samples the actor's groups.
    explorer: Literal['vanilla', 'critique_in_the_loop', 'tree_search']
    num_attempts: SampleCount  # at each problem
    num_critiques: SampleCount  # of each attempt: a group of the critic
    # Of each refined attempt, in the loop; of each critique, whose help they measure; 0: none.
    num_refinements: Annotated[int, Range(0, 10_000)]
    refine: Refine  # attempts in the loop: those with a wrong answer, or 'always'
    pairs: Annotated[str, PAIR_RULES]  # groups to pairs
    keep: PositiveInt  # pairs of a question, at most
    prompt: Literal['question', 'conversation']  # prompt of an actor's response in training
    mask_common: bool  # tokens that both responses begin with are not trained
    length: NonNegativeInt  # tokens of a row, which holds whole pairs; 0: train.length
    loss: PairLoss
    fit: FitSettings
    lora: LoraSettings

    def __post_init__(self):
        if self.fit.reweigh != 'none' and self.loss.reads_reference:
            # Offsets and z0 are a shift of the reference's log-probability of one token.
            raise ValueError(
                f'prefer.fit.reweigh={self.fit.reweigh!r} with prefer.loss.kind='
                f'{self.loss.kind!r} would weigh the offset of a pair by the factor of one token; '
                "nearest: 'none'"
            )

    @property
    def ids_per_question(self) -> int:
        """Number of request ids that one question may use."""
        return self.num_attempts * self.num_critiques * max(1, self.num_refinements)

    @property
    def explore(self) -> ExploreSettings:
        """Settings of the explorer, which keeps all that it samples."""
        return ExploreSettings(
            num_attempts=self.num_attempts,
            num_refinements=max(1, self.num_refinements),
            refine=self.refine,
            num_guided_rounds=0,
            num_uniform_rounds=0,
            min_correct=1,
            token_budget=0,
            keep=1,
            keep_refined=0,
            critiques='own',
            guides='own',
            teacher='critic',
            accept='right',
            player_guide='none',
            opening='none',
        )


@dataclasses.dataclass(frozen=True)
@checked('average')
class AverageSettings:
    """The stage `average`: an actor whose weights are the mean of those of other stages' actors."""

    stages: tuple[StageName, ...]  # whose actors are averaged
    weights: tuple[Coefficient, ...]  # of the stages; they are divided by their sum; (): equal

    def __post_init__(self):
        if self.weights and len(self.weights) != len(self.stages):
            raise ValueError(
                f'average.weights={self.weights} must be one for each of average.stages='
                f'{self.stages}; nearest: ()'
            )
        if self.weights and not sum(self.weights):
            raise ValueError(f'average.weights={self.weights} must not all be 0; nearest: ()')
