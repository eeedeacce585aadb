"""Texts that a fit replays beside its own examples, so that the model does not forget them.

Each step adds the loss of some texts of a small fixed set: their cross-entropy and, by the slot
`actor.replay.hidden`, a penalty of hidden states that leave what they were before the fit.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Example
from elenchus.model import logprobs, lora
from elenchus.model.ranges import Coefficient, NonNegativeInt, checked
from elenchus.model.transformer import Transformer
from elenchus.sampling import user_functions
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.slots import Slot
from elenchus.train.loop import to_device
from elenchus.train.sft import perplexities
from elenchus.train.step import IDENTITY

FIELD = 'actor.replay.hidden'

PENALTIES = Slot(
    '(hidden [B, T, D], before [B, T, D], mask [B, T]) -> [B, T], in JAX',
    {'none': lambda hidden, before, mask: jnp.zeros(mask.shape)},
)
"""(hidden states, those before the fit, mask) -> penalty of each token.

Hidden states are the last, behind the final norm. The mask is 1 on tokens and 0 on padding."""


@dataclasses.dataclass(frozen=True)
@checked('actor.replay')
class ReplaySettings:
    """A fixed set of the base's documents that the fit of the actor replays."""

    num_documents: NonNegativeInt  # of the set; 0: off
    hidden: Annotated[str, PENALTIES]  # penalty of hidden states that differ from those before
    hidden_coef: Coefficient  # weight of its mean over tokens, beside the cross-entropy

    def __post_init__(self):
        if self.hidden != 'none' and not self.num_documents:
            raise ValueError(
                f'{FIELD}={self.hidden!r} is of replayed documents: set '
                "actor.replay.num_documents above 0; nearest: hidden='none'"
            )


class Replayed(NamedTuple):
    """What a step replays."""

    batch: Batch
    before: Transformer  # the model before the fit


class Replay:
    """The texts of a fit, and the loss that they add to each step."""

    def __init__(self, settings: ReplaySettings, texts: Sequence[Example], *, seed: int):
        self._settings, self._texts, self._seed = settings, texts, seed
        # In steps of 64 as elsewhere: fewer shapes.
        self._length = -(-max(len(text.tokens) for text in texts) // 64) * 64

    def batch(self, step: int, *, rows: int) -> Batch:
        """Returns the texts of a step, one a row; they depend on the seed and the step alone."""
        rng = np.random.default_rng(derive_seed(self._seed, 'replay', step))
        chosen = rng.choice(len(self._texts), rows, replace=len(self._texts) < rows)
        return packing.pad([self._texts[i] for i in chosen], length=self._length)

    def inputs(self, step: int, before: Transformer, *, rows: int) -> Replayed:
        """Returns the argument `extra` of a step; `before` is the model before the fit."""
        return Replayed(to_device(self.batch(step, rows=rows)), before)

    def figures(self, before: Transformer, after: Transformer, *, rows: int) -> dict[str, float]:
        """Returns the mean perplexity of all texts under two models, and their number."""
        means = [np.mean(perplexities(m, self._texts, rows=rows)) for m in (before, after)]
        names = ('perplexity_before', 'perplexity_after')
        values = dict(zip(names, map(float, means), strict=True))
        return {'documents': len(self._texts), **values}

    def loss(
        self,
        model: Transformer | lora.Adapters,
        replayed: Replayed,
        frozen: Transformer | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns (loss, metrics) of replayed texts.

        Raises ValueError if the function of PENALTIES returns another shape.
        """
        batch, s = replayed.batch, self._settings
        joined = lora.join(model, frozen)
        read = lambda m: m(batch.tokens, batch.positions, segments=batch.segments)[0]  # noqa: E731
        hidden = read(joined)
        scores, _ = logprobs.token_logprobs(joined, hidden, batch.tokens, transform=IDENTITY)
        nll = -(scores * batch.loss_mask).sum() / batch.loss_mask.sum()
        metrics = {'replay/nll': nll}
        if s.hidden == 'none':
            return nll, metrics
        mask = (batch.segments > 0).astype('float32')
        before = jax.lax.stop_gradient(read(replayed.before)).astype('float32')
        penalty = penalties(s.hidden, hidden.astype('float32'), before, mask=mask)
        metrics['replay/hidden'] = (penalty * mask).sum() / mask.sum()
        return nll + s.hidden_coef * metrics['replay/hidden'], metrics


def penalties(name: str, hidden: jax.Array, before: jax.Array, *, mask: jax.Array) -> jax.Array:
    """Returns the penalty of each token [B, T] by a function of PENALTIES.

    Raises ValueError if it returns another shape.
    """
    function = PENALTIES.find(name, FIELD)
    returned = function(hidden, before, mask)
    dtype = getattr(returned, 'dtype', np.dtype(object))
    if not jnp.issubdtype(dtype, jnp.floating) or returned.shape != mask.shape:
        wanted = f'numbers of shape {list(mask.shape)}, one for each token'
        user_functions.refuse(function, returned, wanted, field=FIELD)
    return returned
