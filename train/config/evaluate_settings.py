"""Settings of evaluation: whose models play, what they sample, and which figures are computed."""

import dataclasses
from typing import Annotated

from elenchus.model.lora import LoraSettings
from elenchus.model.ranges import NonNegativeInt, Range, SampleCount, checked
from elenchus.sampling.exploration.making import MAKES
from elenchus.sampling.metrics.measures import CONDITIONS, MEASURES, check_names
from elenchus.sampling.slots import Slot
from elenchus.sampling.test_time.beam import BeamSettings
from elenchus.sampling.test_time.feedback import FEEDBACKS
from elenchus.sampling.test_time.gates import GATES
from elenchus.sampling.test_time.uptake import UptakeSettings
from elenchus.train.config.stage_names import StartName
from elenchus.train.sft import FitSettings

ProblemCount = Annotated[int, Range(1, 10_000_000)]
ResampleCount = Annotated[int, Range(1, 1_000_000)]
Rounds = Annotated[int, Range(1, 1000)]

WHENS = Slot('(group) -> a boolean', {'always': lambda group: True})
"""(judged attempts at a question, with the problem) -> whether the actor is trained for it."""


@dataclasses.dataclass(frozen=True)
@checked('evaluate.adapt')
class AdaptSettings:
    """Test-time training: adapters that are trained for one question, and dropped after it."""

    make: Annotated[str, MAKES]  # what they are trained on; 'none': off
    when: Annotated[str, WHENS]  # the questions, by their plain attempts
    fit: FitSettings
    lora: LoraSettings  # new adapters; an actor that has adapters continues with its own

    def __post_init__(self):
        if self.make == 'none' and self.when != 'always':
            raise ValueError(
                f'evaluate.adapt.when={self.when!r} chooses questions for no adapters; set '
                'evaluate.adapt.make to a function that makes what they are trained on'
            )
        for name, value in (('lora.rank', self.lora.rank), ('fit.num_steps', self.fit.num_steps)):
            if self.make != 'none' and not value:
                raise ValueError(
                    f'evaluate.adapt.{name}=0 trains no adapters on what evaluate.adapt.make='
                    f'{self.make!r} makes; nearest: 1'
                )


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
    measures: tuple[Annotated[str, MEASURES], ...]  # user functions: further figures
    conditions: tuple[Annotated[str, CONDITIONS], ...]  # guides, or edits of the question
    feedback: Annotated[str, FEEDBACKS]  # text that is appended to a critique
    adapt: AdaptSettings

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
