"""Which objectives may train on episodes that another policy sampled."""

from collections.abc import Mapping

from elenchus.train.objective import Objective


def check_ratio(
    objective: Objective, *, num_updates: int, sampled_by_others: Mapping[str, float]
) -> None:
    """Raises ValueError if episodes of another policy are trained on without a ratio to it.

    `sampled_by_others`: the settings, by name, that bring such episodes if they are not 0.
    """
    others = ' and '.join(f'{name}={x}' for name, x in sampled_by_others.items() if x)
    if objective.on_policy and (others or num_updates > 1):
        raise ValueError(
            f'reinforce.objective.on_policy=True with {num_updates} updates an iteration'
            f'{others and f" and {others}"}: set it to False, or num_minibatches and num_epochs '
            'to 1 and the others to 0'
        )
    if objective.surrogate == 'logprob' and others:
        raise ValueError(
            f"reinforce.objective.surrogate='logprob' with {others}, which needs a ratio to the "
            "policy that sampled; nearest: 'clip'"
        )
