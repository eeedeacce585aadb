"""Tokenizers of the library `tokenizers`, from the `tokenizer.json` that models publish."""

import dataclasses
import difflib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import tokenizers
from etils import epath

from elenchus.data.files import atomic, jsonl, text_files
from elenchus.data.text import chat_templates, time_limits

MAX_VOCABULARY = 10_000_000
LIMIT_S, LIMIT_S_A_CHARACTER = 60.0, 1e-3
"""Time limit in seconds for one text, if the file has regular expressions of its own: a constant,
and a time per character. Usual expressions take 1e-6 s per character."""

# Encoding batches in parallel uses one thread per core, and warns in a process that forks later.
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')


def _encode_batch(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> list[tokenizers.Encoding]:
    return tokenizer.encode_batch(texts, add_special_tokens=False)


def _has_pattern(value: Any) -> bool:
    """Returns whether a part of the file has a regular expression."""
    if isinstance(value, dict):
        return 'Regex' in value or any(map(_has_pattern, value.values()))
    return isinstance(value, list) and any(map(_has_pattern, value))


class _InvalidFile:
    """Context manager that turns errors of the tokenizers library into a ValueError.

    The library raises plain `Exception`, and a panic for its own bugs. Both are caught by their
    exact type, so that nothing else is.
    """

    def __init__(self, place: str):
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        if kind is not None and (kind is Exception or kind.__name__ == 'PanicException'):
            raise ValueError(f'{self._place}: not a tokenizer: {str(error)[:200]}') from None


@dataclasses.dataclass(frozen=True)
class JsonTokenizer:
    """The tokenizer of a tokenizer.json; equal and hashable by its bytes, and picklable.

    Special tokens are the added tokens that the file marks as special, those that a chat template
    of chat_templates.py names, and the protected ones. The file's padding, truncation and automatic
    start tokens are not used. Raises ValueError if the bytes are not a tokenizer.json, or if the
    model encodes plain text as a special token other than the unknown one.
    """

    model: bytes = dataclasses.field(repr=False)
    protected: frozenset[str] = frozenset()  # further added tokens that are special
    file_name = 'tokenizer.json'

    def __post_init__(self):
        for name, special in self._specials.items():
            if special in self.encode(name) and special != self._unknown_id:
                raise ValueError(
                    f'the tokenizer {self.fingerprint} encodes the text {name!r} as its special '
                    'token; use a model whose vocabulary contains only pieces of text'
                )

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> 'JsonTokenizer':
        """Reads a tokenizer.json, also from a bucket."""
        return cls(epath.Path(path).read_bytes())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file atomically."""
        atomic.write_bytes(path, self.model)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of plain text; see Tokenizer."""
        try:
            return self._ids(self._tokenizer, text)
        except (TypeError, UnicodeEncodeError):
            text_files.check_whole(text)
            raise

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids, without special tokens."""
        ids = [int(i) for i in ids]
        if 'decoder' not in self._patterns:
            return self._tokenizer.decode(ids, skip_special_tokens=True)
        return self._limited(self._tokenizer.decode_batch, [ids], True, size=len(ids))[0]

    def encode_rendered(self, text: str) -> list[int]:
        """Returns the ids of a rendered conversation, in which special tokens stand by name."""
        return self._ids(self._rendering_tokenizer, text)

    def _ids(self, tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
        if not self._patterns & {'normalizer', 'pre_tokenizer'}:
            return tokenizer.encode(text, add_special_tokens=False).ids
        # The batch call, because it releases Python's global lock.
        encoded = self._limited(_encode_batch, tokenizer, [text], size=len(text))
        return encoded[0].ids

    def _limited(self, call: Callable, *arguments: Any, size: int) -> Any:
        """Calls a function that matches regular expressions of the file, with a time limit.

        The library's engine gives up only after ten million steps at one position of a text, which
        takes a second, and a text has many positions.
        """
        try:
            with _InvalidFile(f'the tokenizer {self.fingerprint}'):
                return time_limits.within(LIMIT_S + size * LIMIT_S_A_CHARACTER, call, *arguments)
        except time_limits.TimeLimitError:
            raise ValueError(
                f'the tokenizer {self.fingerprint}: the regular expressions of its file take more '
                f'than {LIMIT_S:.0f} s for a text of {size} characters; use another tokenizer'
            ) from None

    @functools.cached_property
    def _patterns(self) -> frozenset[str]:
        """Sections of the file that contain regular expressions, which are untrusted."""
        fields = json.loads(self._marked_file())
        sections = ('normalizer', 'pre_tokenizer', 'decoder')
        return frozenset(name for name in sections if _has_pattern(fields.get(name)))

    def decode_rendered(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids, in which special tokens are written by name."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    @functools.cached_property
    def added_tokens(self) -> frozenset[str]:
        """Texts of all tokens that are added to the vocabulary, special or not."""
        return frozenset(t.content for t in self._tokenizer.get_added_tokens_decoder().values())

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values(), default=0) + 1
        if size > MAX_VOCABULARY:  # arrays have a row for each id
            raise ValueError(f'the largest token id is {size - 1}, more than {MAX_VOCABULARY - 1}')
        return size

    @functools.cached_property
    def newline_ids(self) -> frozenset[int]:
        """Ids whose text contains a line break. Raises ValueError if there are none."""
        ids = frozenset(i for i in range(self.vocab_size) if '\n' in self.decode([i]))
        if not ids:
            raise ValueError(
                f'the tokenizer {self.fingerprint} has no token for a line break, which '
                'separates steps'
            )
        return ids

    @functools.cached_property
    def fingerprint(self) -> str:
        """Short hash of the file."""
        return hashlib.sha256(self.model).hexdigest()[:12]

    def special(self, name: str) -> int:
        """Returns the id of a special token. Raises ValueError if there is none of this name."""
        if name not in self._specials:
            near = difflib.get_close_matches(name, self._specials, n=1, cutoff=0.0)
            hint = f'did you mean {near[0]!r}?' if near else 'it has no special tokens'
            raise ValueError(f'no special token {name!r} in this tokenizer; {hint}')
        return self._specials[name]

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        return frozenset(self._specials.values())

    @functools.cached_property
    def special_names(self) -> frozenset[str]:
        """Names of all special tokens."""
        return frozenset(self._specials)

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: i for i, token in sorted(added.items()) if token.special}

    @functools.cached_property
    def _unknown_id(self) -> int | None:
        """Id of what the vocabulary lacks; None without one."""
        model = json.loads(self._marked_file())['model']
        name = model.get('unk_token')
        return model.get('unk_id') if name is None else self._tokenizer.token_to_id(name)

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        with _InvalidFile(f'a tokenizer.json of {len(self.model)} bytes'):
            tokenizer = tokenizers.Tokenizer.from_str(self._marked_file())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Otherwise a question that contains '<|im_end|>' could end its own turn.
        tokenizer.encode_special_tokens = True
        return tokenizer

    @functools.cached_property
    def _rendering_tokenizer(self) -> tokenizers.Tokenizer:
        tokenizer = tokenizers.Tokenizer.from_str(self._marked_file())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def _marked_file(self) -> str:
        """Returns the file with the templates' tokens marked as special."""
        place = f'a tokenizer.json of {len(self.model)} bytes'
        fields = jsonl.at_place(place, jsonl.parse_object, self.model.decode(errors='replace'))
        if missing := {'model', 'added_tokens'} - fields.keys():
            raise ValueError(f'{place}: missing field {min(missing)!r}')
        special = chat_templates.SPECIAL_NAMES | self.protected
        if not isinstance(fields['added_tokens'], list):
            raise ValueError(f'{place}: added_tokens must be a list')
        for token in fields['added_tokens']:
            if not isinstance(token, dict) or not isinstance(token.get('content'), str):
                raise ValueError(f'{place}: added_tokens has {str(token)[:40]!r}')
            is_ours = token['content'] in special
            token['special'] = is_ours or bool(token.get('special'))
        return json.dumps(fields)

    def __getstate__(self) -> dict:
        return {'model': self.model, 'protected': self.protected}
