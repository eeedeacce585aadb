"""Preference optimisation: groups of responses, pairs of them, and training on the pairs.

A round, on a folder:

    explored/       the groups: responses of the actor, or critiques of the critic
    considered/     the responses with the critic's scores, if the pair rule reads them
    episodes/       the pairs that are trained on: chosen, rejected, chosen, ...
    reference.npz   log-probabilities of the model that the round began to train
    checkpoints/, model/, test/
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from elenchus.data.records import Problem
from elenchus.model import lora
from elenchus.model.transformer import Transformer
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.train import objective, pairs
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config.prefer_settings import PreferSettings
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.loop import LoopSettings, init_train_state, to_device, train_loop
from elenchus.train.metrics import speed
from elenchus.train.nonfinite import Update
from elenchus.train.pair_rules import FIELD, PAIR_RULES, find_pairs
from elenchus.train.pairs import PairedExamples, PairScores
from elenchus.train.rl.logprobs import make_logprobs
from elenchus.train.rl.settings import Player
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.sft import make_fit_step
from elenchus.train.stages import prefer_groups
from elenchus.train.stages.evaluate import evaluate_actor, evaluate_with_critique
from elenchus.train.stages.improve_rounds import SavedPair, save_last
from elenchus.train.stages.sft import CountedBatches
from elenchus.train.state import TrainState
from elenchus.train.step import IDENTITY

COUNTS = ('tokens_sampled', 'tokens_trained', 'tokens_padding')


def prefer_stage(
    stage: StageFolder,
    *,
    player: Player,
    start: SavedPair,
    settings: PreferSettings,
    train_problems: Sequence[Problem],
    test_problems: Sequence[Problem],
    evaluation: EvaluateSettings,
    loop: LoopSettings,
    store: ModelStore,
    samplers: Samplers,
    seed: int,
) -> dict:
    """Runs the rounds; returns the last one's figures, and those of all in `rounds`."""
    rounds, first, noise = [], start, derive_seed(seed, f'prefer {player}')
    options = {'samplers': samplers, 'seed': seed}
    for number in range(1, settings.num_rounds + 1):
        folder = stage.child(f'round-{number}')
        summary = folder.read_summary()
        if summary is None:
            source = getattr(start if settings.restart == 'last' else first, player)
            load = functools.partial(store.load_to_train, source, settings.lora, seed=noise)
            with folder.recorded() as summary:
                models = samplers.pair(store.load(start.actor), store.load(start.critic))
                trained, figures = prefer(
                    models,
                    train_problems,
                    player=player,
                    settings=settings,
                    load_trained=load,
                    loop=loop,
                    number=number,
                    stage=folder,
                    **options,
                )
                store.save(folder.path / 'model', trained)
                summary |= figures | evaluated(
                    models, test_problems, player, trained=trained, settings=evaluation,
                    stage=folder, **options,
                )  # fmt: skip
            store.release()
        rounds.append(summary)
        start = start._replace(**{player: folder.path / 'model'})
    save_last(stage, getattr(start, player), store)
    totals = {name: sum(summary[name] for summary in rounds) for name in COUNTS}
    return rounds[-1] | totals | {'rounds': rounds}


def evaluated(
    models: ModelPair,
    problems: Sequence[Problem],
    player: Player,
    *,
    trained: Transformer,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> dict:
    """Evaluates a trained actor alone, a trained critic with the actor that it criticises."""
    options = {'settings': settings, 'samplers': samplers, 'seed': seed, 'stage': stage}
    if player == 'actor':
        return evaluate_actor(trained, problems, **options)
    return evaluate_with_critique(samplers.pair(models.actor, trained), problems, **options)


def prefer(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    player: Player = 'actor',
    settings: PreferSettings,
    load_trained: Callable[[], Transformer] | None = None,
    loop: LoopSettings,
    samplers: Samplers,
    seed: int,
    number: int = 1,
    stage: StageFolder | None = None,
) -> tuple[Transformer, dict]:
    """Runs one round; returns the trained player and figures.

    `load_trained` returns another model to train; it is called after sampling, to save memory.
    """
    stage = stage or StageFolder.temporary()
    s, problems = settings, problems[: settings.num_problems]
    reads_scores = getattr(PAIR_RULES.find(s.pairs, FIELD), 'reads_scores', False)
    groups, num_tokens = prefer_groups.sample_groups(
        models,
        problems,
        player=player,
        settings=s,
        reads_scores=reads_scores,
        samplers=samplers,
        seed=derive_seed(seed, f'prefer/{number}'),
        stage=stage,
    )
    examples, figures = make_pairs(
        models, groups, player=player, settings=s, loop=loop, stage=stage
    )
    model = load_trained() if load_trained else getattr(models, player)
    trained, totals = train_on_pairs(
        model,
        examples,
        settings=s,
        loop=loop,
        seed=derive_seed(seed, f'prefer/{number}/order'),
        stage=stage,
    )
    return trained, {**totals, **figures, 'tokens_sampled': num_tokens}


def make_pairs(
    models: ModelPair,
    groups: Sequence,
    *,
    player: Player,
    settings: PreferSettings,
    loop: LoopSettings,
    stage: StageFolder,
) -> tuple[list[tuple[PairedExamples, float]], dict]:
    """Returns the training sequences of the pairs that the rule finds, with offsets, and counts.

    Raises ValueError if there is no pair to train on.
    """
    s = settings
    chosen = find_pairs(
        groups, rule=s.pairs, keep=s.keep, player=player, takes_offsets=s.loss.takes_offsets
    )
    if player == 'actor' and s.prompt == 'question':
        chosen = [prefer_groups.behind_question(models.sampler, pair) for pair in chosen]
    chat = models.sampler.chat
    whole = [pairs.pair_examples(chat, pair, rule=s.pairs) for pair in chosen]
    examples = [pairs.without_common(pair) for pair in whole] if s.mask_common else whole
    length = s.length or loop.length
    kept, counts = pairs.fitting_pairs(examples, length=length)
    if not kept:
        raise ValueError(
            f'{stage.path.name}: no pair to train on among {len(groups)} groups: '
            f'{len(chosen)} pairs of prefer.pairs={s.pairs!r}, of them {counts["pairs_alike"]} '
            f'alike and {counts["pairs_too_long"]} too long for a row of {length}; use more '
            'prefer.num_attempts, another rule, or a larger prefer.length'
        )
    stage.write_episodes([side for i in kept for side in chosen[i][:2]])
    examples = [examples[i] for i in kept]
    if s.loss.kind == 'kto':
        questions = [chosen[i].chosen.problem_id for i in kept]
        others = pairs.mismatched([whole[i] for i in kept], questions, length=length)
        examples = [e._replace(others=o) for e, o in zip(examples, others, strict=True)]
    offsets = [chosen[i].offset for i in kept]
    return list(zip(examples, offsets, strict=True)), {
        'groups': len(groups),
        'pairs': len(kept),
        **counts,
    }


class PairBatches(CountedBatches):
    """Endless batches of packed pairs, with the mismatched sequences that estimate KTO's z0."""

    def next_pairs(self) -> tuple:
        """Returns the next batch, and the `others` of its pairs."""
        rows = self._batches.next_rows()
        others = [example for row in rows for item in row for example in item[1].others]
        return self.count(self._batches.to_batch(rows)), others


def train_on_pairs(
    model: Transformer,
    examples: Sequence[tuple[PairedExamples, float]],
    *,
    settings: PreferSettings,
    loop: LoopSettings,
    seed: int,
    stage: StageFolder,
) -> tuple[Transformer, dict]:
    """Trains a copy of a model, or its adapters, on pairs; returns it and figures.

    The reference model is `model` itself, before training. Metrics and checkpoints go into the
    stage's folder, and training continues from the newest checkpoint there.
    """
    s = settings
    length = s.length or loop.length
    forward = make_logprobs(
        transform=IDENTITY, shared=None, rows=loop.rows // loop.num_microbatches
    )
    score = functools.partial(pairs.logprobs_of, length=length, logprobs=forward)
    plain = [pair for pair, _ in examples]
    sequences = [e for pair in plain for e in (*pair[:2], *pair.others)]
    values = pairs.reference_logprobs(
        stage.path / pairs.REFERENCE, sequences, lambda: score(model, sequences)
    )
    in_order = iter(values)
    data = [pairs.with_offset(refer(pair, in_order), offset, s.loss) for pair, offset in examples]
    trained, totals = fit_pairs(
        model, data, settings=s, loop=loop, forward=forward, seed=seed, stage=stage
    )
    sides = [e for pair in plain for e in pair[:2]]
    size = len(sequences) // len(plain)
    before = [v for i, v in enumerate(values) if i % size < 2]
    scores = functools.partial(PairScores.of, plain, references=before, loss=s.loss)
    after = score(trained, sides)
    figures = {'before': scores(before).figures(), 'after': scores(after).figures()}
    return trained, totals | {'preference': figures}


def refer(pair: PairedExamples, values) -> PairedExamples:
    """Returns a pair with reference log-probabilities, taken from the iterator `values`."""
    chosen, rejected = (pairs.with_reference(e, next(values)) for e in pair[:2])
    others = tuple(pairs.with_reference(e, next(values)) for e in pair.others)
    return PairedExamples(chosen, rejected, others)


def fit_pairs(
    model: Transformer,
    data: Sequence[PairedExamples],
    *,
    settings: PreferSettings,
    loop: LoopSettings,
    forward: pairs.Logprobs,
    seed: int,
    stage: StageFolder,
) -> tuple[Transformer, dict]:
    """Trains a copy of a model on pairs whose references are known; returns it and totals."""
    length = settings.length or loop.length
    optimizer, train_step = make_fit_step(
        settings.fit, loop, objective=objective.of_pairs(settings.loss), seed=seed
    )
    batches = PairBatches(data, loop.rows, length, seed=seed)
    trained, frozen = lora.split(model)

    def advance(step: int, state: TrainState):
        batch, others = batches.next_pairs()
        if others:
            now = lora.join(state.model, frozen)
            values = pairs.logprobs_of(now, others, length=length, logprobs=forward)
            baseline = np.mean([pairs.log_ratio(e, v) for e, v in zip(others, values, strict=True)])
            batch = pairs.shift_batch(batch, max(0.0, float(baseline)))
        state, metrics = train_step(state, to_device(batch), frozen)
        return state, metrics, [Update(metrics, batch)]

    with stage.metrics() as writer:
        state, last_row = train_loop(
            functools.partial(init_train_state, trained, optimizer),
            advance,
            num_steps=settings.fit.num_steps,
            loop=loop,
            folder=stage.path,
            writer=writer,
            description=stage.path.name,
            cursor=batches.cursor,
            set_cursor=batches.set_cursor,
            flops_per_token=speed.training_flops_per_token(model, length=length),
        )
    totals = {**batches.counts, 'final_loss': last_row.get('loss/total')}
    return lora.join(state.model, frozen), totals
