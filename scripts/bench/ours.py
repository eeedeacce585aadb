"""Workers of scripts/bench for this project, and for the machine itself.

python -m scripts.bench.ours CONTENDER CASE CLOCK CONFIG      (see scripts/bench/peers.py:serve)
"""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.batching import shared_prompts
from elenchus.data.records import Batch
from elenchus.model import transformer
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine.engine import Engine
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.sampling_methods import TemperatureSampling
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.scripts.bench import peers
from elenchus.scripts.bench.cases import load_settings
from elenchus.scripts.bench.peers import CLOCKS, END, Run
from elenchus.train import loop, objective, step
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.optimizer import make_optimizer
from elenchus.train.step import make_train_step

Clock = Callable[[], float]

ENDLESS = TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(END,))
"""Never the end token, so that requests have the lengths they ask for."""


@functools.lru_cache
def players(config: ModelConfig) -> list[transformer.Transformer]:
    return [transformer.init_model(config, jax.random.key(seed)) for seed in (0, 1)]


def prompts_of(case: dict, rows: int, length: int) -> list[tuple[int, ...]]:
    ids = np.random.default_rng(0).integers(2, case['model']['vocab_size'], (rows, length))
    return [tuple(row) for row in ids.tolist()]


def make_engine(*, slots: int, length: int, buckets: tuple[int, ...], **changes) -> Engine:
    sizes = {
        'num_slots': slots,
        'max_length': length,
        'chunk_steps': 32,
        'prompt_buckets': buckets,
        'prefill_batch_sizes': (slots,),
        'decode_batch_sizes': (),
        'decode_cache_lengths': (),
    }
    return Engine(EngineSettings(**(sizes | changes)), stop_ids=(END,))


def growing(start: int, end: int, step: int = 32) -> tuple[int, ...]:
    """Cache lengths below `end` that a batch of equal prompts of `start` grows through."""
    return tuple(range(start + step, end, step))


def asked(prompts, lengths) -> list[Request]:
    pairs = zip(prompts, lengths, strict=True)
    return [Request(i, prompt, length) for i, (prompt, length) in enumerate(pairs)]


def sampled(completions) -> int:
    return sum(len(completion.tokens) for completion in completions)


def decode(case: dict, run_settings: RunSettings) -> Run:
    model, s = players(run_settings.model)[0], case['shape']
    length = s['prompt'] + s['new']
    engine = make_engine(
        slots=s['batch'],
        length=length,
        buckets=(s['prompt'],),
        decode_cache_lengths=growing(s['prompt'], length),
    )
    requests = asked(prompts_of(case, s['batch'], s['prompt']), [s['new']] * s['batch'])
    seeds = itertools.count()
    return lambda: sampled(engine.generate(model, requests, method=ENDLESS, seed=next(seeds)))


def prefill(case: dict, run_settings: RunSettings) -> Run:
    """A token each: the prompt is read, and the first token sampled."""
    model, s = players(run_settings.model)[0], case['shape']
    engine = make_engine(
        slots=s['batch'], length=s['prompt'] + 1, buckets=(s['prompt'],), chunk_steps=1
    )
    requests = asked(prompts_of(case, s['batch'], s['prompt']), [1] * s['batch'])

    def run() -> int:
        engine.generate(model, requests, method=ENDLESS, seed=0)
        return s['batch'] * s['prompt']

    return run


def ragged(case: dict, run_settings: RunSettings, *, padded: bool) -> Run:
    """Waiting requests go where others have ended; padded: batches, each as long as its longest."""
    model, s = players(run_settings.model)[0], case['shape']
    batch, longest = s['batch'], s['prompt'] + max(s['lengths'])
    smaller = {
        'chunk_steps': 16,
        'prefill_batch_sizes': (batch // 4, batch),
        'decode_batch_sizes': (batch // 8, batch // 4, batch // 2),
        'decode_cache_lengths': growing(s['prompt'], longest, step=64),
    }
    engine = make_engine(
        slots=batch, length=longest, buckets=(s['prompt'],), **({} if padded else smaller)
    )
    requests = asked(prompts_of(case, len(s['lengths']), s['prompt']), s['lengths'])
    size = batch if padded else len(requests)
    parts = [requests[start : start + size] for start in range(0, len(requests), size)]
    engine.warm_up(model, method=ENDLESS)
    seeds = itertools.count()

    def run() -> int:
        seed = next(seeds)
        return sum(sampled(engine.generate(model, p, method=ENDLESS, seed=seed)) for p in parts)

    return run


def episode(case: dict, run_settings: RunSettings, *, park: bool) -> Run:
    """Attempts, a critique and a refinement of each."""
    (actor, critic), s = players(run_settings.model), case['shape']
    begun = s['prompt'] + s['attempt']
    told, rows = begun + s['critique'], s['problems'] * s['samples']
    parked = {'prefix_cache_rows': rows, 'prefix_cache_length': begun} if park else {}
    length = told + s['refinement']
    engine = make_engine(
        slots=rows,
        length=length,
        buckets=(s['prompt'], s['critique'] + 1, begun, told),
        prefill_batch_sizes=(s['problems'], rows),
        decode_cache_lengths=growing(s['prompt'], length),
        **parked,
    )
    questions = prompts_of(case, s['problems'], s['prompt'])
    seeds = itertools.count()

    def run() -> int:
        sampler, seed, made = engine.with_prefix_cache(), next(seeds), []
        prompts = [prompt for prompt in questions for _ in range(s['samples'])]
        for player, role in ((actor, 'attempt'), (critic, 'critique'), (actor, 'refinement')):
            requests = asked(prompts, [s[role]] * rows)
            turns = sampler.generate(player, requests, method=ENDLESS, seed=seed)
            prompts = [(*p, *turn.tokens) for p, turn in zip(prompts, turns, strict=True)]
            made += turns
        return sampled(made)

    return run


def sft_step(case: dict, run_settings: RunSettings) -> Run:
    s = case['shape']
    rows = np.array(prompts_of(case, s['batch'], s['length']), np.int32)
    advance = trainer(run_settings, objective.SFT, step.IDENTITY)

    def run() -> int:
        advance(batch_of(rows, start=1, weights=np.ones(len(rows)), logprobs=None))
        return rows.size

    return run


def grpo(case: dict, run_settings: RunSettings) -> Run:
    """Rollouts of a group a problem, rewards out of the air, and one update of a row a group."""
    s, rows = case['shape'], case['shape']['batch']
    engine = make_engine(
        slots=rows,
        length=s['prompt'] + s['new'],
        buckets=(s['prompt'],),
        prefill_batch_sizes=(s['problems'],),
        decode_cache_lengths=growing(s['prompt'], s['prompt'] + s['new']),
    )
    questions = prompts_of(case, s['problems'], s['prompt'])
    requests = asked([q for q in questions for _ in range(s['samples'])], [s['new']] * rows)
    rewards = np.arange(rows).reshape(-1, s['samples']) % 3
    advantages = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-4)
    shared = SharedPrompt(s['samples'], s['prompt'], s['new'])
    advance = trainer(run_settings, run_settings.reinforce.objective, ENDLESS.transform, shared)
    seeds = itertools.count()

    def run() -> int:
        made = engine.generate(advance(None), requests, method=ENDLESS, seed=next(seeds))
        pairs = zip(requests, made, strict=True)
        tokens = np.array([(*r.prompt, *c.tokens) for r, c in pairs], np.int32)
        logprobs = np.array([c.logprobs for c in made], np.float32)
        batch = batch_of(tokens, start=s['prompt'], weights=advantages.ravel(), logprobs=logprobs)
        advance(shared_prompts.share_prompts(batch, **shared._asdict())[0])
        return sampled(made)

    return run


def trainer(run_settings: RunSettings, objective, transform, shared=None):
    """Returns advance(batch), which updates and waits, and gives the model; None only gives it."""
    optimizer = make_optimizer(
        dataclasses.replace(
            run_settings.reinforce.optimizer, name='adamw', learning_rate=1e-4, weight_decay=0.01
        ),
        num_steps=10**6,
    )
    step = make_train_step(
        objective=objective,
        optimizer=optimizer,
        transform=transform,
        num_microbatches=1,
        skip_nonfinite=False,
        shared=shared,
    )
    state = loop.init_train_state(players(run_settings.model)[0], optimizer)

    def advance(batch: Batch | None):
        nonlocal state
        if batch is not None:
            state, metrics = step(state, batch)
            jax.block_until_ready((state, metrics))
        return state.model

    return advance


def batch_of(tokens: np.ndarray, *, start: int, weights, logprobs) -> Batch:
    """Whole rows, trained from position `start` on at a weight a row."""
    B, T = tokens.shape
    trained = np.broadcast_to(np.arange(T) >= start, (B, T))
    old = np.zeros((B, T), np.float32)
    if logprobs is not None:
        old[:, start:] = logprobs
    ones, zeros = np.ones((B, T), np.int32), np.zeros((B, T), np.float32)
    return Batch(
        tokens=tokens,
        loss_mask=trained.astype(np.float32),
        weights=(trained * weights[:, None]).astype(np.float32),
        old_logprobs=old,
        ref_logprobs=zeros,
        steps=ones,
        turns=ones,
        roles=ones,
        positions=np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)),
        segments=ones,
    )


# The machine


def machine(clock: Clock) -> dict[str, float]:
    """Operations a second in a matrix multiplication, and bytes read a second."""
    n = 1024 if jax.default_backend() == 'cpu' else 8192
    square, tall, vector = jnp.ones((n, n)), jnp.ones((8 * n, 8 * n)), jnp.ones(8 * n)
    product = _best(jax.jit(lambda x: x @ x), square, clock)
    reads = [_best(jax.jit(f), tall, clock) for f in (jnp.sum, lambda x: x @ vector)]
    return {'flops': 2 * n**3 / product, 'bandwidth': tall.nbytes / min(reads)}


def _best(function, x, clock: Clock, repeats: int = 5) -> float:
    """Seconds of the fastest of some calls."""
    jax.block_until_ready(function(x))
    found = []
    for _ in range(repeats):
        began = clock()
        jax.block_until_ready(function(x))
        found.append(clock() - began)
    return min(found)


WORKS = {
    ('decode', 'ours'): decode,
    ('prefill', 'ours'): prefill,
    ('ragged', 'ours'): functools.partial(ragged, padded=False),
    ('ragged', 'ours, padded'): functools.partial(ragged, padded=True),
    ('episode', 'ours'): functools.partial(episode, park=True),
    ('episode', 'ours, nothing parked'): functools.partial(episode, park=False),
    ('sft', 'ours'): sft_step,
    ('grpo', 'ours'): grpo,
}


def main() -> None:
    measured, facts = {}, peers.compilations()

    def make(contender: str, case: dict) -> Run:
        if contender == 'machine':
            return lambda: measured.update(machine(CLOCKS[sys.argv[3]])) or 0
        return WORKS[case['work'], contender](case, load_settings(sys.argv[4], case['model']))

    peers.serve(make, lambda: facts() | measured)


if __name__ == '__main__':
    main()
