"""Settings of a run as typed sections; configs/defaults.py has every field with its comment.

A number's range is its type (model/ranges.py); a section checks what depends on several of its
fields when it is built, checks.py what depends on other sections.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from elenchus.data.critiques.calculator.annotator import Form
from elenchus.data.grading.judge import AnswerSettings
from elenchus.data.lab.forms import FormName
from elenchus.data.records import PLAYER_OF_ROLE
from elenchus.data.text.prompts import Prompts
from elenchus.model.config import ModelConfig
from elenchus.model.lora import LoraSettings
from elenchus.model.quantization import Quantization
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
from elenchus.sampling.engine.sampling_methods import MinP, Temperature, TopK, TopP
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.exploration.context import ExploreSettings
from elenchus.sampling.exploration.controller import CandidateSettings, Controller
from elenchus.sampling.metrics.measures import CONDITIONS, MEASURES, check_names
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time.beam import BeamSettings
from elenchus.sampling.test_time.strategies import Refine
from elenchus.sampling.test_time.uptake import UptakeSettings
from elenchus.train.config.stage_names import StageName, StartName
from elenchus.train.loop import LoopSettings
from elenchus.train.response_weights import WEIGHTINGS
from elenchus.train.rl.settings import Player, ReinforceSettings
from elenchus.train.sft import FitSettings
from elenchus.train.watchdog import WatchdogSettings

REINFORCED: Mapping[str, tuple[Player, ...]] = {
    'reinforce': ('actor',),
    'reinforce_critic': ('critic',),
    'reinforce_both': ('actor', 'critic'),
}
"""Stage of reinforcement learning -> the players that it trains."""

TemplateName = Literal[
    *('elenchus', 'chatml', 'qwen2.5', 'qwen2.5-math', 'qwen3'),
    *('llama2', 'llama3', 'llama3.1', 'mistral', 'gemma'),
    *('auto', 'auto:no_thinking'),
]
ProblemCount = Annotated[int, Range(1, 10_000_000)]
ExampleCount = Annotated[int, Range(0, 10_000)]  # of one problem
ResampleCount = Annotated[int, Range(1, 1_000_000)]
Rounds = Annotated[int, Range(1, 1000)]
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


TextSource = Literal['gsm8k', 'gsm8k_socratic', 'math', 'svamp', 'asdiv', 'jsonl']


@dataclasses.dataclass(frozen=True)
@checked('data')
class DataSettings:
    """The problems of a run."""

    source: Literal['lab', TextSource]
    path: str  # your folder or file; '' for the public download or the lab's generator
    test_source: Literal['', TextSource]  # of the test problems; '': the same source
    test_path: str  # as path, for test_source
    test_split: Literal['test', 'validation']  # of the test problems; 'validation' is to tune on
    data_dir: str  # folder of prepared data sets, in the working directory
    too_long: Literal['refuse', 'drop']  # questions for which there is no room
    form: FormName  # of the lab's problems
    seed: Seed  # of generated problems
    num_train: ProblemCount
    num_test: ProblemCount
    answer: AnswerSettings

    def __post_init__(self):
        if self.test_source and self.source == 'lab':
            raise ValueError(
                f"data.test_source={self.test_source!r} must be '' with data.source='lab', whose "
                'words and judge know no other problems'
            )
        if self.test_path and not self.test_source:
            raise ValueError(f'data.test_path={self.test_path!r} needs data.test_source')


@dataclasses.dataclass(frozen=True)
@checked('sampling')
class SamplingSettings:
    """Sampling of turns and scoring of steps."""

    engine: EngineSettings
    attempt_tokens: Length
    critique_tokens: Length
    refinement_tokens: Length
    temperature: Temperature
    top_k: TopK
    top_p: TopP
    min_p: MinP
    score: ScoreShapes
    part_size: PositiveInt  # problems in a file of episodes; a stage resumes after the last file

    @property
    def limits(self) -> dict[str, int]:
        """Longest turn in tokens, by role."""
        return {role: getattr(self, f'{role}_tokens') for role in PLAYER_OF_ROLE}


@dataclasses.dataclass(frozen=True)
@checked('base.shares')
class BaseShares:
    """Mixture of documents of the lab's base model; the shares sum to 1."""

    drill: Share  # look-ups and sums alone
    worked: Share  # every quantity derived in small steps
    attempt: Share
    critique: Share
    refinement: Share

    def __post_init__(self):
        total = sum(dataclasses.astuple(self))
        if abs(total - 1) > 1e-6:
            raise ValueError(f'base.shares={self} must sum to 1, not {total}')


@dataclasses.dataclass(frozen=True)
@checked('base')
class BaseSettings:
    """The stage `base`: the model that actor and critic start from."""

    checkpoint: str  # saved model to start from; '': random weights
    num_documents: PositiveInt
    shares: BaseShares
    fit: FitSettings  # 0 steps: the checkpoint is used unchanged
    quantize: Quantization  # of the frozen base under adapters


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
    # Refinements that test the critique of a wrong attempt; 0: no filter.
    filter_samples: ExampleCount
    filter_successes: ExampleCount  # of them that must be right
    filter: Literal['refinements', 'random']  # 'random': rejects as many flawed ones of each level
    correct_share: Annotated[float, Range(0.0, 0.999)]  # of right attempts among the data, at most
    level_balance: Share  # flawed attempts of the rarest level / of the most frequent, at least

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


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """The stage `critic`: supervised fine-tuning on critiques."""

    checkpoint: str  # saved model to start from, of any size; '': that of `start`
    start: StartName
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
@checked('evaluate')
class EvaluateSettings:
    """The stage `evaluate`: accuracy and cost with and without critique."""

    num_problems: ProblemCount
    num_attempts: SampleCount
    refine: Refine  # 'wrong': only what the critic calls wrong or garbles
    num_rounds: Rounds  # of critique and refinement; 1 is none beyond the first
    oracle: bool  # also refine what is truly wrong: an upper bound
    uptake: UptakeSettings
    beam: BeamSettings
    num_draws: ResampleCount  # subsets of attempts that estimate a majority of k
    num_bins: SampleCount  # of calibration and uncertainty
    num_resamples: ResampleCount
    confidence: Annotated[float, Range(0.01, 0.9999)]
    budget: NonNegativeInt  # processed tokens a question; 0: no choice is reported
    measures: tuple[Annotated[str, MEASURES], ...]  # further figures, of one's own
    conditions: tuple[Annotated[str, CONDITIONS], ...]  # guides before attempts

    def __post_init__(self):
        check_names('evaluate', measures=self.measures, conditions=self.conditions)
        if self.beam.width and not 1 <= self.beam.num_problems <= self.num_problems:
            raise ValueError(
                f'evaluate.beam.num_problems={self.beam.num_problems} must be in '
                f'[1, {self.num_problems}], evaluate.num_problems'
            )


@dataclasses.dataclass(frozen=True)
@checked('self_talk')
class SelfTalkSettings:
    """The stage `self_talk`: one model that attempts, criticises and corrects in one turn."""

    num_examples: PositiveInt  # criticised attempts that talks start from, at most
    num_rounds: Rounds  # refinements after which the answer must be right
    tokens: Length  # longest talk
    learn_mistakes: bool  # also train lines that are called wrong
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
    responses: Literal['sampled', 'none', 'references']  # trained on beside the demonstrations
    num_references: NonNegativeInt  # reference solutions of explored problems, with 'references'
    deduplicate: bool  # equal responses to a problem are trained on once
    weighting: Annotated[str, WEIGHTINGS]  # of a response's tokens
    threshold: PositiveShare  # least critic's score of a response, with weighting 'threshold'
    balance: Literal['none', 'question']  # 'question': responses to one question share a weight
    num_monitored: NonNegativeInt  # responses whose perplexity and scores are reported; 0: none
    controller: Controller  # 'balance': chooses temperature and threshold every round
    candidates: CandidateSettings  # that it chooses from
    retrain_critic: bool  # every round, on critiques of the new actor's attempts
    fit: FitSettings
    lora: LoraSettings

    def __post_init__(self):
        if self.controller != 'none' and self.candidates.num_problems > self.num_problems:
            raise ValueError(
                f'improve.candidates.num_problems={self.candidates.num_problems} must be at most '
                f'{self.num_problems}, improve.num_problems'
            )
        if self.weighting == 'threshold' and self.controller != 'none':
            raise ValueError(
                f"improve.weighting='threshold' and improve.controller={self.controller!r} both "
                "set a threshold: use weighting='keep' or controller='none'"
            )
        self._check_responses()

    def _check_responses(self) -> None:
        if self.responses == 'sampled':
            return
        if self.weighting != 'keep' or self.controller != 'none':
            raise ValueError(
                f'improve.responses={self.responses!r} has no sampled responses to score: use '
                "improve.weighting='keep' and improve.controller='none'"
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
    base: BaseSettings
    actor: ActorSettings
    critique: CritiqueSettings
    critic: CriticSettings
    evaluate: EvaluateSettings
    self_talk: SelfTalkSettings
    improve: ImproveSettings
    reinforce: ReinforceSettings
