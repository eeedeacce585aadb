"""Effect of int8 on sampling: log-probabilities and greedy tokens compared with the full model.

A model attempts problems greedily; then the same tokens are read again with keys and values in int8
(sampling.engine.cache_dtype), with matrices in int8 (sampling.engine.quantize), and with both.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.records import Problem
from elenchus.data.text.chat import Chat
from elenchus.model import logprobs, quantization
from elenchus.model.kv_cache import CacheDtype
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec

UNCHANGED = 'as it is'
VARIANTS = {
    UNCHANGED: ('model', 'none'),
    'cache': ('int8', 'none'),
    'weights': ('model', 'int8'),
    'cache and weights': ('int8', 'int8'),
}
"""Name -> (dtype of the cache, quantization of the matrices)."""

ROWS_AT_ONCE = 16  # rows whose logits are in memory at the same time


class Difference(NamedTuple):
    """Difference of a variant to the unchanged model, over the sampled tokens."""

    mean: float  # absolute difference of log-probabilities
    largest: float
    tokens: float  # share of tokens that are still the most likely ones
    attempts: float  # share of attempts of which all tokens are


@functools.partial(jax.jit, static_argnames=('dtype', 'method'))
def score_tokens(
    model: Transformer, tokens: jax.Array, *, dtype: CacheDtype, method: Greedy
) -> tuple[jax.Array, jax.Array]:
    """Scores tokens [N, T] as sampling from a cache of `dtype` would.

    Keys and values are rounded to `dtype` before other positions attend to them. Returns the
    log-probabilities of all tokens but the first, and True where a token is the most likely one;
    both [N, T - 1].
    """

    def score_row(tokens):
        """Scores one row [T]."""
        hidden, _ = model(tokens[None], jnp.arange(tokens.shape[0])[None], return_cache=dtype)
        logits = method.transform(model.logits(hidden[0, :-1]))
        return logprobs.log_softmax_at(logits, tokens[1:])[0], logits.argmax(-1) == tokens[1:]

    return jax.lax.map(score_row, tokens, batch_size=ROWS_AT_ONCE)


def compare_variants(
    model: Transformer, tokens: np.ndarray, sampled: np.ndarray, *, method: Greedy
) -> dict[str, Difference]:
    """Difference of each variant to the unchanged model.

    Args:
        tokens: [N, T], prompts and attempts.
        sampled: [N, T], True for the tokens of attempts.
        method: with the ids that were banned while sampling.
    """
    logprobs_of, differences, sampled = {}, {}, sampled[:, 1:]
    for name, (dtype, kind) in VARIANTS.items():
        variant = quantization.quantize(model, kind)
        scores = score_tokens(variant, tokens, dtype=dtype, method=method)
        logprobs_of[name], is_best = jax.device_get(scores)
        errors = np.abs(logprobs_of[name][sampled] - logprobs_of[UNCHANGED][sampled])
        all_best = (is_best | ~sampled).all(axis=1)
        parts = (errors.mean(), errors.max(), is_best[sampled].mean(), all_best.mean())
        differences[name] = Difference(*map(float, parts))
    return differences


def sample_attempts(
    sampler: Sampler,
    model: Transformer,
    problems: Sequence[Problem],
    *,
    chat: Chat,
    method: Greedy,
    num_tokens: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples one attempt per problem, of at most `num_tokens` tokens.

    Returns `tokens` and `sampled` of `compare_variants`; rows are padded with 0.
    """
    sampler = dataclasses.replace(sampler, max_tokens={'attempt': num_tokens})
    questions = [chat.question_turns(problem.question) for problem in problems]
    turns = sampler.sample_turns(
        model, questions, 'attempt', spec=SampleSpec(1, method, seed=0, first_id=0)
    )
    prompts = [chat.context(question, 'attempt') for question in questions]
    texts = [(*p, *turn.tokens) for p, (turn,) in zip(prompts, turns, strict=True)]
    tokens = np.zeros((len(texts), max(map(len, texts))), np.int32)
    sampled = np.zeros(tokens.shape, bool)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        tokens[row, : len(text)] = text
        sampled[row, len(prompt) : len(text)] = True
    return tokens, sampled


def markdown_table(differences: dict[str, Difference]) -> str:
    """Markdown table with one line per variant."""
    head = ('in int8', 'mean difference', 'largest', 'tokens that stay', 'attempts that stay')
    lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    for name, d in differences.items():
        shares = f'{d.tokens:.2%} | {d.attempts:.1%}'
        lines.append(f'| {name} | {d.mean:.2g} | {d.largest:.2g} | {shares} |')
    return '\n'.join(lines)
