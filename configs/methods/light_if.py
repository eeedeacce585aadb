"""Light-IF's entropy-preserving SFT: tokens that are learnt already, or sure, are left out.

Fine-tuning on a narrow set makes a model sure of everything, and reinforcement then explores
nothing. Only the tokens with the largest loss for their entropy are trained.

Formula: mean cross-entropy over the 80 % of tokens with the largest CE - 0.8 H.
Source: arXiv 2508.03178; github.com/Qihoo360/Light-IF, 01e9003.
Differs: tokens are ranked within a microbatch. TEA-RL, the entropy bonus a token in reinforcement,
and the choice of prompts by difficulty are not here.
"""

import jax.numpy as jnp

from elenchus.configs import method

SHARE, ENTROPY = 0.8, 0.8


def kept(logprobs, entropy, batch):
    """N / kept on the tokens that are kept of N, 0 on others."""
    mask = batch.loss_mask > 0
    scores = jnp.where(mask, -logprobs - ENTROPY * entropy, -jnp.inf).ravel()
    rank = jnp.argsort(jnp.argsort(-scores)).reshape(mask.shape)
    count = jnp.ceil(SHARE * mask.sum() - 1e-6)
    return (rank < count) * mask * mask.sum() / jnp.maximum(count, 1)


CHANGES = {
    'actor.fit.reweigh': 'elenchus.configs.methods.light_if:kept',
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
