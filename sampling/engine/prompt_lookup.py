"""Prompt-lookup drafting: speculative decoding without a draft model.

The draft is the continuation of an earlier occurrence of the sequence's last tokens. This costs no
forward pass, and often succeeds here: a refinement repeats most of the attempt in its prompt, and a
critique quotes the attempt. Sources: prompt lookup decoding
(github.com/apoorvumang/prompt-lookup-decoding); speculative decoding, arXiv 2211.17192.
"""

import dataclasses

import jax
import jax.numpy as jnp

from elenchus.model.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class PromptLookup:
    """Drafts `num_tokens` tokens by matching up to `ngram` last tokens; 0 tokens means no draft."""

    num_tokens: int
    ngram: int

    @property
    def num_read(self) -> int:
        """Tokens of a slot that a step reads."""
        return 1 + self.num_tokens

    @property
    def num_logits(self) -> int:
        """Positions of a step whose logits are computed."""
        return 1 + self.num_tokens

    @property
    def room(self) -> int:
        """Cache positions past the end of a sequence that a step needs; a draft may overrun it."""
        return 0

    def sequence(self, last: jax.Array, draft: jax.Array) -> jax.Array:
        """Tokens that a step reads: last tokens [B], drafts [B, k] -> [B, num_read]."""
        return jnp.concatenate([last[:, None], draft], axis=1)

    def logits(self, model: Transformer, hidden: jax.Array) -> jax.Array:
        """Logits [B, 1 + k, V] of the tokens behind the last one and behind each of the draft."""
        return model.logits(hidden)

    def draft(self, tokens: jax.Array, position: jax.Array) -> jax.Array:
        """Drafts what follows each sequence: tokens [B, S], position [B] -> [B, num_tokens].

        A row's tokens are known up to and including `position`. Of all earlier positions, the draft
        continues the one where most of the last `ngram` tokens match, and of several the latest.
        If its continuation reaches the end of the sequence, it repeats from its start.
        A sequence whose last token is new drafts that token.
        """
        ends = jnp.arange(tokens.shape[1])
        all_match = jnp.ones(tokens.shape, bool)
        num_matches = jnp.zeros(tokens.shape, 'int32')
        for back in range(self.ngram):
            last = jnp.take_along_axis(tokens, position[:, None] - back, axis=1, mode='clip')
            # roll wraps around, so an end closer to the start than `back` cannot match.
            all_match &= (jnp.roll(tokens, back, axis=1) == last) & (ends >= back)
            num_matches += all_match
        earlier = ends < position[:, None]
        # One number orders candidates by the length of the match, then by position.
        best = jnp.where(earlier, num_matches * len(ends) + ends, -1).max(axis=1)
        end = jnp.where(position > 0, best % len(ends), -1)
        offset = jnp.arange(self.num_tokens) % (position - end)[:, None]
        return jnp.take_along_axis(tokens, end[:, None] + 1 + offset, axis=1)


OFF = PromptLookup(0, 0)
