"""MindGYM: a scaffold is read at first, and taken away as training goes on.

A model is trained in turn on question and thinking -> answer, and at last on the question alone.
The scaffold shows what to do while the task is new; the model must end without it.

Formula: the guide of an example is read with probability 1 - t / T at step t of T, else hidden.
Source: arXiv 2503.09499; data_process/process.py and train/step-1.sh to step-4.sh of
github.com/modelscope/data-juicer, branch MindGYM, 35b06b3.
Differs: the guide (the answer or the whole solution) fades from example to example, where the
authors train four sets in order: scaffolded answer, thinking from the answer, both, answer alone;
questions are given, not synthesised from single hops. No images.
"""

import jax
import jax.numpy as jnp

from elenchus.configs import method

GUIDE = 2
"""The role of a guide's tokens in a batch."""


def faded(batch, key, progress):
    """Tokens as they are read: guides of some examples are hidden behind the token before them."""
    draws = jax.random.uniform(key, (batch.tokens.shape[0], batch.tokens.shape[1] + 1))
    is_hidden = jnp.take_along_axis(draws, batch.segments, 1) < progress
    is_guide = batch.roles == GUIDE
    places = jnp.arange(batch.tokens.shape[1])
    last = jax.lax.cummax(jnp.where(is_guide, 0, places), axis=1)
    before = jnp.take_along_axis(batch.tokens, last, 1)
    return jnp.where(is_guide & is_hidden, before, batch.tokens)


CHANGES = {
    'actor.guided_per_problem': 2,
    'actor.fit.read': 'elenchus.configs.methods.mind_gym:faded',
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
