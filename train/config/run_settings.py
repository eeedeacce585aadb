"""Settings of a run as typed sections; configs/defaults.py has every field with its comment.

A number's range is its type (model/ranges.py); a section checks what depends on several of its
fields when it is built, checks.py what depends on other sections.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from elenchus.data.critiques.calculator.annotator import Form
from elenchus.data.text.prompts import Prompts
from elenchus.model.config import ModelConfig
from elenchus.model.lora import LoraSettings
from elenchus.model.ranges import (
    Length,
    NonNegativeInt,
    PositiveInt,
    PositiveShare,
    Range,
    SampleCount,
    Seed,
    Share,
    checked,
)
from elenchus.sampling.critique_data.api_settings import ApiSettings
from elenchus.sampling.critique_data.references import RightPaths
from elenchus.sampling.critique_data.splices import SPLICES
from elenchus.sampling.critique_data.step_labels import LABELS
from elenchus.sampling.engine.sampling_methods import Temperature
from elenchus.sampling.exploration.context import ExploreSettings
from elenchus.sampling.exploration.controller import CandidateSettings
from elenchus.sampling.exploration.making import MAKES
from elenchus.sampling.exploration.round_changes import CONTROLLERS, tries_candidates
from elenchus.sampling.metrics.measures import ROUND_MEASURES, check_names
from elenchus.train.config.base_settings import BaseSettings
from elenchus.train.config.data_settings import DataSettings
from elenchus.train.config.evaluate_settings import EvaluateSettings, ProblemCount, Rounds
from elenchus.train.config.prefer_settings import AverageSettings, PreferSettings
from elenchus.train.config.sampling_settings import SamplingSettings
from elenchus.train.config.stage_names import StageName, StartName
from elenchus.train.loop import LoopSettings
from elenchus.train.metrics.tracking import TrackingSettings
from elenchus.train.replayed_texts import ReplaySettings
from elenchus.train.response_weights import WEIGHTINGS
from elenchus.train.rl.settings import Player, ReinforceSettings
from elenchus.train.sft import FitSettings
from elenchus.train.watchdog import WatchdogSettings

REINFORCED: Mapping[str, tuple[Player, ...]] = {
    'reinforce': ('actor',),
    'reinforce_2': ('actor',),
    'reinforce_3': ('actor',),
    'reinforce_critic': ('critic',),
    'reinforce_both': ('actor', 'critic'),
}
"""Stage of reinforcement learning -> the players that it trains; `_2` and `_3` are `reinforce`
again, in a run of several phases."""
PREFERRED: Mapping[str, Player] = {'prefer': 'actor', 'prefer_critic': 'critic'}
"""Stage of preference optimisation -> the player that it trains."""

TemplateName = Literal[
    *('elenchus', 'chatml', 'qwen2.5', 'qwen2.5-math', 'qwen3'),
    *('llama2', 'llama3', 'llama3.1', 'mistral', 'gemma'),
    *('auto', 'auto:no_thinking'),
]
ExampleCount = Annotated[int, Range(0, 10_000)]  # of one problem
MeshSize = Annotated[int, Range(1, 1 << 20, off=-1)]


@dataclasses.dataclass(frozen=True)
@checked('tokenizer')
class TokenizerSettings:
    """The tokenizer and its chat template."""

    kind: Literal['lab', 'file', 'train']  # 'train': trained on the training problems
    path: str  # of kind 'file': a tokenizer.model or tokenizer.json
    vocab_size: Annotated[int, Range(0, 1 << 24)]  # of kind 'train'
    template: TemplateName  # 'elenchus' for kinds 'lab' and 'train', which have its headers
    system: str  # system message; 'published': that of the template, '': none

    def __post_init__(self):
        if self.kind == 'train' and not self.vocab_size:
            raise ValueError(
                "tokenizer.vocab_size=0 leaves tokenizer.kind='train' no pieces; nearest: 512"
            )


@dataclasses.dataclass(frozen=True)
@checked('actor')
class ActorSettings:
    """The stage `actor`: supervised fine-tuning on solutions and refinements."""

    num_problems: ProblemCount
    refinements_per_problem: ExampleCount  # (question, flawed attempt, critique -> solution)
    # (question, guide -> solution) examples, kinds of guides in turn.
    guided_per_problem: ExampleCount
    critiques: Literal['stated', 'calculator']  # of refinements in free text
    level_decay: Share  # share of demonstrations that a level keeps of the level before
    start: StartName
    replay: ReplaySettings  # documents of the base that the fit replays
    fit: FitSettings
    lora: LoraSettings  # rank 0: all weights are trained


@dataclasses.dataclass(frozen=True)
@checked('critique')
class CritiqueSettings:
    """The stage `critique`: critique data by AutoMathCritique (arXiv 2411.16579)."""

    num_problems: ProblemCount
    num_attempts: SampleCount  # RG1: from scratch, per problem
    num_relocated: ExampleCount  # RG2: right attempts resampled from a line on
    num_inserted: ExampleCount  # RG3: a named mistake inserted at a line
    references: RightPaths  # right paths beside the sampled ones
    raised_temperature: Temperature  # of RG2
    annotator: Literal['oracle', 'calculator', 'monte_carlo', 'model', 'file', 'api']
    annotator_path: str  # saved model or file of critiques; else ''
    form: Form  # of 'calculator': where a critique stops
    api: ApiSettings
    num_rollouts: SampleCount  # of 'monte_carlo': continuations from the end of each line
    rollout_threshold: Share  # a line is wrong if a smaller share of them reach the answer
    labels: Annotated[str, LABELS]  # how lines are labelled from the results of these rollouts
    # Refinements that test the critique of a wrong attempt; 0: no filter.
    filter_samples: ExampleCount
    filter_successes: ExampleCount  # least number of them that must be right
    filter: Literal['refinements', 'random']  # 'random': a control that rejects as many per level
    correct_share: Annotated[float, Range(0.0, 0.999)]  # largest share of right attempts
    level_balance: Share  # least ratio of flawed attempts, rarest level to most frequent

    def __post_init__(self):
        if self.filter_successes > self.filter_samples:
            raise ValueError(
                f'critique.filter_successes={self.filter_successes} must be at most '
                f'{self.filter_samples}, critique.filter_samples; nearest: {self.filter_samples}'
            )
        if self.filter == 'random' and not self.filter_samples:
            raise ValueError(
                "critique.filter='random' rejects as many attempts as refinements would: set "
                'critique.filter_samples above 0'
            )

    @property
    def most_attempts(self) -> int:
        """Most attempts at a problem, of all constructions."""
        constructed = self.num_attempts + self.num_relocated + self.num_inserted
        return constructed + (self.references != 'none')


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """The stage `critic`: supervised fine-tuning on critiques."""

    checkpoint: str  # saved model to start from, of any size; '': that of `start`
    start: StartName
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
@checked('self_talk')
class SelfTalkSettings:
    """The stage `self_talk`: one model that attempts, criticises and corrects in one turn."""

    num_examples: PositiveInt  # criticised attempts that talks start from, at most
    num_rounds: Rounds  # refinements after which the answer must be right
    tokens: Length  # longest talk
    learn_mistakes: bool  # also train lines that are called wrong
    splice: Annotated[str, SPLICES]  # text of wrong lines, remarks and right lines
    start: StartName
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
@checked('improve')
class ImproveSettings:
    """The stages of self-improvement, one for each explorer."""

    num_problems: ProblemCount
    num_rounds: Rounds
    restart: Literal['base', 'last']  # a round trains the base, or the last round's actor
    start: StartName  # of the actor that explores first
    critic_start: StartName
    demonstrations: bool  # also train on the actor's demonstrations
    explore: ExploreSettings
    teacher: str  # saved model that responds in the actor's place; '': none
    responses: Literal['sampled', 'none', 'references']  # trained on beside the demonstrations
    num_references: NonNegativeInt  # reference solutions of explored problems, with 'references'
    deduplicate: bool  # equal responses to a problem are trained on once
    make: Annotated[str, MAKES]  # makes further problems to explore from the given ones
    trains: tuple[Literal['response', 'refinement'], ...]  # examples: after question, or critique
    weighting: Annotated[str, WEIGHTINGS]  # of a response's tokens
    threshold: PositiveShare  # least critic's score of a response, with weighting 'threshold'
    balance: Literal['none', 'question']  # 'question': responses to one question share a weight
    num_monitored: NonNegativeInt  # responses whose perplexity and scores are reported; 0: none
    controller: Annotated[str, CONTROLLERS]  # changes fields of a round before it starts
    candidates: CandidateSettings  # what the controller 'balance' chooses from
    retrain_critic: bool  # every round, on critiques of the new actor's attempts
    measures: tuple[Annotated[str, ROUND_MEASURES], ...]  # user functions: figures of all rounds
    fit: FitSettings
    lora: LoraSettings

    def __post_init__(self):
        tries = tries_candidates(self.controller)
        if tries and self.candidates.num_problems > self.num_problems:
            raise ValueError(
                f'improve.candidates.num_problems={self.candidates.num_problems} must be at most '
                f'{self.num_problems}, improve.num_problems'
            )
        if self.weighting == 'threshold' and tries:
            raise ValueError(
                f"improve.weighting='threshold' and improve.controller={self.controller!r} both "
                "set a threshold: use weighting='keep' or controller='none'"
            )
        check_names('improve', measures=self.measures)
        if not self.trains or len(set(self.trains)) < len(self.trains):
            nearest = tuple(dict.fromkeys(self.trains)) or ('response',)
            raise ValueError(
                f'improve.trains={self.trains} must be one or more different turns; '
                f'nearest: {nearest}'
            )
        self._check_responses()

    def _check_responses(self) -> None:
        if self.responses == 'sampled':
            return
        if self.weighting != 'keep' or tries_candidates(self.controller):
            raise ValueError(
                f'improve.responses={self.responses!r} has no sampled responses to score: use '
                "improve.weighting='keep' and improve.controller='none'"
            )
        if self.teacher:
            raise ValueError(
                f'improve.teacher={self.teacher!r} responds to nothing with improve.responses='
                f"{self.responses!r}; nearest: 'sampled'"
            )
        if self.make != 'none' or self.trains != ('response',):
            raise ValueError(
                f'improve.responses={self.responses!r} explores nothing: use improve.make='
                f"'none', not {self.make!r}, and improve.trains=('response',), not {self.trains}"
            )
        if self.responses == 'references' and not 1 <= self.num_references <= self.num_problems:
            raise ValueError(
                f'improve.num_references={self.num_references} must be in '
                f'[1, {self.num_problems}], improve.num_problems'
            )


@dataclasses.dataclass(frozen=True)
@checked('config')
class RunSettings:
    """The whole config."""

    seed: Seed
    mesh: tuple[MeshSize, MeshSize, MeshSize]
    context: Annotated[int, Range(1, 1 << 20)]
    matmul_precision: Literal['float32', 'tensorfloat32', 'bfloat16']  # of float32 products
    stages: tuple[StageName, ...]
    model: ModelConfig
    tokenizer: TokenizerSettings
    prompts: Prompts
    data: DataSettings
    sampling: SamplingSettings
    train: LoopSettings
    watchdog: WatchdogSettings
    tracking: TrackingSettings
    base: BaseSettings
    actor: ActorSettings
    critique: CritiqueSettings
    critic: CriticSettings
    evaluate: EvaluateSettings
    self_talk: SelfTalkSettings
    improve: ImproveSettings
    prefer: PreferSettings
    average: AverageSettings
    reinforce: ReinforceSettings
