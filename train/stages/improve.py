"""Self-improvement: one round explores, selects responses, weights them, trains and evaluates.

A round with one explorer, on a folder:

    candidates/   what the controller tried, if there is one
    explored/     everything that the explorer sampled
    considered/   responses with the critic's scores, if selection or weights need them
    episodes/     the responses that are trained on
    checkpoints/, model/, test/, critic/ (if the critic is retrained)
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from elenchus.data.records import Episode, Example, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.exploration import controller, selection
from elenchus.sampling.exploration.controller import Knobs
from elenchus.sampling.exploration.explorers import explore
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.step_scores import score_steps
from elenchus.train.config.run_settings import ImproveSettings
from elenchus.train.loop import LoopSettings
from elenchus.train.rl.advantages import over_tokens
from elenchus.train.run.directory import StageFolder, derive_seed
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.monitors import coverage_figures, evenly_spaced
from elenchus.train.stages.sft import sft


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
    stage: StageFolder | None = None,
) -> tuple[Transformer, dict, dict]:
    """Runs one round of self-improvement; returns the new actor, totals of training, and figures.

    `pair` explores the first `settings.num_problems` problems. A copy of its actor is then
    fine-tuned on the selected responses and the `demonstrations`. To train another model, such as
    the base, `load_trained` returns it; it is called after exploration, to save memory.
    `references` (question -> solution) are what the selected responses are compared with.
    `number` counts rounds from 1; each has its own noise, the same for all explorers.
    """
    stage = stage or StageFolder.temporary()
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    problems = problems[: settings.num_problems]
    knobs, candidates, for_knobs = choose_knobs(pair, problems, number=number, **options)
    parts = stage.parts('explored', problems, description=f'explore {explorer}')
    for part in parts.missing():
        episodes, count = explore(
            settings.explore,
            pair,
            part.items,
            explorer=explorer,
            seed=derive_seed(seed, 'improve' if number == 1 else f'improve/{number}'),
            method=samplers.method(knobs.temperature),
            first_id=part.first * settings.explore.ids_per_question,
        )
        part.write(episodes, count)
    explored, num_tokens = parts.read()
    kept, for_kept = select_responses(pair, explored, threshold=knobs.threshold, **options)
    examples = response_examples(samplers.inputs.chat, kept, settings=settings)
    figures = coverage_figures(
        pair,
        explored=explored,
        kept=kept,
        examples={'kept': examples, 'demonstrations': references},
        score=functools.partial(score_responses, samplers=samplers, seed=seed),
        settings=settings,
        rows=loop.rows,
        stage=stage,
    )
    actor, totals = sft(
        load_trained() if load_trained else pair.actor,
        [*demonstrations, *examples],
        settings=settings.fit,
        loop=loop,
        seed=derive_seed(seed, f'round-{number}'),
        stage=stage,
    )
    figures |= {'knobs': knobs._asdict(), 'candidates': candidates}
    figures['exploration']['tokens'] = num_tokens
    figures['tokens_sampled'] = num_tokens + for_kept + for_knobs
    return actor, totals, figures


def choose_knobs(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    number: int,
    settings: ImproveSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Knobs, list[dict], int]:
    """Chooses temperature and threshold of a round.

    Returns them, what every candidate is worth, and the tokens sampled to find out. All candidate
    temperatures are tried on the same questions with the same noise.
    """
    s = settings.candidates
    if settings.controller == 'none':
        return Knobs(samplers.settings.temperature, 0.0), [], 0
    problems, trials, spent = evenly_spaced(problems, s.num_problems), {}, 0
    for temperature in s.temperatures:
        parts = stage.parts(
            f'candidates/{temperature}', problems, description=f'temperature {temperature}'
        )
        for part in parts.missing():
            attempts = episode_lib.sample_attempts(
                pair.sampler,
                pair.actor,
                part.items,
                judge=pair.judge,
                spec=SampleSpec(
                    s.num_attempts,
                    samplers.method(temperature),
                    derive_seed(seed, 'candidates', number),
                    part.first * s.num_attempts,
                ),
            )
            scored, tokens = score_responses(pair, attempts, samplers=samplers, seed=seed)
            part.write(scored, tokens + episode_lib.sampled_tokens(attempts))
        trials[temperature], tokens = parts.read()
        spent += tokens
    candidates = controller.score_candidates(trials, s)
    return controller.choose(candidates), candidates, spent


def select_responses(
    pair: ModelPair,
    explored: Sequence[Episode],
    *,
    threshold: float,
    settings: ImproveSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[list[Episode], int]:
    """Selects the responses to train on; returns question -> response, and the tokens of scoring.

    With a threshold every different right response is considered, not only the first `keep`.
    """
    s = settings
    rates = selection.success_rates(explored)
    rules = dataclasses.replace(s.explore, keep=len(explored)) if threshold else s.explore
    kept = [
        episode_lib.as_attempt(pair.sampler, e).with_facts(success_rate=rates[e.problem_id])
        for e in selection.curate(explored, rules, wrong=s.weighting == 'advantage')
    ]
    num_tokens = 0
    if kept and (threshold or s.weighting != 'keep'):
        parts = stage.parts('considered', kept, description='score')
        for part in parts.missing():
            part.write(*score_responses(pair, part.items, samplers=samplers, seed=seed))
        scored, num_tokens = parts.read()
        kept = selection.keep_above_threshold(scored, threshold=threshold, keep=s.explore.keep)
    stage.write_episodes(kept)
    return kept, num_tokens


def score_responses(
    pair: ModelPair, responses: Sequence[Episode], *, samplers: Samplers, seed: int
) -> tuple[list[Episode], int]:
    """Adds the critic's scores of steps and answer to responses; returns the critiques' tokens."""
    scored = score_steps(
        pair,
        responses,
        scorer=samplers.scorer(),
        greedy=samplers.greedy(),
        seed=derive_seed(seed, 'improve') + 3,
    )
    num_tokens = sum(len(episode.turns[-1].tokens) for episode in scored)
    return [dataclasses.replace(e, turns=e.turns[:-1]) for e in scored], num_tokens


def response_examples(
    chat: Chat, kept: Sequence[Episode], *, settings: ImproveSettings
) -> list[Example]:
    """Returns question -> kept response, weighted as the settings say."""
    shares = [1.0] * len(kept)
    if settings.balance == 'question':
        shares = selection.question_weights(kept)

    def weights(turn: Turn, *, episode: Episode, share: float) -> np.ndarray:
        return share * response_weights(turn, episode, weighting=settings.weighting)

    return [
        chat.example(
            episode.turns,
            trained=('attempt',),
            last_only=True,
            weights=functools.partial(weights, episode=episode, share=share),
        )
        for episode, share in zip(kept, shares, strict=True)
    ]


def response_weights(turn: Turn, episode: Episode, *, weighting: str) -> np.ndarray:
    """Returns the weight of each token of a response, [len(turn.tokens)].

    'keep' is 1; 'score' the critic's score of the answer; 'steps' its score of the step;
    'advantage' the score of the step minus that of the step before (for the first step, minus the
    question's success rate): negative where a step makes the response worse.
    """
    if weighting == 'steps':
        return over_tokens(turn.step_scores, turn.step_ends)
    if weighting == 'advantage':
        values = np.diff([episode.facts.success_rate, *turn.step_scores])
        return over_tokens(values, turn.step_ends)
    score = 1.0 if weighting == 'keep' else turn.facts.score or 0.0
    return np.full(len(turn.tokens), score, np.float32)
