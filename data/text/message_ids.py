"""Ids of a template's pieces, and of a header with the text that follows it in one message."""

import functools

from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat_templates import Pieces, Special

Ids = tuple[int, ...]


@functools.lru_cache(maxsize=256)
def template_ids(tokenizer: tokenizers.Tokenizer, pieces: Pieces, follows: bool) -> Ids:
    """Encodes pieces; with `follows` the first continues the text of a turn."""
    ids: list[int] = []
    for i, piece in enumerate(pieces):
        if isinstance(piece, Special):
            ids.append(tokenizer.special(piece.name))
        elif follows and i == 0:
            ids += tokenizers.encode_continuation(tokenizer, piece)
        else:
            ids += tokenizer.encode(piece)
    return tuple(ids)


def merged(
    tokenizer: tokenizers.Tokenizer, header: Pieces, ids: Ids, *, lead: Ids
) -> tuple[Ids, Ids]:
    """Returns (lead, ids) of a user's message as its header and text have them as one text.

    They are others if the text begins with white space: a tokenizer merges it with the line break
    that ends the header. Ids that are not those of their text (a sample may be) stay.

    Args:
        tokenizer: the tokenizer, which puts no space before a text.
        header: pieces whose ids `lead` ends with.
        ids: of the message's text.
        lead: ids before the text.
    """
    last = header[-1] if header and lead else None
    if not isinstance(last, str):
        return lead, ids
    text = tokenizer.decode(ids)
    if not text[:1].isspace() or tuple(tokenizer.encode(text)) != ids:
        return lead, ids
    return lead[: len(lead) - len(tokenizer.encode(last))], tuple(tokenizer.encode(last + text))
