"""Settings of the section `sampling`."""

import dataclasses
from typing import Annotated

from elenchus.data.records import PLAYER_OF_ROLE
from elenchus.model.ranges import Length, PositiveInt, checked
from elenchus.sampling.engine.sampling_methods import MinP, Temperature, TopK, TopP
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.engine.token_rules import LOGITS, PAUSES
from elenchus.sampling.paused_turns import AFTER_PAUSES
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.tools import ToolSettings
from elenchus.sampling.trees.search import TreeSettings


@dataclasses.dataclass(frozen=True)
@checked('sampling')
class SamplingSettings:
    """Sampling of turns and scoring of steps."""

    engine: EngineSettings
    attempt_tokens: Length
    critique_tokens: Length
    refinement_tokens: Length
    temperature: Temperature
    top_k: TopK
    top_p: TopP
    min_p: MinP
    logits: Annotated[str, LOGITS]  # rule that changes logits by the place of a token
    pause: Annotated[str, PAUSES]  # rule after which tokens a turn pauses
    after_pause: Annotated[str, AFTER_PAUSES]  # how a paused turn goes on
    tools: ToolSettings
    tree: TreeSettings
    score: ScoreShapes
    part_size: PositiveInt  # problems in a file of episodes; a stage resumes after the last file

    def __post_init__(self):
        if self.pause == 'none' and self.after_pause != 'stop':
            raise ValueError(
                f"sampling.after_pause={self.after_pause!r} needs sampling.pause, such as 'line'"
            )
        if self.pause != 'none' and self.tools.use:
            raise ValueError(
                f'sampling.pause={self.pause!r}: with sampling.tools.use turns pause for calls '
                "alone; nearest: 'none'"
            )

    @property
    def pauses(self) -> bool:
        """Whether turns may pause."""
        return self.pause != 'none' or bool(self.tools.use)

    @property
    def limits(self) -> dict[str, int]:
        """Longest turn in tokens, by role."""
        return {role: getattr(self, f'{role}_tokens') for role in PLAYER_OF_ROLE}

    @property
    def prompt_room(self) -> int:
        """Tokens of the longest prompt that an attempt may follow."""
        engine = self.sampler_engine
        return min(engine.prompt_buckets[-1], engine.sequence_length - self.attempt_tokens)

    @property
    def sampler_engine(self) -> EngineSettings:
        """Settings of an engine; for turns that pause, with prompts of every length."""
        buckets = self.engine.prompt_buckets
        if not self.pauses or buckets[-1] == self.engine.max_length:
            return self.engine
        longer = (*buckets, self.engine.max_length)
        return dataclasses.replace(self.engine, prompt_buckets=longer)
