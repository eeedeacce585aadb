"""Corrections: resamples a token after a few gradient steps on its hidden state.

Where a turn pauses, a vector is fitted that is added to the last hidden states of the sequence so
far. The loss is a user's function of the logits with the vector: of the known tokens and of the
next one. The last token is then drawn from the corrected state. Weights and KV cache stay as they
are.
Source: SRGen, arXiv 2510.02919, and SLOT, arXiv 2505.12392, for the vector.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenchus.model import logprobs, placement
from elenchus.model.transformer import Transformer
from elenchus.sampling import user_functions
from elenchus.sampling.engine.decode import Noise
from elenchus.sampling.engine.sampling_methods import Method, RuledMethod
from elenchus.sampling.engine.token_rules import Place

ROWS, LENGTH_STEP = 8, 64
"""Shapes of a call: sequences, and what their padded length is a multiple of."""

MOST_STEPS = 1000
FIELD = 'sampling.after_pause'


@dataclasses.dataclass(frozen=True)
class Correction:
    """How the vector is fitted; static under jit, so hashable."""

    loss: Callable
    """(logits [T, V], targets [T], last) -> a number, in JAX. Before `last`, logits[t] predicts the
    known token targets[t]; logits[last] predicts the one that is drawn; what follows is padding."""

    steps: int  # of AdamW, from a vector of zeros
    learning_rate: float

    @staticmethod
    @functools.cache
    def of(after_pause: Callable | None) -> 'Correction | None':
        """Returns what a function of `sampling.after_pause` asks for by its attribute `loss`.

        Its attributes `steps` and `learning_rate` are of the fit. Raises ValueError, naming the
        function, if they are out of range.
        """
        loss = getattr(after_pause, 'loss', None)
        if loss is None:
            return None
        steps, rate = (getattr(after_pause, name, 0) for name in ('steps', 'learning_rate'))
        name = user_functions.name_of(getattr(after_pause, 'function', after_pause))
        if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
            raise ValueError(
                f'{FIELD}: {name}.steps={steps!r} must be a whole number in [1, {MOST_STEPS}]; '
                f'nearest: {1 if not isinstance(steps, int) or steps < 1 else MOST_STEPS}'
            )
        if not isinstance(rate, int | float) or not 0 < rate < float('inf'):
            raise ValueError(
                f'{FIELD}: {name}.learning_rate={rate!r} must be a number above 0, such as 0.01'
            )
        return Correction(loss, steps, float(rate))


class Drawn(NamedTuple):
    """The token that the corrected state gives in place of the last one of a paused turn."""

    token: int
    entropies: tuple[float, ...]  # nats, of the plain distribution of each token of the turn


class Paused(NamedTuple):
    """A sequence whose next token is drawn again."""

    tokens: Sequence[int]  # all before it
    request: int  # id, which selects the noise
    opening: int  # tokens of the turn among them, at the end


def draw_again(
    model: Transformer,
    sequences: Sequence[Paused],
    *,
    correction: Correction,
    method: Method,
    seed: int,
) -> list[Drawn]:
    """Draws the next token of each sequence from its corrected state, with its own noise."""
    drawn: list[Drawn] = []
    longest = max((len(s.tokens) for s in sequences), default=0)
    length = -(-longest // LENGTH_STEP) * LENGTH_STEP
    for first in range(0, len(sequences), ROWS):
        chunk = sequences[first : first + ROWS]
        tokens = np.zeros((ROWS, length), np.int32)
        numbers = np.full((3, ROWS), 2, np.int32)  # those of rows without a sequence
        for i, s in enumerate(chunk):
            tokens[i, : len(s.tokens)] = s.tokens
            numbers[:, i] = len(s.tokens), s.request, s.opening
        options = {'seed': np.uint32(seed), 'correction': correction, 'method': method}
        arrays = _draw(model, _Rows(tokens, *numbers), **options)
        for s, token, entropies in zip(chunk, *map(np.asarray, arrays), strict=False):
            start, end = len(s.tokens) - s.opening - 1, len(s.tokens)
            drawn.append(Drawn(int(token), tuple(entropies[start:end].tolist())))
    return drawn


class _Rows(NamedTuple):
    """Padded sequences; the fields are those of Paused."""

    tokens: jax.Array  # [B, T] int32
    lengths: jax.Array  # [B] int32
    requests: jax.Array
    openings: jax.Array


@placement.pinned_jit(static_argnames=('correction', 'method'), axes={'rows': placement.ROWS})
def _draw(
    model: Transformer,
    rows: _Rows,
    *,
    seed: jax.Array,
    correction: Correction,
    method: Method,
) -> tuple[jax.Array, jax.Array]:
    """Tokens [B] that follow sequences, and the entropies [B, T] of what each token predicts."""
    positions = jnp.broadcast_to(jnp.arange(rows.tokens.shape[1]), rows.tokens.shape)
    hidden, _ = model(rows.tokens, positions)
    targets = jnp.roll(rows.tokens, -1, axis=1)
    noise = Noise.draw(seed, rows.requests, rows.lengths, length=1).values[:, 0]

    def of_row(row):
        hidden, targets, length, opening, noise = row
        last = length - 1
        vector = fit_vector(model, hidden, correction, targets=targets, last=last)
        logits = model.logits(hidden[last] + vector.astype(hidden.dtype))
        if isinstance(method, RuledMethod):
            token, _ = method.sample(noise, logits, Place(length, opening, role=None))
        else:
            token, _ = method.sample(noise, logits)
        plain = model.logits(hidden)
        return token, logprobs.log_softmax_at(plain, targets)[1]

    # Row by row: the logits of all rows at once would take too much memory.
    return jax.lax.map(of_row, (hidden, targets, rows.lengths, rows.openings, noise))


def fit_vector(
    model: Transformer,
    hidden: jax.Array,
    correction: Correction,
    *,
    targets: jax.Array,
    last: jax.Array,
) -> jax.Array:
    """Returns the vector [D] after the steps; hidden [T, D], targets and last as in the loss.

    AdamW with the epsilon and weight decay of SRGen's authors.
    """

    def loss(vector):
        logits = model.logits(hidden + vector.astype(hidden.dtype))
        return correction.loss(logits, targets, last)

    optimizer = optax.adamw(correction.learning_rate, eps=1e-5, weight_decay=1e-8)

    def step(_, carry):
        vector, state = carry
        updates, state = optimizer.update(jax.grad(loss)(vector), state, vector)
        return optax.apply_updates(vector, updates), state

    zeros = jnp.zeros(hidden.shape[-1], 'float32')
    return jax.lax.fori_loop(0, correction.steps, step, (zeros, optimizer.init(zeros)))[0]
