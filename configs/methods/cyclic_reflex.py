"""CyclicReflex: words of reflection become likely and unlikely in turn, over a response.

Too few of them end a thought too early, too many never end it. So their logits follow a triangle in
the number of tokens that the response has. Nothing is trained.

Formula: logit(w) += A tri(n / P); tri(u) = 4u, 2 - 4u, 4u - 4 up to u = 1/4, 3/4, 1; A 5, P 1200.
Source: arXiv 2506.11077; Base/evaluate.py of github.com/OPTML-Group/CyclicReflex, 1987e20.
Differs: the wave goes on behind a thought's end, and acts in all stages that sample an actor;
on the lab, whose talks reflect by verdicts, the word is `wrong`, and P = 60.
"""

import jax.numpy as jnp

from elenchus.configs import method

HERE = 'elenchus.configs.methods.cyclic_reflex'


def triangle(logits, where, *, words, period, amplitude=5.0):
    """Adds the triangle to the logits of the words."""
    u = where.turn_position % period / period
    height = amplitude * (1 - 4 * jnp.abs((u + 0.25) % 1 - 0.5))
    ids = jnp.array([i for word in words for i in where.ids[word]])
    return logits.at[..., ids].add(height[..., None])


def wave(logits, where):
    """The published wave."""
    return triangle(logits, where, words=wave.words, period=1200)


def lab_wave(logits, where):
    """The lab's."""
    return triangle(logits, where, words=lab_wave.words, period=60)


wave.words = ('wait', 'Wait', 'but', 'But', 'Alternatively')
lab_wave.words = ('wrong',)
CHANGES = {'sampling.logits': f'{HERE}:wave'}
LAB = {'sampling.logits': f'{HERE}:lab_wave'}
get_config = method.of(CHANGES, stages=(*method.EVALUATE, 'self_talk'), lab_changes=LAB)
