"""ID-Sampling: a sentence that triggers self-correction, at budgets that grow geometrically.

A response that has used up its budget is asked to check itself and goes on with a larger one. Early
triggers find early mistakes; the growth keeps their number logarithmic in the length.

Formula: the trigger stands behind B, gamma B, gamma^2 B, ... tokens of the response, gamma = 2.
Source: arXiv 2502.05449 (abstract and summaries); its sentence and first budget were not found.
Differs: a response that ends before its budget stays as it is; B = 512 is ours, on the lab 24; the
lab has no words for the sentence, which there is the question mark behind a question's target.
"""

import jax.numpy as jnp

from elenchus.configs import method

HERE = 'elenchus.configs.methods.id_sampling'
GAMMA, TRIGGERS = 2, 6


def budgets(first):
    """The numbers of tokens after which a response pauses."""
    return [first * GAMMA**i for i in range(TRIGGERS)]


def at_budgets(token, logits, where, *, first=512):
    """Whether a token is the last of a budget."""
    return jnp.isin(where.turn_position + 1, jnp.array(budgets(first)))


def at_lab_budgets(token, logits, where):
    """The same with the lab's first budget."""
    return at_budgets(token, logits, where, first=24)


def trigger(text, pause):
    """The sentence."""
    return '\nWait, let me check what I have so far.\n'


def lab_trigger(text, pause):
    """The lab's."""
    return ' ?\n'


CHANGES = {'sampling.pause': f'{HERE}:at_budgets', 'sampling.after_pause': f'{HERE}:trigger'}
LAB = {'sampling.pause': f'{HERE}:at_lab_budgets', 'sampling.after_pause': f'{HERE}:lab_trigger'}
get_config = method.of(CHANGES, stages=method.EVALUATE, lab_changes=LAB)
