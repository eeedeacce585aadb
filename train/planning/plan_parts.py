"""The parts of a memory plan: loads of training and sampling, phases, and arrays as shapes."""

import dataclasses
import functools

import jax

from elenchus.model import (
    lora,
    memory_estimate,
    quantization,
    transformer,
)
from elenchus.model.attention import inputs
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.train import optimizer as optimizers
from elenchus.train.objective import Objective
from elenchus.train.state import TrainState, init_state
from elenchus.train.step import Transform


@dataclasses.dataclass(frozen=True)
class TrainingLoad:
    """One kind of training step: a supervised fit, or an update of reinforcement learning."""

    name: str
    optimizer: optimizers.OptimizerSettings
    lora: lora.LoraSettings
    objective: Objective
    transform: Transform
    rows: int  # of a batch, over all devices
    length: int  # tokens of a row
    num_microbatches: int
    others: int  # models in memory beside the trained one: a reference, a critic
    logprobs: bool = False  # a pass of its own computes old or reference log-probabilities
    shared: inputs.SharedPrompt | None = None
    has_values: bool = False  # of a value model: its head has one output
    samples: bool = False  # on its own devices: its states are in memory while it samples
    bases_beside: int = 0  # whole models in memory beside the one that adapters are trained on
    each_part: bool = False  # one row per data and fsdp shard, no microbatches (`on_mesh`)
    teacher: ModelConfig | None = None  # a saved model whose log-probabilities are the reference's


@dataclasses.dataclass(frozen=True)
class SamplingLoad:
    """Decoding with one player while the other one stays in memory."""

    engine: EngineSettings
    players: TrainingLoad  # that trained them: two whole models, or adapters on one base
    score: ScoreShapes | None = None  # of the scoring pass
    teacher: ModelConfig | None = None  # a saved model that samples in the actor's place


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """The parts of a run's settings that determine its memory."""

    model: ModelConfig
    mesh: tuple[int, ...]  # data, fsdp, tensor, perhaps context; -1: the remaining devices
    quantize: quantization.Quantization  # of the frozen base under adapters
    trainings: tuple[TrainingLoad, ...]
    sampling: SamplingLoad | None


def on_mesh(plan: RunPlan, mesh: tuple[int, ...]) -> RunPlan:
    """Returns a plan on another mesh; trainings with `each_part` get a row per row shard."""
    rows = mesh[0] * mesh[1]
    trainings = (dataclasses.replace(t, rows=rows) if t.each_part else t for t in plan.trainings)
    return dataclasses.replace(plan, mesh=mesh, trainings=tuple(trainings))


OTHER_WEIGHTS, SLOTS = 'weights to start from and of other players', 'cache of the slots'
TRAINING_STATES = 'states of training beside it'
TEACHER = 'weights of the teacher'
PREFIXES = 'prefix caches beside it'
BESIDE = (
    OTHER_WEIGHTS,
    TEACHER,
    TRAINING_STATES,
    PREFIXES,
    'optimizer state beside it',
    'frozen base beside it',
    'head beside it',
)
"""Parts of a phase that are in memory while its program runs, but are no arguments of it."""


class Phase(dict):
    """Bytes on one device, by purpose."""

    def __or__(self, other) -> 'Phase':
        """Adds parts."""
        return Phase({**self, **other})

    @property
    def program(self) -> int:
        """Bytes of the program alone: its arguments, results and temporaries."""
        return self.total - sum(self.get(name, 0) for name in BESIDE)

    @property
    def total(self) -> int:
        """Bytes of all purposes together."""
        return sum(self.values())


@functools.cache
def abstract_model(config: ModelConfig) -> transformer.Transformer:
    """Model whose parameters are shapes without values."""
    return jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))


def teacher_bytes(training: TrainingLoad, mesh) -> int:
    """Bytes of a training's teacher on one device; 0 without one."""
    if training.teacher is None:
        return 0
    return memory_estimate.array_bytes(abstract_model(training.teacher), mesh)


@functools.cache
def abstract_state(
    config: ModelConfig,
    adapters: lora.LoraSettings,
    *,
    optimizer: optimizers.OptimizerSettings,
    quantize: quantization.Quantization,
) -> tuple[TrainState, transformer.Transformer | None]:
    """(train state, frozen base) as shapes; without adapters there is no frozen base."""
    trained, frozen = abstract_model(config), None
    if adapters.rank:
        frozen = jax.eval_shape(lambda model: quantization.quantize(model, quantize), trained)
        adaptation = lora.Adaptation(adapters, '', '', quantize)
        trained = jax.eval_shape(lambda: lora.init_adapters(config, adaptation, jax.random.key(0)))
    update = optimizers.make_optimizer(optimizer, num_steps=1)
    return jax.eval_shape(lambda trained: init_state(trained, update), trained), frozen


def abstract_player(plan: RunPlan) -> transformer.Transformer:
    """Player that samples, as shapes."""
    state, frozen = player_state(plan)
    player = jax.eval_shape(lora.join, state.model, frozen)
    kind = plan.sampling.engine.quantize
    return jax.eval_shape(functools.partial(quantization.quantize, kind=kind), player)


def player_state(plan: RunPlan) -> tuple[TrainState, transformer.Transformer | None]:
    """(train state, frozen base) of the players that sample, as shapes."""
    players = plan.sampling.players
    return abstract_state(
        plan.model, players.lora, optimizer=players.optimizer, quantize=plan.quantize
    )


def state_bytes(plan: RunPlan, training: TrainingLoad, mesh) -> tuple[int, int, int]:
    """Bytes on one device of (trained weights, optimizer state, frozen base)."""
    # Remat changes no array; without it the cache of abstract_state serves all variations.
    config = dataclasses.replace(plan.model, remat='none', remat_saved=(), remat_offloaded=())
    state, frozen = abstract_state(
        config, training.lora, optimizer=training.optimizer, quantize=plan.quantize
    )
    trained_bytes = memory_estimate.array_bytes(state.model, mesh)
    frozen_bytes = 0 if frozen is None else memory_estimate.array_bytes(frozen, mesh)
    return trained_bytes, memory_estimate.array_bytes(state, mesh) - trained_bytes, frozen_bytes
