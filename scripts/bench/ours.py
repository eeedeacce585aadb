"""Benchmark workers that measure this project, and the speed of the machine itself.

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
"""Sampling without the end token, so that requests reach their maximal length."""


@functools.lru_cache
def players(config: ModelConfig) -> list[transformer.Transformer]:
    """Actor and critic with random weights."""
    return [transformer.init_model(config, jax.random.key(seed)) for seed in (0, 1)]


def prompts_of(case: dict, rows: int, length: int) -> list[tuple[int, ...]]:
    """Random prompts of equal length."""
    ids = np.random.default_rng(0).integers(2, case['model']['vocab_size'], (rows, length))
    return [tuple(row) for row in ids.tolist()]


def make_engine(*, slots: int, length: int, buckets: tuple[int, ...], **changes) -> Engine:
    """Makes an engine; `changes` replace fields of EngineSettings."""
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


def cache_lengths(start: int, end: int, *, step: int = 32) -> tuple[int, ...]:
    """Cache lengths, every `step` tokens, between `start` (the prompt's length) and `end`."""
    return tuple(range(start + step, end, step))


def requests_of(prompts, lengths) -> list[Request]:
    """Makes a request for each prompt; `lengths` are the numbers of new tokens."""
    pairs = zip(prompts, lengths, strict=True)
    return [Request(i, prompt, length) for i, (prompt, length) in enumerate(pairs)]


def count_tokens(completions) -> int:
    """Number of sampled tokens."""
    return sum(len(completion.tokens) for completion in completions)


def decode(case: dict, run_settings: RunSettings) -> Run:
    """Returns a run that samples a batch of equal requests."""
    model, s = players(run_settings.model)[0], case['shape']
    length = s['prompt'] + s['new']
    engine = make_engine(
        slots=s['batch'],
        length=length,
        buckets=(s['prompt'],),
        decode_cache_lengths=cache_lengths(s['prompt'], length),
    )
    requests = requests_of(prompts_of(case, s['batch'], s['prompt']), [s['new']] * s['batch'])
    seeds = itertools.count()
    return lambda: count_tokens(engine.generate(model, requests, method=ENDLESS, seed=next(seeds)))


def prefill(case: dict, run_settings: RunSettings) -> Run:
    """Returns a run that reads a batch of prompts and samples one token for each."""
    model, s = players(run_settings.model)[0], case['shape']
    engine = make_engine(
        slots=s['batch'], length=s['prompt'] + 1, buckets=(s['prompt'],), chunk_steps=1
    )
    requests = requests_of(prompts_of(case, s['batch'], s['prompt']), [1] * s['batch'])

    def run() -> int:
        """Reads all prompts; returns the number of their tokens."""
        engine.generate(model, requests, method=ENDLESS, seed=0)
        return s['batch'] * s['prompt']

    return run


def ragged(case: dict, run_settings: RunSettings, *, padded: bool) -> Run:
    """Returns a run that samples requests of very different lengths.

    Waiting requests take the slots of finished ones (continuous batching). With `padded` they run
    in static batches, each of which takes as long as its longest request.
    """
    model, s = players(run_settings.model)[0], case['shape']
    batch, longest = s['batch'], s['prompt'] + max(s['lengths'])
    continuous = {
        'chunk_steps': 16,
        'prefill_batch_sizes': (batch // 4, batch),
        'decode_batch_sizes': (batch // 8, batch // 4, batch // 2),
        'decode_cache_lengths': cache_lengths(s['prompt'], longest, step=64),
    }
    engine = make_engine(
        slots=batch, length=longest, buckets=(s['prompt'],), **({} if padded else continuous)
    )
    requests = requests_of(prompts_of(case, len(s['lengths']), s['prompt']), s['lengths'])
    size = batch if padded else len(requests)
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]
    engine.warm_up(model, method=ENDLESS)
    seeds = itertools.count()

    def run() -> int:
        """Samples all requests; returns the number of new tokens."""
        seed = next(seeds)
        return sum(
            count_tokens(engine.generate(model, b, method=ENDLESS, seed=seed)) for b in batches
        )

    return run


def episode(case: dict, run_settings: RunSettings, *, cached: bool) -> Run:
    """Returns a run that samples attempts, with a critique and a refinement of each.

    With `cached`, the turns of a conversation reuse its prefix from the prefix cache.
    """
    (actor, critic), s = players(run_settings.model), case['shape']
    attempt_end = s['prompt'] + s['attempt']
    critique_end, rows = attempt_end + s['critique'], s['problems'] * s['samples']
    prefixes = {'prefix_cache_rows': rows, 'prefix_cache_length': attempt_end} if cached else {}
    length = critique_end + s['refinement']
    engine = make_engine(
        slots=rows,
        length=length,
        buckets=(s['prompt'], s['critique'] + 1, attempt_end, critique_end),
        prefill_batch_sizes=(s['problems'], rows),
        decode_cache_lengths=cache_lengths(s['prompt'], length),
        **prefixes,
    )
    questions = prompts_of(case, s['problems'], s['prompt'])
    seeds = itertools.count()

    def run() -> int:
        """Samples all three turns; returns the number of new tokens."""
        sampler, seed, completions = engine.with_prefix_cache(), next(seeds), []
        prompts = [prompt for prompt in questions for _ in range(s['samples'])]
        for player, role in ((actor, 'attempt'), (critic, 'critique'), (actor, 'refinement')):
            requests = requests_of(prompts, [s[role]] * rows)
            turns = sampler.generate(player, requests, method=ENDLESS, seed=seed)
            prompts = [(*p, *turn.tokens) for p, turn in zip(prompts, turns, strict=True)]
            completions += turns
        return count_tokens(completions)

    return run


def sft_step(case: dict, run_settings: RunSettings) -> Run:
    """Returns a run of one supervised training step."""
    s = case['shape']
    rows = np.array(prompts_of(case, s['batch'], s['length']), np.int32)
    update = make_update(run_settings, objective.SFT, transform=step.IDENTITY)

    def run() -> int:
        """Trains on the batch; returns the number of its tokens."""
        update(batch_of(rows, start=1, weights=np.ones(len(rows)), logprobs=None))
        return rows.size

    return run


def grpo(case: dict, run_settings: RunSettings) -> Run:
    """Returns a run of one GRPO iteration: a group of rollouts per problem, and one update.

    Rewards are fixed numbers. A group is one row of the update: its rollouts share the prompt.
    """
    s, rows = case['shape'], case['shape']['batch']
    engine = make_engine(
        slots=rows,
        length=s['prompt'] + s['new'],
        buckets=(s['prompt'],),
        prefill_batch_sizes=(s['problems'],),
        decode_cache_lengths=cache_lengths(s['prompt'], s['prompt'] + s['new']),
    )
    questions = prompts_of(case, s['problems'], s['prompt'])
    requests = requests_of([q for q in questions for _ in range(s['samples'])], [s['new']] * rows)
    rewards = np.arange(rows).reshape(-1, s['samples']) % 3
    advantages = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-4)
    shared = SharedPrompt(s['samples'], s['prompt'], s['new'])
    objective = run_settings.reinforce.objective
    update = make_update(run_settings, objective, transform=ENDLESS.transform, shared=shared)
    seeds = itertools.count()

    def run() -> int:
        """Samples, trains; returns the number of new tokens."""
        completions = engine.generate(update(None), requests, method=ENDLESS, seed=next(seeds))
        pairs = zip(requests, completions, strict=True)
        tokens = np.array([(*r.prompt, *c.tokens) for r, c in pairs], np.int32)
        logprobs = np.array([c.logprobs for c in completions], np.float32)
        batch = batch_of(tokens, start=s['prompt'], weights=advantages.ravel(), logprobs=logprobs)
        update(shared_prompts.share_prompts(batch, **shared._asdict())[0])
        return count_tokens(completions)

    return run


def make_update(run_settings: RunSettings, objective, *, transform, shared=None):
    """Returns a function that runs one training step on a batch and returns the model.

    Called with None, it returns the current model.
    """
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

    def update(batch: Batch | None):
        """Trains on a batch; returns the model."""
        nonlocal state
        if batch is not None:
            state, metrics = step(state, batch)
            jax.block_until_ready((state, metrics))
        return state.model

    return update


def batch_of(tokens: np.ndarray, *, start: int, weights, logprobs) -> Batch:
    """Batch of full rows, trained from position `start` on, with one weight per row."""
    B, T = tokens.shape
    trained = np.broadcast_to(np.arange(T) >= start, (B, T))
    old_logprobs = np.zeros((B, T), np.float32)
    if logprobs is not None:
        old_logprobs[:, start:] = logprobs
    ones, zeros = np.ones((B, T), np.int32), np.zeros((B, T), np.float32)
    return Batch(
        tokens=tokens,
        loss_mask=trained.astype(np.float32),
        weights=(trained * weights[:, None]).astype(np.float32),
        old_logprobs=old_logprobs,
        ref_logprobs=zeros,
        steps=ones,
        turns=ones,
        roles=ones,
        positions=np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)),
        segments=ones,
    )


# The machine


def machine(clock: Clock) -> dict[str, float]:
    """Measures operations per second in a matrix multiplication, and bytes read per second."""
    n = 1024 if jax.default_backend() == 'cpu' else 8192
    square, tall, vector = jnp.ones((n, n)), jnp.ones((8 * n, 8 * n)), jnp.ones(8 * n)
    product = _fastest_seconds(jax.jit(lambda x: x @ x), square, clock=clock)
    # A sum and a matrix-vector product both read every byte once; take the faster one.
    reads = [
        _fastest_seconds(jax.jit(f), tall, clock=clock) for f in (jnp.sum, lambda x: x @ vector)
    ]
    return {'flops': 2 * n**3 / product, 'bandwidth': tall.nbytes / min(reads)}


def _fastest_seconds(function, x, *, clock: Clock) -> float:
    """Seconds of the fastest of five calls."""
    jax.block_until_ready(function(x))
    seconds = []
    for _ in range(5):
        start = clock()
        jax.block_until_ready(function(x))
        seconds.append(clock() - start)
    return min(seconds)


WORKS = {
    ('decode', 'ours'): decode,
    ('prefill', 'ours'): prefill,
    ('ragged', 'ours'): functools.partial(ragged, padded=False),
    ('ragged', 'ours, padded'): functools.partial(ragged, padded=True),
    ('episode', 'ours'): functools.partial(episode, cached=True),
    ('episode', 'ours, no prefix cache'): functools.partial(episode, cached=False),
    ('sft', 'ours'): sft_step,
    ('grpo', 'ours'): grpo,
}


def main() -> None:
    """Serves the contender that the arguments name."""
    speeds, facts = {}, peers.compilations()

    def make(contender: str, case: dict) -> Run:
        """Makes the run of a contender; the run of `machine` only updates `speeds`."""
        if contender == 'machine':
            return lambda: speeds.update(machine(CLOCKS[sys.argv[3]])) or 0
        return WORKS[case['work'], contender](case, load_settings(sys.argv[4], case['model']))

    peers.serve(make, lambda: facts() | speeds)


if __name__ == '__main__':
    main()
