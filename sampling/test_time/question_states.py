"""Reads a model's hidden states before it attempts a question, for probes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.records import Problem
from elenchus.model import placement
from elenchus.model.transformer import Transformer
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.step_scores import ScoreShapes


@placement.pinned_jit(axes=dict.fromkeys(('tokens', 'lengths'), placement.ROWS))
def last_states(model: Transformer, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """Final hidden states [B, D], float32, of the last of `lengths` [B] tokens of [B, T]."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = model(tokens, positions)
    return jax.vmap(lambda row, at: row[at])(hidden, lengths - 1).astype('float32')


def question_states(
    models: ModelPair, problems: Sequence[Problem], *, shapes: ScoreShapes
) -> np.ndarray:
    """Returns the actor's states [N, D] where it would begin to attempt each of N problems.

    Raises ValueError if a prompt is longer than the rows.
    """
    chat, states = models.sampler.chat, []
    prompts = [chat.context(chat.question_turns(p.question), 'attempt') for p in problems]
    longest = max(map(len, prompts))
    if longest > shapes.lengths[-1]:
        raise ValueError(
            f'a question has {longest} tokens: sampling.score.lengths={shapes.lengths} must end '
            'with at least that many'
        )
    length = next(n for n in shapes.lengths if n >= longest)
    for first in range(0, len(prompts), shapes.rows):
        chunk = prompts[first : first + shapes.rows]
        tokens, lengths = np.zeros((shapes.rows, length), np.int32), np.ones(shapes.rows, np.int32)
        for row, prompt in enumerate(chunk):
            tokens[row, : len(prompt)], lengths[row] = prompt, len(prompt)
        states.append(np.asarray(last_states(models.actor, tokens, lengths))[: len(chunk)])
    return np.concatenate(states)
