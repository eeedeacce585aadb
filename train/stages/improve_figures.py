"""Computes the figures of a round of self-improvement: coverage, lengths, perplexities, scores."""

from collections.abc import Mapping, Sequence

from elenchus.data.records import Episode, Example
from elenchus.sampling.exploration import coverage
from elenchus.sampling.exploration.context import counts_as_right
from elenchus.sampling.metrics.statistics import evenly_spaced
from elenchus.sampling.model_pair import ModelPair
from elenchus.train import sft
from elenchus.train.config.run_settings import ImproveSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.scoring import score_responses


def coverage_figures(
    pair: ModelPair,
    explored: Sequence[Episode],
    kept: Sequence[Episode],
    *,
    examples: Mapping[str, Sequence[Example]],
    rows: int,
    settings: ImproveSettings,
    samplers: Samplers,
    stage: StageFolder,
) -> dict:
    """Returns what exploration covers and what is kept of it.

    The sets of `examples` are compared by length and, with `num_monitored` examples of each, by
    perplexity under the actor that explored.
    """
    figures = coverage.exploration_summary(explored)
    lengths = {
        name: [float(e.loss_mask.sum()) for e in examples_of]
        for name, examples_of in examples.items()
    }
    summary = {
        'exploration': figures | {'lengths': coverage.histograms(lengths)},
        'problems_solved': figures['coverage']['all'],
        'tokens_monitored': 0,
        **coverage.kept_summary([e for e in kept if counts_as_right(e.attempt)], explored),
    }
    if settings.explore.accept != 'right':  # how often what was accepted is right
        accepted = [e for e in explored if counts_as_right(e.response)]
        right = [bool(e.response.facts.correct) for e in accepted]
        summary['accepted_right'] = sum(right) / len(right) if right else None
    count = settings.num_monitored
    if count:
        summary['exploration']['perplexities'] = coverage.histograms(
            {
                name: sft.perplexities(pair.actor, evenly_spaced(examples_of, count), rows=rows)
                for name, examples_of in examples.items()
            }
        )
        attempts = [e for e in explored if e.response.facts.origin == 'attempt']
        attempts = attempts[: count * settings.explore.num_attempts]
        parts = stage.parts('scored', attempts, description='score attempts')
        for part in parts.missing():
            part.write(*score_responses(pair, part.items, samplers=samplers))
        scored, summary['tokens_monitored'] = parts.read()
        summary['exploitation'] = coverage.exploitation_summary(scored)
    return summary
