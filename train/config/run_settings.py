"""Settings of a run as typed sections; configs/defaults.py has every field with its comment.

A section checks its own fields when it is built (not all fields have a range yet); checks.py checks
what depends on other sections.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from elenchus.data.grading.judge import AnswerSettings
from elenchus.data.lab.forms import FormName
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
from elenchus.sampling.test_time.uptake import UptakeSettings
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
"""Stage of reinforcement learning -> the players that it trains."""

TemplateName = Literal[
    *('elenchus', 'chatml', 'qwen2.5', 'qwen2.5-math', 'qwen3'),
    *('llama2', 'llama3', 'llama3.1', 'mistral', 'gemma'),
]


MAY_CHANGE = ('mesh', 'train.keep_checkpoints', 'train.nonfinite', 'train.compare_hosts_every')
"""Fields that may change when a run is continued: they do not change its result.

(A different mesh changes only the order of summation.)"""


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """The tokenizer and its chat template."""

    kind: Literal['lab', 'file', 'train']  # 'train': trained on the training problems
    path: str  # of kind 'file': a tokenizer.model or tokenizer.json
    vocab_size: int  # of kind 'train'
    template: TemplateName  # 'elenchus' for kinds 'lab' and 'train', which have its headers
    system: str  # system message; 'published': that of the template, '': none


TextSource = Literal['gsm8k', 'gsm8k_socratic', 'math', 'svamp', 'asdiv', 'jsonl']


@dataclasses.dataclass(frozen=True)
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
    seed: int  # of generated problems
    num_train: int
    num_test: int
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
class SamplingSettings:
    """Sampling of turns and scoring of steps."""

    engine: EngineSettings
    attempt_tokens: int
    critique_tokens: int
    refinement_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    score: ScoreShapes
    part_size: int  # problems in a file of episodes; a stage resumes after the last file

    @property
    def limits(self) -> dict[str, int]:
        """Longest turn in tokens, by role."""
        return {role: getattr(self, f'{role}_tokens') for role in PLAYER_OF_ROLE}


@dataclasses.dataclass(frozen=True)
class BaseShares:
    """Mixture of documents of the lab's base model; the shares sum to 1."""

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
    """The stage `base`: the model that actor and critic start from."""

    checkpoint: str  # saved model to start from; '': random weights
    num_documents: int
    shares: BaseShares
    fit: FitSettings  # 0 steps: the checkpoint is used unchanged
    quantize: Quantization  # of the frozen base under adapters


@dataclasses.dataclass(frozen=True)
class ActorSettings:
    """The stage `actor`: supervised fine-tuning on solutions and refinements."""

    num_problems: int
    refinements_per_problem: int  # (question, flawed attempt, critique -> solution) examples
    guided_per_problem: int  # (question, guide -> solution) examples, kinds of guides in turn
    level_decay: float  # share of demonstrations that a level keeps of the level before
    fit: FitSettings
    lora: LoraSettings  # rank 0: all weights are trained

    def __post_init__(self):
        if not 0 <= self.level_decay <= 1:
            raise ValueError(f'actor.level_decay={self.level_decay} must be in [0, 1]')


@dataclasses.dataclass(frozen=True)
class CritiqueSettings:
    """The stage `critique`: critique data by AutoMathCritique (arXiv 2411.16579)."""

    num_problems: int
    num_attempts: int  # RG1: from scratch, per problem
    num_relocated: int  # RG2: right attempts resampled from a line on
    num_inserted: int  # RG3: a named mistake inserted at a line
    raised_temperature: float  # of RG2
    annotator: Literal['oracle', 'monte_carlo', 'model', 'file']
    annotator_path: str  # saved model or file of critiques; else ''
    num_rollouts: int  # of 'monte_carlo': continuations from the end of each line
    rollout_threshold: float  # a line is wrong if a smaller share of them reach the answer
    filter_samples: int  # refinements that test the critique of a wrong attempt; 0: no filter
    filter_successes: int  # of them that must be right
    filter: Literal['refinements', 'random']  # 'random': rejects as many flawed ones of each level
    correct_share: float  # of right attempts among the data, at most
    level_balance: float  # flawed attempts of the rarest level / of the most frequent, at least

    def __post_init__(self):
        least = {'num_attempts': 1, 'num_relocated': 0, 'num_inserted': 0}
        _check_least('critique', self, least | {'num_rollouts': 1, 'filter_samples': 0})
        if not 0 <= self.filter_successes <= self.filter_samples:
            raise ValueError(
                f'critique.filter_successes={self.filter_successes} must be in '
                f'[0, {self.filter_samples}], the number of critique.filter_samples'
            )
        if self.filter == 'random' and not self.filter_samples:
            raise ValueError(
                "critique.filter='random' rejects as many attempts as refinements would: set "
                'critique.filter_samples above 0'
            )
        for name in ('rollout_threshold', 'level_balance'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'critique.{name}={getattr(self, name)} must be in [0, 1]')
        if not 0 <= self.correct_share < 1:
            raise ValueError(f'critique.correct_share={self.correct_share} must be in [0, 1)')


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """The stage `critic`: supervised fine-tuning on critiques."""

    checkpoint: str  # saved model to start from, of any size; '': the base
    fit: FitSettings
    lora: LoraSettings


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The stage `evaluate`: accuracy and cost with and without critique."""

    num_problems: int
    num_attempts: int
    refine: Refine  # 'wrong': only what the critic calls wrong or garbles
    num_rounds: int  # of critique and refinement; 1 is none beyond the first
    oracle: bool  # also refine what is truly wrong: an upper bound
    uptake: UptakeSettings
    beam: BeamSettings
    num_draws: int  # subsets of attempts that estimate a majority of k
    num_bins: int  # of calibration and uncertainty
    num_resamples: int
    confidence: float
    budget: int  # processed tokens a question; 0: no choice is reported

    def __post_init__(self):
        counts = ('num_attempts', 'num_rounds', 'num_draws', 'num_bins', 'num_resamples')
        _check_least('evaluate', self, dict.fromkeys(counts, 1) | {'budget': 0})
        if not 0 < self.confidence < 1:
            raise ValueError(
                f'evaluate.confidence={self.confidence} must be in (0, 1), such as 0.95'
            )
        if self.beam.width and not 1 <= self.beam.num_problems <= self.num_problems:
            raise ValueError(
                f'evaluate.beam.num_problems={self.beam.num_problems} must be in '
                f'[1, {self.num_problems}], evaluate.num_problems'
            )


@dataclasses.dataclass(frozen=True)
class SelfTalkSettings:
    """The stage `self_talk`: one model that attempts, criticises and corrects in one turn."""

    num_examples: int  # criticised attempts that talks start from, at most
    num_rounds: int  # refinements after which the answer must be right
    tokens: int  # longest talk
    learn_mistakes: bool  # also train lines that are called wrong
    fit: FitSettings
    lora: LoraSettings

    def __post_init__(self):
        _check_least('self_talk', self, {'num_examples': 1, 'num_rounds': 1, 'tokens': 1})


@dataclasses.dataclass(frozen=True)
class ImproveSettings:
    """The stages of self-improvement, one for each explorer."""

    num_problems: int
    num_rounds: int
    restart: Literal['base', 'last']  # a round trains the base, or the last round's actor
    demonstrations: bool  # also train on the actor's demonstrations
    explore: ExploreSettings
    responses: Literal['sampled', 'none', 'references']  # trained on beside the demonstrations
    num_references: int  # reference solutions of explored problems, with 'references'
    deduplicate: bool  # equal responses to a problem are trained on once
    weighting: Literal['keep', 'threshold', 'score', 'steps', 'advantage']
    threshold: float  # least critic's score of a response, with weighting 'threshold'
    balance: Literal['none', 'question']  # 'question': responses to one question share a weight
    num_monitored: int  # responses whose perplexity and scores are reported; 0: none
    controller: Controller  # 'balance': chooses temperature and threshold every round
    candidates: CandidateSettings  # that it chooses from
    retrain_critic: bool  # every round, on critiques of the new actor's attempts
    fit: FitSettings
    lora: LoraSettings

    def __post_init__(self):
        _check_least('improve', self, {'num_rounds': 1, 'num_monitored': 0})
        least = {'num_attempts': 1, 'num_refinements': 1, 'min_correct': 1, 'keep': 1}
        counts = ('num_guided_rounds', 'num_uniform_rounds', 'token_budget', 'keep_refined')
        _check_least('improve.explore', self.explore, least | dict.fromkeys(counts, 0))
        if self.controller != 'none' and self.candidates.num_problems > self.num_problems:
            raise ValueError(
                f'improve.candidates.num_problems={self.candidates.num_problems} must be at most '
                f'{self.num_problems}, improve.num_problems'
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f'improve.threshold={self.threshold} must be in (0, 1], such as 0.5')
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
class RunSettings:
    """The whole config."""

    seed: int
    mesh: tuple[int, int, int]
    matmul_precision: Literal['float32', 'tensorfloat32', 'bfloat16']  # of float32 products
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


def _check_least(section: str, settings: object, least: Mapping[str, int]) -> None:
    """Raises ValueError if a field is below its least value."""
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise ValueError(f'{section}.{name}={getattr(settings, name)} must be at least {value}')
