"""Attribution: how much each word of a question adds to the likelihood of the answer.

Integrated gradients of the log-probability of the answer's tokens, along the straight line from a
sequence of end tokens to the sequence that the actor read and wrote. The attributions of a sequence
add up to what its log-probability gained along the line. Source: arXiv 1703.01365.
"""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.batching import packing
from elenchus.data.critiques import grammars
from elenchus.data.records import Batch, Episode, Example, Turn
from elenchus.data.text.chat import Chat
from elenchus.model import logprobs, placement
from elenchus.model.transformer import Transformer
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.step_scores import ScoreShapes

Words = tuple[tuple[str, float], ...]
"""The words of a question in their order, as they stand there, each with its attribution."""


@placement.pinned_jit(axes={'batch': placement.ROWS}, static_argnames='steps')
def attributions(
    model: Transformer, batch: Batch, baseline: jax.Array, *, steps: int
) -> tuple[jax.Array, jax.Array]:
    """Returns attributions [B, T] of tokens of packed rows, and gains [B, T] of log-probabilities.

    A sequence's value is the sum of its tokens' log-probabilities, each times the batch's weight.
    The gain is what that weighted log-probability has more than where all tokens are `baseline`;
    the attributions of a sequence approach the sum of its gains as the number of `steps` grows.
    """
    x = model.embed(batch.tokens)
    start = model.embed(jnp.full_like(batch.tokens, baseline))
    weights = batch.weights * batch.loss_mask

    def values(embedded):
        hidden, _ = model(batch.tokens, batch.positions, segments=batch.segments, embedded=embedded)
        found, _ = logprobs.token_logprobs(
            model, hidden, batch.tokens, transform=lambda logits: logits
        )
        return weights * found

    gradient = jax.grad(lambda embedded: values(embedded).sum())

    def add(k, total):
        share = ((k + 0.5) / steps).astype(x.dtype)
        return total + gradient(start + share * (x - start)).astype('float32')

    total = jax.lax.fori_loop(0, steps, add, jnp.zeros(x.shape, 'float32'))
    along = (x - start).astype('float32')
    return (total / steps * along).sum(axis=-1), values(x) - values(start)


def question_words(
    models: ModelPair, episodes: Sequence[Episode], *, shapes: ScoreShapes, steps: int
) -> list[Words]:
    """Returns the attributions of each question's words to the answer of the episode's attempt.

    `shapes` are those of the rows that the sequences are packed into. An attempt without an answer
    has no words. Raises ValueError if a sequence is longer than all rows.
    """
    chat, words = models.sampler.chat, [()] * len(episodes)
    sequences = {
        i: sequence_of(chat, episode.turns)
        for i, episode in enumerate(episodes)
        if episode.attempt.facts.answer is not None
    }
    longest = max((len(s.tokens) for s in sequences.values()), default=0)
    if longest > shapes.lengths[-1]:
        raise ValueError(
            f'an attempt with its prompt has {longest} tokens: sampling.score.lengths='
            f'{shapes.lengths} must end with at least that many'
        )
    length = next(n for n in shapes.lengths if n >= longest)
    packed = packing.Rows(None, length)
    for item in sequences.items():
        packed.add(item)
    for first in range(0, len(packed.items), shapes.rows):
        rows = packed.items[first : first + shapes.rows]
        rows += [[]] * (shapes.rows - len(rows))
        batch = packing.to_batch([[item[-1] for item in row] for row in rows], length=length)
        values, _ = attributions(models.actor, batch, np.int32(chat.end_id), steps=steps)
        for row, of_row in zip(rows, np.asarray(values), strict=True):
            start = 0
            for i, sequence in row:
                end = start + len(sequence.tokens)
                words[i] = _words(chat, episodes[i].turns, sequence, values=of_row[start:end])
                start = end
    return words


def sequence_of(chat: Chat, turns: Sequence[Turn]) -> Example:
    """Returns a conversation up to its attempt, with weights of 1 / n on the answer's n tokens.

    The answer's tokens are its last occurrence in the attempt, as spelt in the attempt's facts;
    without one, all tokens of the last step.
    """
    at = max(i for i, turn in enumerate(turns) if turn.role == 'attempt')
    attempt = turns[at]
    start, end = _answer_span(chat, attempt)
    inside = np.zeros(len(attempt.tokens), np.float32)
    inside[start:end] = 1 / (end - start)
    options = {'trained': ('attempt',), 'weights': lambda turn: inside, 'last_only': True}
    return chat.example(turns[: at + 1], **options)


def _answer_span(chat: Chat, attempt: Turn) -> tuple[int, int]:
    """Returns first and one past the last token of the attempt's answer."""
    ids, answer = chat.text_ids(attempt), attempt.facts.answer
    offset = chat.tokenizer.decode(ids).rfind(answer)
    if offset < 0:
        return (0, *attempt.step_ends[:-1])[-1], len(ids)
    return _token_span(chat, ids, (offset, offset + len(answer)))


def _words(chat: Chat, turns: Sequence[Turn], sequence: Example, *, values: np.ndarray) -> Words:
    """Sums attributions [T] over the tokens of each word of the question, in the prompt."""
    (question,) = (turn for turn in turns if turn.role == 'question')
    attempt = next(turn for turn in turns[::-1] if turn.role == 'attempt')
    prompt = sequence.tokens[: len(sequence.tokens) - len(attempt.tokens)].tolist()
    text = chat.text(question).strip()
    # The prompt is read as text: a template may encode the question together with what follows it.
    start = chat.tokenizer.decode(prompt).rfind(text)
    if start < 0:
        raise ValueError(f'the question {text!r} does not stand in the prompt of its attempt')
    spans = [(m[0], start + m.start(), start + m.end()) for m in re.finditer(r'\S+', text)]
    totals = []
    for word, *offsets in spans:
        first, last = _token_span(chat, prompt, offsets)
        totals.append((word, float(values[first:last].sum())))
    return tuple(totals)


def _token_span(chat: Chat, ids: Sequence[int], span: Sequence[int]) -> tuple[int, int]:
    """Returns first and one past the last token of characters [start, end) of the ids' text."""
    start, end = span
    first, last = grammars.token_positions(ids, (start, end - 1), tokenizer=chat.tokenizer)
    return first, last + 1
