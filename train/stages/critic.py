"""The critic: examples of critiques, and a critic that is retrained on a new actor's attempts."""

import os
from collections.abc import Sequence

from etils import epath

from elenchus.data.files import episode_files
from elenchus.data.records import Example, Problem
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling.seeds import derive_seed
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config.run_settings import CriticSettings, CritiqueSettings
from elenchus.train.loop import LoopSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.annotators import make_annotator
from elenchus.train.stages.critique_data import make_critique_data
from elenchus.train.stages.sft import sft_stage


def critic_examples(chat: Chat, folder: str | os.PathLike) -> list[Example]:
    """Returns (question, attempt -> critique) of every episode in a folder."""
    return [
        chat.example(episode.turns, trained=('critique',), weights=None, last_only=True)
        for episode in episode_files.read_episodes(folder)
    ]


def retrain_critic(
    stage: StageFolder,
    actor: Transformer,
    *,
    start: epath.Path,
    number: int,
    problems: Sequence[Problem],
    settings: CriticSettings,
    critique: CritiqueSettings,
    annotator_model: Transformer | None,
    loop: LoopSettings,
    store: ModelStore,
    samplers: Samplers,
    seed: int,
) -> dict:
    """Trains a critic on critiques of the actor of round `number`; saves it, returns a summary.

    Skipped if the folder has a summary. `start` is the saved model that is trained.
    """
    summary = stage.read_summary()
    if summary is None:
        with stage.recorded() as summary:
            noise = derive_seed(seed, 'critique', number)
            annotator = make_annotator(
                critique, actor=actor, model=annotator_model, samplers=samplers, seed=noise
            )
            summary |= make_critique_data(
                actor,
                problems,
                settings=critique,
                annotator=annotator,
                samplers=samplers,
                seed=noise,
                stage=stage,
            )
            summary |= sft_stage(
                stage,
                model=store.load_to_train(start, settings.lora, seed=derive_seed(seed, 'critic')),
                examples=critic_examples(samplers.inputs.chat, stage.path / 'episodes'),
                settings=settings.fit,
                loop=loop,
                store=store,
                seed=derive_seed(seed, 'critic', number),
            )
    return summary
