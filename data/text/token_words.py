"""Ids of words: the tokens of a vocabulary whose text is a word, with or without spaces around."""

import collections
import difflib
import functools
from collections.abc import Mapping

from elenchus.data.text.tokenizer import Tokenizer


def ids_of_word(tokenizer: Tokenizer, word: str, named: str) -> tuple[int, ...]:
    """Returns the ids of all tokens whose text is `word`, in order; case counts.

    A vocabulary may have several: with a space in front, and without one. The name of a special
    token, such as '</s>', has its id. Raises ValueError, beginning with `named`, if there is none.
    """
    ids = _words(tokenizer).get(word.strip(), ())
    if word.strip() and ids:
        return ids
    try:
        return (tokenizer.special(word),)
    except ValueError:
        pass
    pieces = [tokenizer.decode([i]).strip() for i in tokenizer.encode(word)]
    several = f': it is the tokens {pieces}' if len(pieces) > 1 and all(pieces) else ''
    close = difflib.get_close_matches(word, _words(tokenizer), n=1, cutoff=0.0)
    nearest = f'; nearest: {close[0]!r}' if close else ''
    raise ValueError(f'{named}: {word!r} is no single token of the vocabulary{several}{nearest}')


def ids_ending_with(tokenizer: Tokenizer, characters: str) -> tuple[int, ...]:
    """Returns the ids of tokens whose text, without spaces after it, ends with a character."""
    words = _words(tokenizer).items()
    return tuple(sorted(i for word, ids in words if word[-1] in characters for i in ids))


@functools.lru_cache(maxsize=4)
def _words(tokenizer: Tokenizer) -> Mapping[str, tuple[int, ...]]:
    """Text of each token without spaces around -> its ids; special tokens have none."""
    ids = collections.defaultdict(list)
    for i in range(tokenizer.vocab_size):
        if i not in tokenizer.special_ids and (text := tokenizer.decode([i]).strip()):
            ids[text].append(i)
    return {text: tuple(values) for text, values in ids.items()}
