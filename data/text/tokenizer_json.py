"""Tokenizers in the form of the library `tokenizers`: a `tokenizer.json` as models publish it."""

import dataclasses
import difflib
import functools
import hashlib
import json
import os
from collections.abc import Sequence

import tokenizers
from etils import epath

from elenchus.data.files import json_files
from elenchus.data.text import chat_templates


@dataclasses.dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer.json; equal and hashable by its bytes, and picklable.

    Special are the added tokens that the file calls so and those that a chat template names. The
    file's own padding, truncation and added start tokens are not used. Raises ValueError where the
    bytes are no tokenizer.json, and on a model that reads a special token out of plain text.
    """

    model: bytes = dataclasses.field(repr=False)
    file_name = 'tokenizer.json'

    def __post_init__(self):
        for name, special in self._specials.items():
            if special in self.encode(name):
                raise ValueError(
                    f'the tokenizer {self.fingerprint} reads the text {name!r} as its special '
                    'token: take a model whose vocabulary is of pieces of text alone'
                )

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> 'JsonTokenizer':
        return cls(epath.Path(path).read_bytes())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file beside `path`, then renames it, so it is whole or absent."""
        json_files.write_bytes(path, self.model)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def newline_ids(self) -> frozenset[int]:
        """Ids whose text holds a line break. Raises ValueError where none does."""
        found = frozenset(i for i in range(self.vocab_size) if '\n' in self.decode([i]))
        if not found:
            raise ValueError(
                f'the tokenizer {self.fingerprint} has no token for a line break, which separates '
                'steps'
            )
        return found

    @functools.cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.model).hexdigest()[:12]

    def special(self, name: str) -> int:
        if name not in self._specials:
            near = difflib.get_close_matches(name, self._specials, n=1, cutoff=0.0)
            there = f'nearest is {near[0]!r}' if near else 'it has none'
            raise ValueError(f'no special token {name!r} in this tokenizer; {there}')
        return self._specials[name]

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._specials.values())

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: i for i, token in sorted(added.items()) if token.special}

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_str(self._described())
        made.no_padding()
        made.no_truncation()
        made.encode_special_tokens = True  # the text of a special token is text like any other
        return made

    def _described(self) -> str:
        """The file with the templates' tokens marked as special."""
        place = f'a tokenizer.json of {len(self.model)} bytes'
        told = json_files.at(place, json_files.parse_object, self.model.decode(errors='replace'))
        if missing := {'model', 'added_tokens'} - told.keys():
            raise ValueError(f'{place}: no field {min(missing)!r}')
        for token in told['added_tokens']:
            token['special'] = token['special'] or token['content'] in chat_templates.SPECIALS
        return json.dumps(told)

    def __getstate__(self) -> dict:
        return {'model': self.model}
