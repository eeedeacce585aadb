"""Step scores of responses, for selection and weights in self-improvement."""

import dataclasses
from collections.abc import Sequence

from elenchus.data.records import Episode
from elenchus.sampling.episodes import sample_critiques
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.step_scores import score_steps
from elenchus.train.run.samplers import Samplers


def score_responses(
    pair: ModelPair, responses: Sequence[Episode], *, samplers: Samplers
) -> tuple[list[Episode], int]:
    """Adds the critic's scores of steps and answer to responses; returns the critiques' tokens."""
    criticised = sample_critiques(
        pair.sampler,
        pair.critic,
        responses,
        grammar=pair.grammar,
        spec=SampleSpec.greedy(samplers.greedy()),
    )
    scored = score_steps(pair, criticised, scorer=samplers.scorer())
    num_tokens = sum(len(episode.turns[-1].tokens) for episode in scored)
    return [dataclasses.replace(e, turns=e.turns[:-1]) for e in scored], num_tokens
