"""Settings of evaluation: whose models play, what they sample, and which figures are computed."""

import dataclasses
from typing import Annotated

from elenchus.model.ranges import NonNegativeInt, Range, SampleCount, checked
from elenchus.sampling.metrics.measures import CONDITIONS, MEASURES, check_names
from elenchus.sampling.test_time.beam import BeamSettings
from elenchus.sampling.test_time.feedback import FEEDBACKS
from elenchus.sampling.test_time.gates import GATES
from elenchus.sampling.test_time.uptake import UptakeSettings
from elenchus.train.config.stage_names import StartName

ProblemCount = Annotated[int, Range(1, 10_000_000)]
ResampleCount = Annotated[int, Range(1, 1_000_000)]
Rounds = Annotated[int, Range(1, 1000)]


@dataclasses.dataclass(frozen=True)
@checked('evaluate')
class EvaluateSettings:
    """The stage `evaluate`: accuracy and cost with and without critique."""

    start: StartName  # stage whose model attempts; any stage's may
    critic_start: StartName  # stage whose model criticises
    num_problems: ProblemCount
    num_attempts: SampleCount
    refine: Annotated[str, GATES]  # 'wrong': only what the critic calls wrong or garbles
    num_rounds: Rounds  # of critique and refinement; 1 is none beyond the first
    oracle: bool  # also refine what is truly wrong: an upper bound
    uptake: UptakeSettings
    beam: BeamSettings
    tree_problems: NonNegativeInt  # the first so many test questions are searched by trees
    num_draws: ResampleCount  # subsets of attempts that estimate a majority of k
    num_bins: SampleCount  # of calibration and uncertainty
    num_resamples: ResampleCount
    confidence: Annotated[float, Range(0.01, 0.9999)]
    budget: NonNegativeInt  # processed tokens a question; 0: no choice is reported
    measures: tuple[Annotated[str, MEASURES], ...]  # further figures, of one's own
    conditions: tuple[Annotated[str, CONDITIONS], ...]  # guides before attempts
    feedback: Annotated[str, FEEDBACKS]  # what a refinement reads behind its critique

    def __post_init__(self):
        check_names('evaluate', measures=self.measures, conditions=self.conditions)
        if self.beam.width and not 1 <= self.beam.num_problems <= self.num_problems:
            raise ValueError(
                f'evaluate.beam.num_problems={self.beam.num_problems} must be in '
                f'[1, {self.num_problems}], evaluate.num_problems'
            )
        if self.tree_problems > self.num_problems:
            raise ValueError(
                f'evaluate.tree_problems={self.tree_problems} must be in '
                f'[0, {self.num_problems}], evaluate.num_problems'
            )
