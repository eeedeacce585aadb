"""SRGen: before an uncertain token a vector is fitted that corrects the model's state.

It is added to the last hidden states, and fitted to the context and to a surer next token.

Formula: unsure iff H_t > max(mean + K std of the N entropies before, 1.8), std at least 0.5; 3.0
before there are N. v minimises (1 - l) CE(context; h + v) + l H(h_t + v) by 3 steps of AdamW.
Source: arXiv 2510.02919; scripts/parallel_aime_distill_qwen.sh of github.com/2020-qqtcg/SRGen,
7e07581: N 25, K 4, l 0.05, learning rate 0.01, at most 20 tokens.
Differs: an end token is not drawn again; entropies are at temperature 1; corrected tokens count as
read, and are never trained. On the lab, of few words, N is 8, K 1, and 0.3 stands for 1.8 and 3.0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.configs import method

HERE = 'elenchus.configs.methods.srgen'
WEIGHT, MOST, LEAST, LAB_LEAST = 0.05, 20, 1.8, 0.3


def entropy(logits):
    """Entropy in nats of the distributions of logits [..., V]."""
    return jax.scipy.special.entr(jax.nn.softmax(logits)).sum(axis=-1)


def loss(logits, targets, last):
    """What the vector minimises."""
    likely = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]
    nll = -jnp.where(jnp.arange(len(targets)) < last, likely, 0.0).sum() / last
    return (1 - WEIGHT) * nll + WEIGHT * entropy(logits[last])


def unsure(token, logits, where):
    """Where the host looks: above the least threshold."""
    return entropy(logits) > (LEAST if logits.shape[-1] > 1000 else LAB_LEAST)


def reflect(text, pause, *, window=25, factor=4.0, least=LEAST, threshold=3.0):
    """Draws the last token again if its entropy is above the threshold of those before."""
    *recent, last = pause.entropies[-window - 1 :]
    if len(recent) == window:
        threshold = max(np.mean(recent) + factor * max(np.std(recent, ddof=1), 0.5), least)
    return None if last > threshold and pause.redrawn < MOST else True


def lab_reflect(text, pause):
    """The lab's."""
    return reflect(text, pause, window=8, factor=1.0, least=LAB_LEAST, threshold=LAB_LEAST)


for function in (reflect, lab_reflect):
    function.loss, function.steps, function.learning_rate = loss, 3, 0.01
CHANGES = {'sampling.pause': f'{HERE}:unsure', 'sampling.after_pause': f'{HERE}:reflect'}
LAB = {'sampling.after_pause': f'{HERE}:lab_reflect'}
get_config = method.of(CHANGES, stages=method.EVALUATE, lab_changes=LAB)
