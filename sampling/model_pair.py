"""The actor and the critic together with what they need to write and to be judged."""

import dataclasses

from elenchus.data.critiques import grammars
from elenchus.data.grading.judge import Judge
from elenchus.model.transformer import Transformer
from elenchus.sampling.episodes import Sampler


@dataclasses.dataclass(frozen=True)
class ModelPair:
    """Actor and critic, their sampler, the answer checker and the grammar of critiques."""

    sampler: Sampler
    actor: Transformer
    critic: Transformer
    judge: Judge
    grammar: grammars.Grammar
