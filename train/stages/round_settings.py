"""Settings of one round of self-improvement: the config's, and what the controller changes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from elenchus.data.records import Problem
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.exploration import controller, round_changes
from elenchus.sampling.exploration.controller import CandidateSettings, Knobs
from elenchus.sampling.metrics.statistics import evenly_spaced
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config import round_fields
from elenchus.train.config.run_settings import ImproveSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.scoring import score_responses


class RoundSettings(NamedTuple):
    """What a round runs with."""

    settings: ImproveSettings
    samplers: Samplers  # of exploration
    threshold: float  # least critic's score of a response; 0: not scored
    figures: dict[str, Any]  # of the round's summary: the knobs, what was tried and changed
    tokens: int  # sampled to find out

    @property
    def temperature(self) -> float:
        """Temperature of exploration."""
        return self.samplers.settings.temperature


def settings_of_round(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    rounds: Sequence[Mapping],
    number: int,
    settings: ImproveSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> RoundSettings:
    """Returns the settings of round `number`, after the summaries of the `rounds` before it.

    They depend on these alone, and on candidates that are tried at `problems` with noise of their
    own: a round that is continued has the same. Raises ValueError, naming the controller, for a
    field that may not change, or a value that it may not have.
    """
    candidates, tokens = [], 0
    if round_changes.tries_candidates(settings.controller):
        candidates, tokens = try_candidates(
            pair,
            problems[: settings.num_problems],
            number=number,
            candidates=settings.candidates,
            worth=round_changes.worth_of(settings.controller),
            samplers=samplers,
            seed=seed,
            stage=stage,
        )
    sections = {'improve': settings, 'sampling': samplers.settings}
    changes, changed = round_fields.changed_by_controller(
        sections, rounds, number=number, candidates=candidates, num_problems=len(problems)
    )
    improve = changed['improve']
    sets_threshold = 'improve.threshold' in changes or improve.weighting == 'threshold'
    threshold = improve.threshold if sets_threshold else 0.0
    if changed['sampling'] is not samplers.settings:
        samplers = dataclasses.replace(samplers, settings=changed['sampling'])
    knobs = Knobs(samplers.settings.temperature, threshold)
    figures = {'knobs': knobs._asdict(), 'candidates': candidates}
    if settings.controller != 'none':
        figures['changes'] = changes
    return RoundSettings(improve, samplers, threshold, figures, tokens)


def try_candidates(
    pair: ModelPair,
    problems: Sequence[Problem],
    *,
    number: int,
    candidates: CandidateSettings,
    worth: Callable | None,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[list[dict], int]:
    """Returns what every candidate is worth, and the tokens sampled to find out.

    All candidate temperatures are tried on the same questions with the same noise.
    """
    s = candidates
    problems, trials, spent = evenly_spaced(problems, s.num_problems), {}, 0
    for temperature in s.temperatures:
        parts = stage.parts(
            f'candidates/{temperature}', problems, description=f'temperature {temperature}'
        )
        for part in parts.missing():
            attempts = episode_lib.sample_attempts(
                pair.sampler,
                pair.actor,
                part.items,
                judge=pair.judge,
                spec=SampleSpec(
                    s.num_attempts,
                    samplers.method(temperature),
                    derive_seed(seed, 'candidates', number),
                    part.first * s.num_attempts,
                ),
            )
            scored, tokens = score_responses(pair, attempts, samplers=samplers)
            part.write(scored, tokens + episode_lib.sampled_tokens(attempts))
        trials[temperature], tokens = parts.read()
        spent += tokens
    return controller.score_candidates(trials, s, worth), spent
