"""What int8 changes while sampling: a model's log-probabilities and greedy tokens.

python -m scripts.tools.compare_int8 --config configs/lab.py --workdir runs/int8 \\
    --model data/lab/checkpoint

The model attempts test problems greedily, held as it is, and its tokens are read again with keys
and values in int8 (sampling.engine.cache_dtype), matrices in int8 (sampling.engine.quantize), and
both. A table tells, over all tokens of attempts, how far their log-probabilities are from those of
the model as it is, the share that stays the most likely, and that of attempts all of whose tokens
do: these are what the quantized model writes as well.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from elenchus.model import logprobs, quantization
from elenchus.model.kv_cache import CacheDtype
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.train.config import cli
from elenchus.train.run.directory import from_root
from elenchus.train.run.workspace import Workspace

HELD = {
    'as it is': ('model', 'none'),
    'cache': ('int8', 'none'),
    'weights': ('model', 'int8'),
    'cache and weights': ('int8', 'int8'),
}
"""What is in int8: the cache's dtype, and how matrices are quantized."""

ROWS = 16  # whose logits are alive at once


class Distance(NamedTuple):
    """What a model in int8 is from the model as it is."""

    mean: float  # difference of log-probabilities, absolute
    largest: float
    tokens: float  # share that stays the most likely
    attempts: float  # share whose tokens all do


@functools.partial(jax.jit, static_argnames=('dtype', 'method'))
def read(model: Transformer, tokens: jax.Array, *, dtype: CacheDtype, method: Greedy):
    """Of tokens [N, T]: log-probabilities of all but the first, and which are the most likely.

    Both [N, T - 1], as sampling from a cache of `dtype` has them: what is kept of a position is
    what others attend to.
    """

    def of_row(tokens):
        hidden, _ = model(tokens[None], jnp.arange(tokens.shape[0])[None], return_cache=dtype)
        logits = method.transform(model.logits(hidden[0, :-1]))
        return logprobs.log_softmax_at(logits, tokens[1:])[0], logits.argmax(-1) == tokens[1:]

    return jax.lax.map(of_row, tokens, batch_size=ROWS)


def compare(
    model: Transformer, tokens: np.ndarray, written: np.ndarray, *, method: Greedy
) -> dict[str, Distance]:
    """By what is in int8. tokens [N, T]; written [N, T], True where one is the model's own."""
    known, found, own = {}, {}, written[:, 1:]
    for name, (dtype, kind) in HELD.items():
        held = quantization.quantize(model, kind)
        known[name], best = jax.device_get(read(held, tokens, dtype=dtype, method=method))
        off = np.abs(known[name][own] - known['as it is'][own])
        whole = (best | ~own).all(axis=1)
        parts = (off.mean(), off.max(), best[own].mean(), whole.mean())
        found[name] = Distance(*map(float, parts))
    return found


def attempts(
    workspace: Workspace, model: Transformer, *, num_problems: int, num_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy attempts with their questions, and which tokens are the attempts': `compare`'s."""
    sampler = dataclasses.replace(workspace.sampler(), max_tokens={'attempt': num_tokens})
    chat, asked = workspace.chat, workspace.test_problems[:num_problems]
    questions = [chat.question_turns(problem.question) for problem in asked]
    made = sampler.sample_turns(
        model, questions, 'attempt', spec=SampleSpec(1, workspace.greedy_method, 0, 0)
    )
    prompts = [chat.context(question, 'attempt') for question in questions]
    texts = [(*p, *turn.tokens) for p, (turn,) in zip(prompts, made, strict=True)]
    tokens = np.zeros((len(texts), max(map(len, texts))), np.int32)
    written = np.zeros(tokens.shape, bool)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        tokens[row, : len(text)] = text
        written[row, len(prompt) : len(text)] = True
    return tokens, written


def table(found: dict[str, Distance]) -> str:
    head = ('in int8', 'mean difference', 'largest', 'tokens that stay', 'attempts that stay')
    lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    for name, d in found.items():
        shares = f'{d.tokens:.2%} | {d.attempts:.1%}'
        lines.append(f'| {name} | {d.mean:.2g} | {d.largest:.2g} | {shares} |')
    return '\n'.join(lines)


def main(_) -> None:
    values = flags.FLAGS
    with cli.open_workspace() as workspace:
        model = workspace.load_checkpoint(from_root(values.model))
        tokens, written = attempts(
            workspace, model, num_problems=values.problems, num_tokens=values.tokens
        )
        found = compare(model, tokens, written, method=workspace.greedy_method)
    print(f'{values.model}: {written.sum()} tokens of {len(written)} attempts')
    print(table(found))


if __name__ == '__main__':
    cli.define_flags(stages=None)
    flags.DEFINE_string('model', None, 'Folder of a saved model.', required=True)
    flags.DEFINE_integer('problems', 128, 'Test problems that are attempted.', lower_bound=1)
    flags.DEFINE_integer('tokens', 60, 'The most tokens of an attempt.', lower_bound=1)
    cli.run_main(main)
