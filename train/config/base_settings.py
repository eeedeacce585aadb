"""Settings of the stage `base`."""

import dataclasses

from elenchus.model.quantization import Quantization
from elenchus.model.ranges import PositiveInt, Share, checked
from elenchus.train.sft import FitSettings


@dataclasses.dataclass(frozen=True)
@checked('base.shares')
class BaseShares:
    """Mixture of documents of the lab's base model; the shares sum to 1."""

    drill: Share  # look-ups and sums alone
    worked: Share  # every quantity derived in small steps
    attempt: Share
    critique: Share
    refinement: Share

    def __post_init__(self):
        total = sum(dataclasses.astuple(self))
        if abs(total - 1) > 1e-6:
            raise ValueError(f'base.shares={self} must sum to 1, not {total}')


@dataclasses.dataclass(frozen=True)
@checked('base')
class BaseSettings:
    """The stage `base`: the model that actor and critic start from."""

    checkpoint: str  # saved model to start from; '': random weights
    num_documents: PositiveInt
    shares: BaseShares
    fit: FitSettings  # 0 steps: the checkpoint is used unchanged
    quantize: Quantization  # of the frozen base under adapters
