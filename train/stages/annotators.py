"""The annotator of critique data that a config names."""

from collections.abc import Callable

from elenchus.data.critiques import oracle
from elenchus.data.critiques.calculator.annotator import calculator
from elenchus.data.critiques.oracle import Annotator
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data import annotators, api_annotator
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config.run_settings import CritiqueSettings
from elenchus.train.run.paths import resolve
from elenchus.train.run.samplers import Samplers

AnnotatorFactory = Callable[[Sampler, int], Annotator]
"""(sampler, index of the first attempt among all, for the noise) -> annotator."""


def make_annotator(
    settings: CritiqueSettings,
    *,
    actor: Transformer,
    model: Transformer | None,
    samplers: Samplers,
    seed: int,
) -> AnnotatorFactory:
    """Returns the annotator `settings.annotator`.

    `model` samples the critiques of 'model'; on the lab it writes the words, not the verdicts, of
    'monte_carlo'.
    """
    s, inputs = settings, samplers.inputs
    if s.annotator == 'oracle':
        return lambda sampler, first: oracle.oracle
    if s.annotator == 'calculator':
        by_calculation = calculator(form=s.form, seed=seed, grammar=inputs.grammar)
        return lambda sampler, first: by_calculation
    if s.annotator == 'api':
        by_api = api_annotator.api_annotator(s.api, resolve(s.api.cache))
        return lambda sampler, first: by_api
    if s.annotator == 'file':
        from_file = oracle.from_file(resolve(s.annotator_path))
        return lambda sampler, first: from_file
    if s.annotator == 'model':
        return lambda sampler, first: annotators.model_annotator(
            sampler,
            model,
            grammar=inputs.grammar,
            spec=SampleSpec.greedy(samplers.greedy()),
        )
    # Every token of every rollout may need a request id of its own.
    ids = samplers.settings.attempt_tokens * s.num_rollouts
    return lambda sampler, first: annotators.monte_carlo_annotator(
        sampler,
        actor,
        model,
        judge=inputs.judge,
        grammar=inputs.grammar,
        threshold=s.rollout_threshold,
        labels=s.labels,
        spec=SampleSpec(
            s.num_rollouts, samplers.method(), derive_seed(seed, 'rollout'), first * ids
        ),
    )
