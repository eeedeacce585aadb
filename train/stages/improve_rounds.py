"""Rounds of self-improvement on disk: each starts from the last, a complete one is skipped."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.records import Example, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling.metrics import measures
from elenchus.sampling.seeds import derive_seed
from elenchus.train.checkpoints import saved_models
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config.run_settings import EvaluateSettings, ImproveSettings
from elenchus.train.loop import LoopSettings
from elenchus.train.run.directory import QUESTIONS, StageFolder, link_tree, read_json
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.evaluate import evaluate_actor
from elenchus.train.stages.improve import improve


class SavedPair(NamedTuple):
    """Folders of the models that a round starts with."""

    actor: epath.Path
    critic: epath.Path


RetrainCritic = Callable[..., dict]
"""(folder of the round, its new actor, the last critic, number=) -> summary.

Saves the new critic in the folder's `critic/model`.
"""


def improve_rounds(
    stage: StageFolder,
    *,
    explorer: str,
    start: SavedPair,
    base: epath.Path,
    teacher: Callable[[], Transformer] | None,  # loads who responds in the actor's place
    settings: ImproveSettings,
    evaluation: EvaluateSettings,
    train_problems: Sequence[Problem],
    test_problems: Sequence[Problem],
    examples: Mapping[str, Sequence[Example]],  # demonstrations and references of `improve`
    retrain_critic: RetrainCritic | None,
    loop: LoopSettings,
    store: ModelStore,
    samplers: Samplers,
    seed: int,
) -> dict:
    """Runs the rounds of one explorer; returns the last one's figures, and all in `rounds`."""
    rounds, options = [], {'samplers': samplers, 'seed': seed}
    to_train = {'settings': settings.lora, 'seed': derive_seed(seed, explorer)}
    for number in range(1, settings.num_rounds + 1):
        folder = stage.child(f'round-{number}')
        source = base if settings.restart == 'base' else start.actor
        summary = folder.read_summary()
        if summary is None:
            with folder.recorded() as summary:
                load_explorer = teacher or functools.partial(store.load, start.actor)
                actor, totals, figures = improve(
                    samplers.pair(load_explorer(), store.load(start.critic)),
                    train_problems,
                    explorer=explorer,
                    settings=settings,
                    load_trained=functools.partial(store.load_to_train, source, **to_train),
                    loop=loop,
                    **(examples | options | {'number': number, 'rounds': rounds, 'stage': folder}),
                )
                store.save(folder.path / 'model', actor)
                measured = evaluate_actor(actor, test_problems, evaluation, stage=folder, **options)
                summary |= totals | measured | figures
                if retrain_critic:
                    add_critic(summary, retrain_critic(folder, actor, start.critic, number=number))
            store.release()
        rounds.append(summary)
        critic = folder.path / 'critic' / 'model' if retrain_critic else start.critic
        start = SavedPair(folder.path / 'model', critic)
    save_last(stage, start.actor, store)
    own = measures.measure_rounds(settings.measures, rounds)
    return rounds[-1] | total_tokens(rounds) | {'rounds': rounds} | own


def total_tokens(rounds: Sequence[dict]) -> dict[str, int]:
    """Returns the token counts of all rounds together."""
    counts = ('tokens_sampled', 'tokens_trained', 'tokens_padding', 'tokens_monitored')
    return {name: sum(summary[name] for summary in rounds) for name in counts}


def add_critic(summary: dict, critic_summary: dict) -> None:
    """Adds the summary of a retrained critic, and its tokens, to that of the round."""
    summary['retrained_critic'] = critic_summary
    for count in ('tokens_sampled', 'tokens_trained', 'tokens_padding'):
        summary[count] += critic_summary[count]


def save_last(stage: StageFolder, actor: epath.Path, store: ModelStore) -> None:
    """Makes the last round's actor and its questions.json the stage's own.

    Models are hard links where they are possible.
    """
    questions = actor.parent / QUESTIONS
    if questions.exists():  # a round of an earlier version has none
        stage.write_questions(read_json(questions))
    # Adapters store a relative path to their base, and buckets have no links.
    if saved_models.saved_adaptation(actor) is not None or atomic.is_remote(stage.path):
        store.save(stage.path / 'model', store.load(actor))
    else:
        link_tree(actor, stage.path / 'model')
