"""A run's settings, all that a config says, and what their numbers must satisfy together."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from elenchus.data.records import PLAYER_OF_ROLE
from elenchus.model.config import ModelConfig
from elenchus.model.lora import LoraSettings
from elenchus.model.quantization import Quantization
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.exploration.context import ExploreSettings
from elenchus.sampling.exploration.controller import CandidateSettings, Controller
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time.beam import BeamSettings
from elenchus.sampling.test_time.strategies import Refine
from elenchus.train.loop import LoopSettings
from elenchus.train.rl.settings import Player, ReinforceSettings
from elenchus.train.sft import FitSettings

StageName = Literal[
    'base',
    'actor',
    'critique',
    'critic',
    'evaluate',
    'self_talk',
    'vanilla',
    'uniform',
    'critique_in_the_loop',
    'answer_driven',
    'rationale_driven',
    'interactive',
    'state_reset',
    'reinforce',
    'reinforce_critic',
    'reinforce_both',
]

REINFORCED: Mapping[str, tuple[Player, ...]] = {
    'reinforce': ('actor',),
    'reinforce_critic': ('critic',),
    'reinforce_both': ('actor', 'critic'),
}
"""The stages of reinforcement, and whom each trains."""

TemplateName = Literal[
    'elenchus', 'chatml', 'qwen2.5', 'llama2', 'llama3', 'llama3.1', 'mistral', 'gemma'
]


MAY_CHANGE = ('mesh', 'train.keep_checkpoints', 'train.nonfinite', 'train.compare_hosts_every')
"""Fields that a run may continue with other values of: what it computes stays the same, but that
another mesh adds up in another order."""


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    kind: Literal['lab', 'file', 'train']  # 'train': made from the training problems' text
    path: str  # of kind 'file': a tokenizer.model or tokenizer.json
    vocab_size: int  # of kind 'train'
    template: TemplateName  # 'elenchus' for kinds 'lab' and 'train', which have its headers


TextSource = Literal['gsm8k', 'gsm8k_socratic', 'math', 'svamp', 'asdiv', 'jsonl']


@dataclasses.dataclass(frozen=True)
class DataSettings:
    source: Literal['lab', TextSource]
    path: str  # a folder or file of the user's; '' for the public download or the generator
    test_source: Literal['', TextSource]  # of the test problems; '' where they are the source's
    test_path: str  # as path, of test_source
    data_dir: str  # where prepared data sets are kept
    seed: int  # of generated problems
    num_train: int
    num_test: int

    def __post_init__(self):
        if self.test_source and self.source == 'lab':
            raise ValueError(
                f"data.test_source={self.test_source!r} must be '' with data.source='lab', whose "
                'words and judge know no other problems'
            )
        if self.test_path and not self.test_source:
            raise ValueError(f'data.test_path={self.test_path!r} needs data.test_source')


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    engine: EngineSettings
    attempt_tokens: int
    critique_tokens: int
    refinement_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    score: ScoreShapes
    part_size: int  # problems a file of episodes; a stage resumes after the last whole one

    @property
    def limits(self) -> dict[str, int]:
        """Tokens a turn may have, by role."""
        return {role: getattr(self, f'{role}_tokens') for role in PLAYER_OF_ROLE}


@dataclasses.dataclass(frozen=True)
class BaseShares:
    """Shares of the kinds of documents that the lab's base model is trained on; they sum to 1."""

    drill: float  # look-ups and sums alone
    worked: float  # every quantity derived in small steps
    attempt: float
    critique: float
    refinement: float

    def __post_init__(self):
        total = sum(dataclasses.astuple(self))
        if min(dataclasses.astuple(self)) < 0 or abs(total - 1) > 1e-6:
            raise ValueError(f'base.shares={self} must be at least 0 and sum to 1, not {total}')


@dataclasses.dataclass(frozen=True)
class BaseSettings:
    checkpoint: str  # a saved model to start from, relative to the project; '' is fresh weights
    num_documents: int
    shares: BaseShares
    fit: FitSettings  # of no steps: the checkpoint as it is
    quantize: Quantization  # how adapters' frozen base is held


@dataclasses.dataclass(frozen=True)
class ActorSettings:
    num_problems: int
    refinements_per_problem: int  # (question, flawed attempt, critique -> solution) examples
    guided_per_problem: int  # (question, guide -> solution) examples, each kind of guide by turns
    teacher_error_rate: float  # share of sums that the lab's teacher gets wrong
    fit: FitSettings
    lora: LoraSettings  # of rank 0: all weights are trained


@dataclasses.dataclass(frozen=True)
class CritiqueSettings:
    num_problems: int
    num_attempts: int  # RG1, a problem
    num_relocated: int  # RG2: right attempts resampled from a line on
    num_inserted: int  # RG3: a named mistake put in at a line
    raised_temperature: float  # of RG2
    annotator: Literal['oracle', 'monte_carlo', 'model', 'file']
    annotator_path: str  # a saved model or a file of critiques, relative to the project; else ''
    num_rollouts: int  # of 'monte_carlo', from each line's end
    rollout_threshold: float  # share of them that reach the answer below which the line is wrong
    filter_samples: int  # refinements of each wrong path by which its critique is judged; 0: none
    filter_successes: int  # of them that must be right
    correct_share: float  # of kept paths, at most: the critic must see right ones too
    level_balance: float  # flawed paths of the rarest level to those of the commonest, at least


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    checkpoint: str  # a saved model to start from, of any size; '': the base
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    num_problems: int
    num_attempts: int
    refine: Refine  # 'wrong': only what the critic calls wrong or garbles
    num_rounds: int  # of critique and refinement; 1 is none beyond the first
    oracle: bool  # refine the truly wrong attempts as well: an upper bound
    beam: BeamSettings
    num_draws: int  # sets of k attempts that stand for all of them
    num_bins: int  # of calibration and uncertainty
    num_resamples: int
    confidence: float


@dataclasses.dataclass(frozen=True)
class SelfTalkSettings:
    num_examples: int  # criticised attempts that talks begin with, at most
    num_rounds: int  # refinements after which the answer must be right
    tokens: int  # of an answer, at most
    learn_mistakes: bool  # whether lines called wrong are learnt too, beside what is said of them
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
class ImproveSettings:
    num_problems: int
    num_rounds: int
    restart: Literal['base', 'last']  # what a round trains: the base, or the last round's actor
    demonstrations: bool  # whether the actor's demonstrations are trained on beside its own data
    explore: ExploreSettings
    weighting: Literal['keep', 'score', 'steps', 'advantage']
    balance: Literal['none', 'question']  # 'question': the responses of one share a weight
    num_monitored: int  # responses whose perplexity, questions whose scores are told; 0: none
    controller: Controller  # 'balance': knobs of every round by balance scores
    candidates: CandidateSettings  # what it chooses from
    retrain_critic: bool  # every round, on critiques of its new actor's attempts
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Everything a config says."""

    seed: int
    mesh: tuple[int, int, int]
    stages: tuple[StageName, ...]
    model: ModelConfig
    tokenizer: TokenizerSettings
    data: DataSettings
    sampling: SamplingSettings
    train: LoopSettings
    base: BaseSettings
    actor: ActorSettings
    critique: CritiqueSettings
    critic: CriticSettings
    evaluate: EvaluateSettings
    self_talk: SelfTalkSettings
    improve: ImproveSettings
    reinforce: ReinforceSettings
