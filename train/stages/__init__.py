"""The stages of a run: for each name, its function and the function that builds the arguments.

    base -> actor -> critique (data) -> critic -> evaluate
                                               -> vanilla, critique_in_the_loop, ... (improve)
                                               -> reinforce, reinforce_critic, reinforce_both
                                               -> prefer, prefer_critic; average

A stage's function takes its folder and, by keyword, only what it uses; none takes the whole run, so
each can be called from Python as well.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from elenchus.data.files import episode_files
from elenchus.model import lora
from elenchus.model.transformer import Transformer
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.sampling.metrics.statistics import evenly_spaced
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config import players
from elenchus.train.config.run_settings import PREFERRED, REINFORCED
from elenchus.train.replayed_texts import Replay
from elenchus.train.run.directory import SUMMARY, read_json
from elenchus.train.run.samplers import Samplers
from elenchus.train.run.session import Run
from elenchus.train.stages import (
    actor,
    annotators,
    average,
    base_model,
    critic,
    critique_data,
    evaluate,
    improve_rounds,
    prefer,
    reinforce,
    self_talk,
    self_talk_data,
    sft,
)

PLAYERS = ('actor', 'critic')


class Stage(NamedTuple):
    """A stage: `run(stage=folder, **arguments(run))` returns its summary."""

    run: Callable[..., dict]
    arguments: Callable[[Run], dict[str, Any]]


def base_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `base`."""
    s, data = run.settings.base, run.settings.data
    model = lora.merge(run.load_saved(s.checkpoint)) if s.checkpoint else run.init_model()
    examples = ()
    if s.fit.num_steps:
        examples = base_model.base_examples(s, run.inputs, data=data)
    fit = _fit(run, 'base', s.fit)
    return {'checkpoint': s.checkpoint, 'model': model, 'examples': examples, **fit}


def actor_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `actor`."""
    s, inputs = run.settings.actor, run.inputs
    generated = [e for _, e in actor.generate_examples(s, inputs.chat, inputs.train_problems)]
    examples = [example for example in generated if example is not None]
    impossible = len(generated) - len(examples)
    model = _to_train(run, 'actor', s.lora, name='actor')
    return {
        'model': model,
        'examples': examples,
        'omitted': {'refinements_without_number': impossible},
        'replay': _replay(run),
        **_fit(run, 'actor', s.fit),
    }


def critic_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `critic`."""
    s, folder = run.settings.critic, run.directory.stage('critique').path / 'episodes'
    model = _to_train(run, 'critic', s.lora, name='critic', player='critic')
    examples = critic.critic_examples(run.inputs.chat, folder)
    return {'model': model, 'examples': examples, **_fit(run, 'critic', s.fit)}


def critique_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `critique`."""
    player, seed = run.load_model('actor'), derive_seed(run.settings.seed, 'critique')
    annotator = annotators.make_annotator(
        run.settings.critique,
        actor=player,
        model=_annotator_model(run),
        samplers=run.samplers,
        seed=seed,
    )
    return {
        'actor': player,
        'problems': run.inputs.train_problems,
        'settings': run.settings.critique,
        'annotator': annotator,
        'samplers': run.samplers,
        'seed': seed,
    }


def evaluate_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `evaluate`: the latest actor and critic before it."""
    models = (run.load_latest(player, before='evaluate') for player in PLAYERS)
    samplers = _samplers(run, 'evaluate')
    return {
        'pair': samplers.pair(*models),
        'problems': run.inputs.test_problems,
        'settings': run.settings.evaluate,
        'samplers': samplers,
        'seed': run.settings.seed,
        'base': _base_model(run),
    }


def improve_arguments(run: Run, *, explorer: str) -> dict[str, Any]:
    """Arguments of a stage of self-improvement."""
    s, inputs = run.settings.improve, run.inputs
    examples_of = (run.settings.actor, inputs.chat, inputs.train_problems)
    return {
        'explorer': explorer,
        'start': improve_rounds.SavedPair(*(run.start_folder(explorer, p) for p in PLAYERS)),
        'base': run.directory.model_folder('base'),
        'teacher': functools.partial(run.load_saved, s.teacher) if s.teacher else None,
        'settings': s,
        'train_problems': inputs.train_problems,
        'examples': {
            'demonstrations': actor.actor_examples(*examples_of, plain=s.demonstrations),
            'references': actor.demonstration_examples(*examples_of),
        },
        'retrain_critic': _critic_retrainer(run) if s.retrain_critic else None,
        **_shared(run, explorer),
    }


def reinforce_arguments(run: Run, *, stage: str) -> dict[str, Any]:
    """Arguments of a stage of reinforcement learning."""
    s, trained = run.settings.reinforce, REINFORCED[stage]
    models = {
        player: _to_train(run, stage, s.lora, name=f'reinforce {player}', player=player)
        if player in trained
        else run.store.load(run.start_folder(stage, player))
        for player in (('critic',) if players.is_one_model(run.settings, stage) else PLAYERS)
    }
    return {
        'pair': _samplers(run, stage).pair(**{'actor': models['critic']} | models),
        'train_problems': run.inputs.train_problems,
        'trained': trained,
        'settings': s,
        'teacher': run.load_saved(s.teacher) if s.teacher else None,
        **_shared(run, stage),
    }


def prefer_arguments(run: Run, *, stage: str) -> dict[str, Any]:
    """Arguments of a stage of preference optimisation."""
    return {
        'player': PREFERRED[stage],
        'start': improve_rounds.SavedPair(*(run.start_folder(stage, p) for p in PLAYERS)),
        'settings': run.settings.prefer,
        'train_problems': run.inputs.train_problems,
        **_shared(run, stage),
    }


def average_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `average`."""
    s = run.settings
    folders = {name: _actor_folder(run, name) for name in s.average.stages}
    return {
        'loads': {n: functools.partial(run.store.load, folder) for n, folder in folders.items()},
        'settings': s.average,
        'test_problems': run.inputs.test_problems,
        'evaluation': s.evaluate,
        'store': run.store,
        'samplers': _samplers(run, 'average'),
        'seed': s.seed,
    }


def self_talk_arguments(run: Run) -> dict[str, Any]:
    """Arguments of the stage `self_talk`."""
    s, problems = run.settings.self_talk, run.inputs.train_problems
    builder = self_talk_data.TalkBuilder(
        s,
        run.settings.critique,
        run.load_model('actor'),
        _annotator_model(run),
        {problem.id: problem for problem in problems},
        run.samplers,
        derive_seed(run.settings.seed, 'self_talk'),
    )
    criticised = episode_files.read_episodes(run.directory.stage('critique').path / 'episodes')
    return {
        'criticised': list(criticised),
        'builder': builder,
        'model': _to_train(run, 'self_talk', s.lora, name='self_talk'),
        'evaluated': _evaluated_curves(run),
        'settings': s,
        **_shared(run, 'self_talk'),
    }


STAGES: Mapping[str, Stage] = {
    'base': Stage(sft.base_stage, base_arguments),
    'actor': Stage(sft.sft_stage, actor_arguments),
    'critic': Stage(sft.sft_stage, critic_arguments),
    'critique': Stage(critique_data.make_critique_data, critique_arguments),
    'evaluate': Stage(evaluate.evaluate, evaluate_arguments),
    'self_talk': Stage(self_talk.self_talk_stage, self_talk_arguments),
    **{
        name: Stage(
            improve_rounds.improve_rounds, functools.partial(improve_arguments, explorer=name)
        )
        for name in EXPLORERS
    },
    **{
        name: Stage(reinforce.reinforce_stage, functools.partial(reinforce_arguments, stage=name))
        for name in REINFORCED
    },
    **{
        name: Stage(prefer.prefer_stage, functools.partial(prefer_arguments, stage=name))
        for name in PREFERRED
    },
    'average': Stage(average.average_stage, average_arguments),
}


def _samplers(run: Run, stage: str) -> Samplers:
    """Samplers of a stage: where its actor learnt self-talk, of talks."""
    longest = players.attempt_tokens(run.settings, stage)
    is_talk = players.descends_from(run.settings, stage, ancestor='self_talk')
    return run.samplers.of_talks(longest) if is_talk else run.samplers


def _shared(run: Run, stage: str) -> dict[str, Any]:
    """Arguments of all stages that train a player and evaluate it."""
    return {
        'test_problems': run.inputs.test_problems,
        'evaluation': run.settings.evaluate,
        'loop': run.settings.train,
        'store': run.store,
        'samplers': _samplers(run, stage),
        'seed': run.settings.seed,
    }


def _fit(run: Run, name: str, settings) -> dict[str, Any]:
    """Arguments of one supervised fit, whose data are ordered by `name`."""
    seed = derive_seed(run.settings.seed, name)
    return {'settings': settings, 'loop': run.settings.train, 'store': run.store, 'seed': seed}


def _replay(run: Run) -> Replay | None:
    """Returns what the fit of the actor replays: evenly spaced documents of the base."""
    s, data = run.settings.actor.replay, run.settings.data
    if not s.num_documents:
        return None
    documents = base_model.base_examples(run.settings.base, run.inputs, data=data)
    chosen = evenly_spaced(documents, s.num_documents)
    return Replay(s, chosen, seed=derive_seed(run.settings.seed, 'actor'))


def _to_train(
    run: Run, stage: str, settings: lora.LoraSettings, *, name: str, player: str = 'actor'
) -> Transformer:
    """Loads the model that a stage starts from, as it trains it: whole, or frozen under adapters.

    New adapters are drawn by `name`.
    """
    folder, seed = run.start_folder(stage, player), derive_seed(run.settings.seed, name)
    return run.store.load_to_train(folder, settings, seed=seed)


def _actor_folder(run: Run, stage: str) -> Any:
    """The folder of the actor that a stage made."""
    if stage == 'reinforce_both':
        return run.directory.stage(stage).path / 'actor' / 'model'
    return run.directory.model_folder(stage)


def _base_model(run: Run) -> Transformer | None:
    """Loads the model that the players were trained from; None if the run has none of its own."""
    if 'base' not in run.settings.stages:
        return None
    folder = run.directory.stage('base').path / 'model'
    return run.store.load(folder) if folder.exists() else None


def _annotator_model(run: Run) -> Transformer | None:
    """Loads the model that the run's annotator needs, if it needs one."""
    s = run.settings.critique
    if s.annotator == 'model':
        return run.load_saved(s.annotator_path)
    # On the lab, the base knows how a solution continues from a corrected line.
    on_lab = run.settings.data.source == 'lab'
    return run.load_model('base') if s.annotator == 'monte_carlo' and on_lab else None


def _critic_retrainer(run: Run) -> improve_rounds.RetrainCritic:
    """Returns the function that trains a critic for the actor of a round."""
    s, is_last = run.settings, run.settings.improve.restart == 'last'

    def retrain(folder, player, last_critic, *, number: int) -> dict:
        return critic.retrain_critic(
            folder.child('critic'),
            player,
            start=last_critic if is_last else run.start_folder('critic', 'critic'),
            number=number,
            problems=run.inputs.train_problems,
            settings=s.critic,
            critique=s.critique,
            annotator_model=_annotator_model(run),
            loop=s.train,
            store=run.store,
            samplers=run.samplers,
            seed=s.seed,
        )

    return retrain


def _evaluated_curves(run: Run) -> dict[str, list[dict]]:
    """Returns the curves of the stage `evaluate`; {} if it has not run."""
    if 'evaluate' not in run.settings.stages:
        return {}
    path = run.directory.stage('evaluate').path / SUMMARY
    if not path.exists():
        return {}
    curves = read_json(path)['curves']
    return {arm: curves[arm] for arm in self_talk.COMPARED_ARMS}
