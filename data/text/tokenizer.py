"""Text to token ids and back: one small interface, SentencePiece, and which file holds what."""

import dataclasses
import difflib
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import sentencepiece
from etils import epath
from google.protobuf import message
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from elenchus.data.files import json_files
from elenchus.data.text import chat_templates, tokenizer_json

PAD, EOS, UNK, BOS = '<pad>', '</s>', '<unk>', '<s>'
HEADERS = ('<question>', '<guide>', '<attempt>', '<critique>', '<refinement>')
"""Control symbols that open a turn; ids 4 to 8 in the tokenizers made here."""

MODEL_TYPES = ('bpe', 'unigram', 'char')
_SPACE = '\u2581'  # how SentencePiece writes a space inside a piece
_Piece = model_pb2.ModelProto.SentencePiece


class Tokenizer(Protocol):
    """What the rest of the project asks of a tokenizer."""

    vocab_size: int
    newline_ids: frozenset[int]  # ids whose text holds a line break
    special_ids: frozenset[int]
    fingerprint: str
    file_name: str  # what a saved one is called

    def save(self, path: str | os.PathLike) -> None:
        """Writes the tokenizer's file, whole."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; a special token's name in it is text like any other."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens have none."""

    def special(self, name: str) -> int:
        """The id of a special token such as '<attempt>'. Raises ValueError where there is none."""


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """A SentencePiece model; equal and hashable by its bytes, and picklable.

    Special are the control symbols, the unknown token and what a chat template names. Raises
    ValueError where the bytes are no SentencePiece model or one without an end token.
    """

    model: bytes = dataclasses.field(repr=False)
    file_name = 'tokenizer.model'

    def __post_init__(self):
        if self.eos_id < 0:
            raise ValueError(f'the tokenizer {self.fingerprint} has no end token (eos_id=-1)')

    @classmethod
    def from_bytes(cls, model: bytes) -> 'SentencePieceTokenizer':
        return cls(bytes(model))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> 'SentencePieceTokenizer':
        return cls(epath.Path(path).read_bytes())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model beside `path`, then renames it, so the file is whole or absent."""
        json_files.write_bytes(path, self.model)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text, out_type=int, add_bos=False, add_eos=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in ids])

    @functools.cached_property
    def vocab_size(self) -> int:
        return self._processor.get_piece_size()

    @functools.cached_property
    def pad_id(self) -> int:
        """The model's padding id; the unknown token's where it has none, never the end token's."""
        pad = self._processor.pad_id()
        return pad if pad >= 0 else self._processor.unk_id()

    @functools.cached_property
    def eos_id(self) -> int:
        return self._processor.eos_id()

    @functools.cached_property
    def newline_id(self) -> int:
        """The id of a line break. Raises ValueError where the model has none of its own."""
        for piece in ('\n', '<0x0A>'):
            if self._processor.id_to_piece(self._processor.piece_to_id(piece)) == piece:
                return self._processor.piece_to_id(piece)
        raise ValueError(
            f'the tokenizer {self.fingerprint} has no token for a line break, which separates '
            "steps: train it with user_defined_symbols=['\\n'] or with byte fallback"
        )

    @functools.cached_property
    def newline_ids(self) -> frozenset[int]:
        pieces = ((i, self._processor.id_to_piece(i)) for i in range(self.vocab_size))
        return frozenset(i for i, p in pieces if '\n' in p or p == '<0x0A>') | {self.newline_id}

    @functools.cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.model).hexdigest()[:12]

    def special(self, name: str) -> int:
        if name not in self._specials:
            near = difflib.get_close_matches(name, self._specials, n=1, cutoff=0.0)
            raise ValueError(f'no special token {name!r} in this tokenizer; nearest is {near[0]!r}')
        return self._specials[name]

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._specials.values())

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        ids = range(self.vocab_size)
        special = (i for i in ids if self._processor.is_control(i) or self._processor.is_unknown(i))
        return {self._processor.id_to_piece(i): i for i in special}

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.load_from_serialized_proto(_guarded(self.model))
        except (RuntimeError, message.DecodeError) as error:
            raise ValueError(f'{len(self.model)} bytes are no SentencePiece model') from error
        return processor

    def __getstate__(self) -> dict:
        return {'model': self.model}


def _guarded(model: bytes) -> bytes:
    """The model with what templates name as control symbols, which text is never read as."""
    proto = model_pb2.ModelProto.FromString(model)
    named = [
        piece
        for piece in proto.pieces
        if piece.type == _Piece.USER_DEFINED and piece.piece in chat_templates.SPECIALS
    ]
    for piece in named:
        piece.type = _Piece.CONTROL
    return proto.SerializeToString() if named else model


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, model_type: str) -> bytes:
    """A SentencePiece model trained on texts; the same texts give the same bytes.

    Ids 0 to 3 are padding, end, unknown and start, then come HEADERS and the line break. Whitespace
    is kept as it is, digits are single tokens, and what the texts lack is spelt in bytes ('bpe' and
    'unigram'). `vocab_size` is a bound: few texts give fewer pieces.
    Raises ValueError where `vocab_size` is too small or `model_type` is none of MODEL_TYPES.
    """
    if model_type not in MODEL_TYPES:
        near = difflib.get_close_matches(model_type, MODEL_TYPES, n=1, cutoff=0.0)
        raise ValueError(f'model_type={model_type!r} is none of {MODEL_TYPES}; nearest {near[0]!r}')
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=3,
            pad_piece=PAD,
            eos_piece=EOS,
            unk_piece=UNK,
            bos_piece=BOS,
            control_symbols=list(HEADERS),
            user_defined_symbols=['\n'],
            byte_fallback=model_type != 'char',
            hard_vocab_limit=False,
            normalization_rule_name='identity',
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            split_digits=True,
            character_coverage=1.0,
            max_sentence_length=1 << 20,  # longer texts would be dropped without a word
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f'no tokenizer of vocab_size={vocab_size}: {error}') from error
    return model.getvalue()


def word_tokenizer(words: Sequence[str]) -> SentencePieceTokenizer:
    """A tokenizer with one token a word, in the order given, and no other text.

    Built rather than trained: ids depend on `words` alone. Text that joins known words by spaces
    and line breaks (the line break before the space) comes back exactly; anything else is <unk>.
    Raises ValueError on an empty, spaced or repeated word.
    """
    for word in words:
        if not word or any(c.isspace() or c == _SPACE for c in word):
            raise ValueError(f'{word!r} is no single word')
    if len(set(words)) != len(words):
        repeated = next(word for i, word in enumerate(words) if word in words[:i])
        raise ValueError(f'the word {repeated!r} stands twice in the word list')
    model = model_pb2.ModelProto()
    for name in (PAD, EOS, UNK, BOS, *HEADERS):
        kind = _Piece.UNKNOWN if name == UNK else _Piece.CONTROL
        model.pieces.add(piece=name, score=0.0, type=kind)
    model.pieces.add(piece='\n', score=0.0, type=_Piece.USER_DEFINED)
    for piece in (_SPACE, *(_SPACE + word for word in words)):
        model.pieces.add(piece=piece, score=-1.0, type=_Piece.NORMAL)
    _describe(model)
    return SentencePieceTokenizer(model.SerializeToString(deterministic=True))


def _describe(model: model_pb2.ModelProto) -> None:
    """Fills in the settings under which SentencePiece reads a model that was built by hand."""
    spec = model.trainer_spec
    spec.model_type = model_pb2.TrainerSpec.UNIGRAM
    spec.vocab_size = len(model.pieces)
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, 2, 3
    spec.pad_piece, spec.eos_piece, spec.unk_piece, spec.bos_piece = PAD, EOS, UNK, BOS
    spec.control_symbols.extend(HEADERS)
    spec.user_defined_symbols.append('\n')
    model.normalizer_spec.name = 'identity'
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True


@functools.cache
def lab_tokenizer() -> SentencePieceTokenizer:
    """The closed word-level tokenizer of the generated task."""
    from elenchus.data.lab import task

    return word_tokenizer(task.WORDS)


def following(tokenizer: Tokenizer, text: str, *, after: str = 'a') -> list[int]:
    """Ids of text that goes on after other text, so that no space is put before it.

    Raises ValueError where the tokenizer makes one token of the two.
    """
    before, both = tokenizer.encode(after), tokenizer.encode(after + text)
    if both[: len(before)] != before:
        raise ValueError(f'the tokenizer {tokenizer.fingerprint} joins {after!r} and {text!r}')
    return both[len(before) :]


KINDS = {kind.file_name: kind for kind in (SentencePieceTokenizer, tokenizer_json.JsonTokenizer)}


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer in a file, by its suffix. Raises ValueError on a suffix it cannot read."""
    path = epath.Path(path)
    for name, kind in KINDS.items():
        if path.suffix == pathlib.Path(name).suffix:
            return json_files.at(str(path), kind.from_file, path)
    raise ValueError(f'{path}: a tokenizer is a tokenizer.model or tokenizer.json file')


def saved_in(folder: str | os.PathLike) -> epath.Path | None:
    """The tokenizer file that a folder holds, if any."""
    paths = (epath.Path(folder) / name for name in KINDS)
    return next((path for path in paths if path.is_file()), None)
