"""Self-improvement: a round samples responses, selects and weights them, trains and evaluates.

A round with one explorer, on a folder:

    candidates/   what the controller tried, if there is one
    explored/     everything that the explorer sampled
    considered/   responses with the critic's scores, if selection or weights need them
    episodes/     the responses that are trained on
    checkpoints/, model/, test/, critic/ (if the critic is retrained)
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from elenchus.data.records import Episode, Example, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.exploration import selection
from elenchus.sampling.exploration.explorers import explore
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config.run_settings import ImproveSettings
from elenchus.train.config.stage_names import phase
from elenchus.train.loop import LoopSettings
from elenchus.train.response_weights import WEIGHTINGS, response_weights
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import round_writing
from elenchus.train.stages.improve_figures import coverage_figures
from elenchus.train.stages.round_settings import RoundSettings, settings_of_round
from elenchus.train.stages.scoring import score_responses
from elenchus.train.stages.sft import sft
from elenchus.train.stages.unsampled import unsampled_responses


def improve(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    explorer: str,
    settings: ImproveSettings,
    load_trained: Callable[[], Transformer] | None = None,
    demonstrations: Sequence[Example] = (),
    references: Sequence[Example] = (),
    loop: LoopSettings,
    samplers: Samplers,
    seed: int,
    number: int = 1,
    rounds: Sequence[Mapping] = (),
    stage: StageFolder | None = None,
) -> tuple[Transformer, dict, dict]:
    """Runs one round of self-improvement; returns the new actor, totals of training, and figures.

    A copy of the pair's actor is fine-tuned on the selected responses and the `demonstrations`.
    `load_trained` returns another model to train; it is called after exploration, to save memory.
    The selected responses are compared with `references` (question -> solution). With
    `settings.responses` other than 'sampled' nothing is explored (`unsampled`). `number` counts
    rounds from 1; each has its own noise, the same for all explorers. `rounds` are the summaries of
    those before, for the controller.
    """
    stage = stage or StageFolder.temporary()
    options = {'number': number, 'seed': seed, 'stage': stage}
    chosen = settings_of_round(
        pair,
        problems,
        rounds=rounds,
        settings=settings,
        samplers=samplers,
        **options,
    )
    options |= {'chosen': chosen, 'explorer': explorer, 'rows': loop.rows}
    examples, figures = round_examples(pair, problems, references, **options)
    actor, totals = sft(
        load_trained() if load_trained else pair.actor,
        [*demonstrations, *examples],
        settings=chosen.settings.fit,
        loop=loop,
        seed=derive_seed(seed, f'round-{number}'),
        stage=stage,
    )
    return actor, totals, figures


def round_examples(
    pair: ModelPair,
    problems: Sequence[Problem],
    references: Sequence[Example],
    *,
    chosen: RoundSettings,
    explorer: str,
    number: int,
    rows: int,
    seed: int,
    stage: StageFolder,
) -> tuple[list[Example], dict]:
    """Returns the examples of round `number` besides the demonstrations, and its figures."""
    settings, problems = chosen.settings, problems[: chosen.settings.num_problems]
    if settings.responses != 'sampled':
        examples, figures = unsampled_responses(pair, problems, settings=settings, stage=stage)
        changes = {k: v for k, v in chosen.figures.items() if k == 'changes'}
        return examples, figures | changes
    options = {'settings': settings, 'samplers': chosen.samplers, 'stage': stage}
    numbered = options | {'number': number, 'seed': seed}
    problems, written, for_written = round_writing.with_derived_problems(pair, problems, **numbered)
    memory = round_writing.memory_before(stage, settings, number=number)
    named = {'explorer': explorer, 'temperature': chosen.temperature, 'memory': memory}
    explored, num_tokens = sample_explored(pair, problems, **named, **numbered)
    learnt, count = round_writing.with_learnt(pair, problems, explored, memory=memory, **numbered)
    for_written += count
    examples, figures, for_kept = selected_examples(
        pair, explored, references, threshold=chosen.threshold, rows=rows, **options
    )
    figures |= chosen.figures | written | learnt
    figures['exploration']['tokens'] = num_tokens
    figures['tokens_sampled'] = num_tokens + for_kept + for_written + chosen.tokens
    return examples, figures


def selected_examples(
    pair: ModelPair,
    explored: Sequence[Episode],
    references: Sequence[Example],
    *,
    threshold: float,
    rows: int,
    **options,
) -> tuple[list[Example], dict, int]:
    """Selects and weights responses; returns them as examples, the figures, and tokens of scoring.

    `options` are those of `select_responses`, `rows` the batch size of perplexities.
    """
    kept, num_tokens = select_responses(pair, explored, threshold=threshold, **options)
    chat = options['samplers'].inputs.chat
    examples = response_examples(chat, kept, settings=options['settings'])
    trains = options['settings'].trains
    examples = examples if 'response' in trains else []
    if 'refinement' in trains:
        examples += refinement_examples(chat, kept, explored)
    compared = {'kept': examples, 'demonstrations': references}
    figures = coverage_figures(pair, explored, kept, examples=compared, rows=rows, **options)
    unscored = len(kept) - len(examples) if trains == ('response',) else 0
    figures['exploration']['unscored'] = unscored
    return examples, figures, num_tokens


def sample_explored(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    explorer: str,
    temperature: float,
    number: int,
    memory: Mapping[str, str] = types.MappingProxyType({}),
    settings: ImproveSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Runs the explorer of round `number` on all problems; returns its episodes and tokens."""
    parts = stage.parts('explored', problems, description=f'explore {explorer}')
    trees = samplers.trees() if explorer == 'tree_search' else None
    noise = f'improve{phase(explorer)}' + (f'/{number}' if number > 1 else '')
    for part in parts.missing():
        episodes, num_tokens = explore(
            settings.explore,
            pair,
            part.items,
            explorer=explorer,
            seed=derive_seed(seed, noise),
            method=samplers.method(temperature),
            first_id=part.first * settings.explore.ids_per_question,
            room=samplers.settings.prompt_room,
            memory=memory,
            trees=trees,
        )
        part.write(episodes, num_tokens)
    return parts.read()


def select_responses(
    pair: ModelPair,
    explored: Sequence[Episode],
    *,
    threshold: float,
    settings: ImproveSettings,
    samplers: Samplers,
    stage: StageFolder,
) -> tuple[list[Episode], int]:
    """Selects the responses to train on; returns question -> response, and the tokens of scoring.

    With a threshold, the controller's or that of weighting='threshold', every right response that
    could be kept is considered, not only the first `keep`.
    """
    s, weighting = settings, WEIGHTINGS.find(settings.weighting, 'improve.weighting')
    rates = selection.success_rates(explored)
    trains_wrong = getattr(weighting, 'trains_wrong', False)
    rules = dataclasses.replace(s.explore, keep=len(explored)) if threshold else s.explore
    kept = [
        episode_lib.as_attempt(pair.sampler, e).with_facts(success_rate=rates[e.problem_id])
        for e in selection.curate(explored, rules, wrong=trains_wrong, deduplicate=s.deduplicate)
    ]
    num_tokens = 0
    if kept and (threshold or getattr(weighting, 'reads_scores', False)):
        parts = stage.parts('considered', kept, description='score')
        for part in parts.missing():
            part.write(*score_responses(pair, part.items, samplers=samplers))
        scored, num_tokens = parts.read()
        kept = selection.keep_above_threshold(scored, threshold=threshold, keep=s.explore.keep)
    stage.write_episodes(kept)
    return kept, num_tokens


def response_examples(
    chat: Chat, kept: Sequence[Episode], *, settings: ImproveSettings
) -> list[Example]:
    """Returns question -> kept response, weighted as the settings say.

    Tokens of unknown weight are not trained; a response of such tokens only is left out.
    """
    shares = [1.0] * len(kept)
    if settings.balance == 'question':
        shares = selection.question_weights(kept)

    def weights(turn: Turn, *, success_rate: float, share: float) -> np.ndarray:
        values = response_weights(turn, weighting=settings.weighting, success_rate=success_rate)
        return share * values

    examples = [
        chat.example(
            episode.turns,
            trained=('attempt',),
            last_only=True,
            weights=functools.partial(
                weights, success_rate=episode.facts.success_rate, share=share
            ),
        )
        for episode, share in zip(kept, shares, strict=True)
    ]
    return [example for example in examples if example.loss_mask.any()]


def refinement_examples(
    chat: Chat, kept: Sequence[Episode], explored: Sequence[Episode]
) -> list[Example]:
    """Returns question, attempt, critique -> refinement, of kept responses that are refinements."""
    conversations: dict[tuple, Episode] = {}
    for episode in explored:
        if episode.turns[-1].role == 'refinement':
            conversations.setdefault((episode.problem_id, episode.turns[-1].tokens), episode)
    chosen = [conversations.get((e.problem_id, e.attempt.tokens)) for e in kept]
    return [
        chat.example(e.turns, trained=('refinement',), weights=None, last_only=True)
        for e, response in zip(chosen, kept, strict=True)
        if e is not None and response.attempt.facts.origin == e.turns[-1].facts.origin
    ]
