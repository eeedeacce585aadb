"""The load-balancing loss of experts, and metrics of their use."""

import jax
import jax.numpy as jnp

from elenchus.model import experts
from elenchus.train.objective import Sums


def with_expert_balance(sums: Sums, use: experts.ExpertUse, *, coef: float) -> Sums:
    """Adds coef * (mean of `experts.balance_loss` over the layers) to the loss, and metrics.

    The use [L, E] counts all tokens of `sums`, prompts included, because experts compute those too.
    The weight of the term is that of `sums`, so microbatches count as in the rest of the loss.
    """
    balance = experts.balance_loss(use).mean()
    load = use.chosen / jnp.maximum(use.chosen.mean(axis=-1, keepdims=True), 1e-6)
    means = {'experts/balance': balance, 'experts/unused': (use.chosen == 0).mean()}
    means = {name: jax.lax.stop_gradient(x) * sums.tokens for name, x in means.items()}
    return sums._replace(
        total=sums.total + coef * sums.weight * balance if coef else sums.total,
        metrics=sums.metrics | means,
        maxima=sums.maxima | {'experts/load_max': load.max()},
    )
