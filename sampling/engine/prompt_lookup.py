"""What a sequence may say next, guessed from what stands in it already.

A refinement repeats most of the attempt in its prompt, a critique quotes it. A guess costs no
model: what followed the last tokens where they stood before. Source: prompt lookup decoding,
github.com/apoorvumang/prompt-lookup-decoding; the idea of drafts is that of arXiv 2211.17192.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Drafts of `num_tokens`; the last `ngram` tokens are looked for. 0 tokens is no draft."""

    num_tokens: int
    ngram: int

    def draft(self, tokens: jax.Array, position: jax.Array) -> jax.Array:
        """tokens [B, S], known up to position [B] -> what may follow these, [B, num_tokens].

        It is what followed the earlier place where most of the last `ngram` tokens stood, the
        latest of such places; where that runs into the end, it begins again. A sequence in which
        the last token is new drafts that token.
        """
        ends = jnp.arange(tokens.shape[1])
        alike = jnp.ones(tokens.shape, bool)
        matched = jnp.zeros(tokens.shape, 'int32')
        for back in range(self.ngram):
            last = jnp.take_along_axis(tokens, position[:, None] - back, axis=1, mode='clip')
            alike &= (jnp.roll(tokens, back, axis=1) == last) & (ends >= back)
            matched += alike
        earlier = ends < position[:, None]
        best = jnp.where(earlier, matched * len(ends) + ends, -1).max(axis=1)
        end = jnp.where(position > 0, best % len(ends), -1)
        after = jnp.arange(self.num_tokens) % (position - end)[:, None]
        return jnp.take_along_axis(tokens, end[:, None] + 1 + after, axis=1)


OFF = Lookup(0, 0)
