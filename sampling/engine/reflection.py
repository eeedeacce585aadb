"""Reflective verification: a step reads its draft again, after a text that asks to check it.

One forward pass reads [last token, draft, reflection, draft again]. The logits z0 at the first copy
are the model's own; the logits z_r at the second copy are those of a model that has read the whole
draft. Tokens are sampled from (1 - a) z0 + a z_r, so that a draft with the same meaning is rejected
less often than with z0 alone. The token after the draft is sampled from z0.

So, unlike with prompt lookup, samples depend on the drafts. They do not depend on scheduling,
because the steps of a sequence and their drafts follow from its tokens. Source: arXiv 2505.18629;
a = 0.3 and the order of the copies are from a third party's code, the text is the caller's.
"""

import dataclasses

import jax
import jax.numpy as jnp

from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.prompt_lookup import PromptLookup


@dataclasses.dataclass(frozen=True)
class Reflection(PromptLookup):
    """Prompt lookup whose drafts are read again behind the tokens `ids`, with the weight a."""

    ids: tuple[int, ...]
    weight: float

    @property
    def num_read(self) -> int:
        """Tokens that a step reads; the second copy lacks the last token, which predicts none."""
        return 2 * self.num_tokens + len(self.ids)

    @property
    def num_logits(self) -> int:
        """Positions of a step whose logits are computed."""
        return 1 + 2 * self.num_tokens

    @property
    def room(self) -> int:
        """All that a step reads changes its samples, so the cache holds it also at the end."""
        return self.num_read - 1

    def sequence(self, last: jax.Array, draft: jax.Array) -> jax.Array:
        """Tokens that a step reads: last tokens [B], drafts [B, k] -> [B, num_read]."""
        ids = jnp.broadcast_to(jnp.asarray(self.ids, draft.dtype), (len(draft), len(self.ids)))
        return jnp.concatenate([last[:, None], draft, ids, draft[:, :-1]], axis=1)

    def logits(self, model: Transformer, hidden: jax.Array) -> jax.Array:
        """Fused logits [B, 1 + k, V] of the hidden states [B, num_read, D] of a step."""
        k = self.num_tokens
        read = jnp.concatenate([hidden[:, : k + 1], hidden[:, -k:]], axis=1)
        own, reflected = jnp.split(model.logits(read), [k + 1], axis=1)
        fused = (1 - self.weight) * own[:, :k] + self.weight * reflected
        return jnp.concatenate([fused, own[:, k:]], axis=1)
