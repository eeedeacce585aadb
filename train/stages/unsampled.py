"""Controls of self-improvement that sample no response: demonstrations alone, or references."""

import dataclasses
from collections.abc import Sequence

from elenchus.data.records import Episode, Example, Problem
from elenchus.sampling.exploration import coverage
from elenchus.sampling.metrics.statistics import evenly_spaced
from elenchus.sampling.model_pair import ModelPair
from elenchus.train.config.run_settings import ImproveSettings
from elenchus.train.run.directory import StageFolder


def unsampled_responses(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    settings: ImproveSettings,
    stage: StageFolder,
) -> tuple[list[Example], dict]:
    """Returns the examples of a round that samples no responses, and the round's figures.

    responses='none': no examples, so that only the restart and the demonstrations act.
    'references': the solutions of `num_references` evenly spaced problems. Figures of exploration
    are None. Raises ValueError if too few problems have a solution.
    """
    references = reference_episodes(pair, problems)
    chosen: Sequence[Episode] = []
    if settings.responses == 'references':
        if len(references) < settings.num_references:
            raise ValueError(
                f'improve.num_references={settings.num_references} must be at most '
                f'{len(references)}, the explored problems with a solution'
            )
        chosen = evenly_spaced(references, settings.num_references)
    stage.write_episodes(chosen)
    examples = [
        pair.sampler.chat.example(e.turns, trained=('attempt',), weights=None, last_only=True)
        for e in chosen
    ]
    return examples, {
        'exploration': None,
        'problems_solved': None,
        'tokens_monitored': 0,
        **coverage.kept_summary(chosen, references),
        'knobs': None,
        'candidates': [],
        'tokens_sampled': 0,
    }


def reference_episodes(pair: ModelPair, problems: Sequence[Problem]) -> list[Episode]:
    """Returns question -> reference solution, judged, of the problems that have one."""
    chat, solved = pair.sampler.chat, [p for p in problems if p.solution]
    facts = pair.judge([(p, p.solution) for p in solved])
    return [
        Episode(
            p.id,
            p.level,
            (
                *chat.question_turns(p.question),
                dataclasses.replace(chat.text_turn('attempt', p.solution), facts=judged),
            ),
        ).with_turn_facts('attempt', origin='reference')
        for p, judged in zip(solved, facts, strict=True)
    ]
