"""Step scores of responses, for selection and weights in self-improvement."""

import dataclasses
from collections.abc import Sequence

from elenchus.data.records import Episode
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.step_scores import score_steps
from elenchus.train.run.directory import derive_seed
from elenchus.train.run.samplers import Samplers


def score_responses(
    pair: ModelPair, responses: Sequence[Episode], *, samplers: Samplers, seed: int
) -> tuple[list[Episode], int]:
    """Adds the critic's scores of steps and answer to responses; returns the critiques' tokens."""
    scored = score_steps(
        pair,
        responses,
        scorer=samplers.scorer(),
        greedy=samplers.greedy(),
        seed=derive_seed(seed, 'improve') + 3,
    )
    num_tokens = sum(len(episode.turns[-1].tokens) for episode in scored)
    return [dataclasses.replace(e, turns=e.turns[:-1]) for e in scored], num_tokens
