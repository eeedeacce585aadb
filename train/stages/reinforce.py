"""Reinforcement learning (GRPO and its relatives) of the actor, of the critic, or of both."""

from collections.abc import Sequence
from typing import Any

from elenchus.data.records import Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.config.stage_names import phase
from elenchus.train.loop import LoopSettings
from elenchus.train.rl import trainer
from elenchus.train.rl.settings import Player, ReinforceSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.evaluate import evaluate_actor, evaluate_with_critique


def grpo(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    trained: Sequence[Player] = ('actor',),
    settings: ReinforceSettings,
    loop: LoopSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder | None = None,
) -> tuple[dict[Player, Transformer], dict]:
    """Trains the players in `trained` by their rewards; returns them and totals.

    The objective is `settings.objective`: GRPO, or REINFORCE, RLOO, Dr. GRPO, DAPO, GSPO, CISPO.
    With a `stage`, metrics and checkpoints go into its folder, and training resumes there.
    """
    stage = stage or StageFolder.temporary()
    arguments = trainer_arguments(samplers, stage, seed=seed)
    options = {'trained': trained, 'settings': settings, 'loop': loop}
    with stage.metrics() as writer:
        return trainer.reinforce(pair, problems, writer=writer, **options, **arguments)


def trainer_arguments(samplers: Samplers, stage: StageFolder, *, seed: int) -> dict[str, Any]:
    """Returns the arguments of `trainer.reinforce` that follow from the run and its folder."""
    return {
        'scorer': samplers.scorer(),
        'method': samplers.method(),
        'folder': stage.path,
        'seed': derive_seed(seed, f'reinforce{phase(stage.path.name)}'),
    }


def reinforce_stage(
    stage: StageFolder,
    *,
    pair: ModelPair,
    train_problems: Sequence[Problem],
    test_problems: Sequence[Problem],
    trained: Sequence[Player],
    settings: ReinforceSettings,
    evaluation: EvaluateSettings,
    loop: LoopSettings,
    store: ModelStore,
    samplers: Samplers,
    seed: int,
    teacher: Transformer | None = None,
) -> dict:
    """Trains as `grpo` does, saves the trained players, and evaluates them; returns figures.

    An actor that is trained alone is evaluated alone, others with critique and refinement.
    The KL term distils the `teacher`.
    """
    arguments = trainer_arguments(samplers, stage, seed=seed)
    options = {'trained': trained, 'settings': settings, 'loop': loop, 'teacher': teacher}
    with stage.metrics() as writer:
        result, totals = trainer.reinforce(
            pair, train_problems, writer=writer, **options, **arguments
        )
    for player, model in result.items():
        folder = stage.path if len(result) == 1 else stage.path / player
        store.save(folder / 'model', model)
    options = {'settings': evaluation, 'samplers': samplers, 'seed': seed, 'stage': stage}
    if set(result) == {'actor'}:
        return evaluate_actor(result['actor'], test_problems, **options) | totals
    pair = samplers.pair(**{'actor': pair.actor, 'critic': pair.critic} | result)
    return evaluate_with_critique(pair, test_problems, **options) | totals
