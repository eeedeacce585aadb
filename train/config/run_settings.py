"""A run's settings, all that a config says, and what their numbers must satisfy together."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from elenchus.data.text.chat import PLAYED
from elenchus.model.config import ModelConfig
from elenchus.model.lora import LoraSettings
from elenchus.model.weights import Quantize
from elenchus.sampling.engine.engine import EngineSettings
from elenchus.sampling.exploration.context import ExploreSettings
from elenchus.sampling.exploration.controller import CandidateSettings, Controller
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time.beam import BeamSettings
from elenchus.sampling.test_time.strategies import Refine
from elenchus.train.rl.rollouts import ROLES, Player, written_tokens
from elenchus.train.rl.trainer import ReinforceSettings
from elenchus.train.sft import FitSettings, LoopSettings

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
        return {role: getattr(self, f'{role}_tokens') for role in PLAYED}


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
    quantize: Quantize  # how adapters' frozen base is held


@dataclasses.dataclass(frozen=True)
class ActorSettings:
    num_problems: int
    refinements_per_problem: int  # (question, flawed attempt, critique -> solution) examples
    guided_per_problem: int  # (question, guide -> solution) examples, each kind of guide by turns
    misconceptions: float  # share of sums that the actor's teacher is prone to get wrong (lab)
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


def check_counts(s: RunSettings) -> None:
    """Raises ValueError where a stage asks for more problems or samples than there are."""
    for name, asked, limit in (
        ('actor.num_problems', s.actor.num_problems, s.data.num_train),
        ('critique.num_problems', s.critique.num_problems, s.data.num_train),
        ('improve.num_problems', s.improve.num_problems, s.data.num_train),
        ('reinforce.num_problems', s.reinforce.num_problems, s.data.num_train),
        ('evaluate.num_problems', s.evaluate.num_problems, s.data.num_test),
    ):
        if not 1 <= asked <= limit:
            raise ValueError(f'{name}={asked} must be in [1, {limit}]')
    if not 0 <= s.actor.misconceptions <= 1:
        raise ValueError(f'actor.misconceptions={s.actor.misconceptions} must be in [0, 1]')
    for name in ('num_examples', 'num_rounds', 'tokens'):
        if getattr(s.self_talk, name) < 1:
            raise ValueError(f'self_talk.{name}={getattr(s.self_talk, name)} must be at least 1')
    _check_improve(s.improve)
    check_critique(s.critique, temperature=s.sampling.temperature)
    _check_evaluate(s.evaluate)
    if s.reinforce.critic_rewards.located and s.data.source != 'lab':
        raise ValueError(
            f'reinforce.critic_rewards.located={s.reinforce.critic_rewards.located} needs known '
            f'first errors, which data.source={s.data.source!r} has not: set it to 0'
        )


def check_lora(s: RunSettings) -> None:
    """Raises ValueError where a stage's adapters contradict what they are put on."""
    sections = {'actor': s.actor, 'critic': s.critic}
    trained_on = {('reinforce', p) for stage in s.stages for p in REINFORCED.get(stage, ())}
    if s.improve.restart == 'last':
        trained_on.add(('improve', 'actor'))
    for name, player in sorted(trained_on):
        own, given = sections[player].lora, getattr(s, name).lora
        if own.rank and given != own:
            raise ValueError(
                f'{name}.lora={given} trains the adapters of the {player} on: it must be '
                f'{player}.lora={own}'
            )
    if s.base.quantize == 'none':
        return
    for stage in s.stages:
        section = trained_by(s, stage)
        if section is not None and not section.lora.rank:
            raise ValueError(
                f'base.quantize={s.base.quantize!r} is of a base frozen under adapters, but stage '
                f"{stage!r} trains all weights: set its lora.rank, or base.quantize='none'"
            )


def trained_by(s: RunSettings, stage: str):
    """The section of a stage that trains a player; None of others."""
    own = {'actor': s.actor, 'critic': s.critic, 'self_talk': s.self_talk}
    own |= dict.fromkeys(REINFORCED, s.reinforce)
    return s.improve if stage in EXPLORERS else own.get(stage)


def _check_improve(s: ImproveSettings) -> None:
    explore = s.explore
    for name, value, least in (
        ('num_rounds', s.num_rounds, 1),
        ('num_monitored', s.num_monitored, 0),
        ('explore.num_attempts', explore.num_attempts, 1),
        ('explore.num_refinements', explore.num_refinements, 1),
        ('explore.num_guided_rounds', explore.num_guided_rounds, 0),
        ('explore.num_uniform_rounds', explore.num_uniform_rounds, 0),
        ('explore.enough', explore.enough, 1),
        ('explore.token_budget', explore.token_budget, 0),
        ('explore.keep', explore.keep, 1),
        ('explore.keep_refined', explore.keep_refined, 0),
    ):
        if value < least:
            raise ValueError(f'improve.{name}={value} must be at least {least}')
    if s.controller != 'none' and s.candidates.num_problems > s.num_problems:
        raise ValueError(
            f'improve.candidates.num_problems={s.candidates.num_problems} must be at most '
            f'{s.num_problems}, improve.num_problems'
        )


def _check_evaluate(s: EvaluateSettings) -> None:
    for name in ('num_attempts', 'num_rounds', 'num_draws', 'num_bins', 'num_resamples'):
        if getattr(s, name) < 1:
            raise ValueError(f'evaluate.{name}={getattr(s, name)} must be at least 1')
    if not 0 < s.confidence < 1:
        raise ValueError(f'evaluate.confidence={s.confidence} must be in (0, 1), such as 0.95')
    if s.beam.width and not 1 <= s.beam.num_problems <= s.num_problems:
        raise ValueError(
            f'evaluate.beam.num_problems={s.beam.num_problems} must be in [1, {s.num_problems}], '
            'evaluate.num_problems'
        )


def check_critique(s: CritiqueSettings, *, temperature: float) -> None:
    """Raises ValueError where a number of the critique data makes no sense."""
    for name, least in (
        ('num_attempts', 1),
        ('num_relocated', 0),
        ('num_inserted', 0),
        ('raised_temperature', temperature),
        ('num_rollouts', 1),
        ('filter_samples', 0),
    ):
        if getattr(s, name) < least:
            raise ValueError(f'critique.{name}={getattr(s, name)} must be at least {least}')
    if not 0 <= s.filter_successes <= s.filter_samples:
        raise ValueError(
            f'critique.filter_successes={s.filter_successes} must be in [0, {s.filter_samples}], '
            'the number of critique.filter_samples'
        )
    for name in ('rollout_threshold', 'level_balance'):
        if not 0 <= getattr(s, name) <= 1:
            raise ValueError(f'critique.{name}={getattr(s, name)} must be in [0, 1]')
    if not 0 <= s.correct_share < 1:
        raise ValueError(f'critique.correct_share={s.correct_share} must be in [0, 1)')


def check_lengths(
    s: RunSettings,
    longest_question: int,
    *,
    longest_guide: int = 0,
    longest_hint: int = 0,
    overhead: int = 1,
) -> None:
    """Raises ValueError where a conversation of the longest turns would not fit a shape.

    A guide is shown to an annotator behind the attempt, a hint to the actor behind the question.
    `overhead` is the most tokens that stand between two turns.
    """
    sampling = s.sampling
    attempt = longest_question + overhead + sampling.attempt_tokens
    criticised = attempt
    if s.evaluate.num_rounds > 1:  # a refinement becomes the next round's attempt
        criticised = max(attempt, longest_question + overhead + sampling.refinement_tokens)
    critique = criticised + overhead + sampling.critique_tokens
    refinement = critique + overhead + sampling.refinement_tokens
    hinted = longest_question + longest_hint
    prompt = max(critique, attempt + longest_guide, hinted) + overhead
    talked = longest_question + overhead + s.self_talk.tokens
    alone = hinted + overhead + sampling.attempt_tokens
    whole = max(refinement, critique + longest_guide, alone, talked)
    written = {
        p: written_tokens(p, s.reinforce.turns.episode, sampling.limits, overhead=overhead)
        for p in ROLES
    }
    for name, size, needed in (
        ('reinforce.length', s.reinforce.length, overhead + longest_question + written['actor']),
        (
            'reinforce.critic_length',
            s.reinforce.critic_length,
            overhead + attempt + written['critic'],
        ),
        ('sampling.score.lengths[-1]', sampling.score.lengths[-1], critique),
        ('sampling.engine.prompt_buckets[-1]', sampling.engine.prompt_buckets[-1], prompt),
        ('sampling.engine.max_length', sampling.engine.max_length, whole),
        ('model.max_length', s.model.max_length, sampling.engine.max_length),
        ('model.max_length', s.model.max_length, s.train.length),
    ):
        if size < needed:
            shown = max(longest_guide, longest_hint)
            guide = f' and the longest guide {shown}' if shown else ''
            raise ValueError(
                f'{name}={size} must be at least {needed}: the longest question has '
                f'{longest_question} tokens{guide}; set it so, or self_talk.tokens and '
                'sampling.*_tokens lower'
            )
