"""A tiny model with experts: its loss and gradients, and what it samples."""

import dataclasses
import functools

import jax
import pytest

from elenchus.model import experts
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.train import step
from tests.support import tiny_model

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, mlp_dim=8, num_experts=5, experts_per_token=2, normalise_experts=True,
    balance_coef=0.1, tie_embeddings=False,
)  # fmt: skip


def loss_and_grads(model, batch, **options):
    """(loss, gradients) of a batch; compiled anew, for the form of products that is in force."""
    function = functools.partial(
        step.loss_and_grads,
        objective=tiny_model.SFT,
        transform=step.IDENTITY,
        num_microbatches=1,
        **options,
    )
    return jax.jit(function, compiler_options=tiny_model.QUICK)(model, batch)


def greedy(model, prompts, length, *, slots):
    """Greedy continuations by the engine, with a cache of unrolled layers."""
    settings = engine.EngineSettings(
        num_slots=slots, max_length=48, chunk_steps=8, prompt_buckets=(8,),
        prefill_batch_sizes=(slots,), decode_batch_sizes=(), decode_cache_lengths=(),
    )  # fmt: skip
    requests = [engine.Request(i, tuple(map(int, p)), length) for i, p in enumerate(prompts)]
    sampler = engine.Engine(settings, stop_ids=(CONFIG.vocab_size,))
    done = sampler.generate(model, requests, method=sampling_methods.Greedy(()), seed=0)
    return [list(completion.tokens) for completion in done]


@pytest.fixture
def use_form(monkeypatch):
    """Chooses the form of the products: every expert on every token, or only the chosen ones."""
    return lambda value: monkeypatch.setattr(experts, 'computes_all', lambda: value)
