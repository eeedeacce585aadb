"""Tokenizers: the interface, SentencePiece models, and loading a tokenizer from a file."""

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

from elenchus.data.files import atomic, jsonl, text_files
from elenchus.data.text import chat_templates, tokenizer_json

PAD, EOS, UNK, BOS = '<pad>', '</s>', '<unk>', '<s>'
HEADERS = ('<question>', '<guide>', '<attempt>', '<critique>', '<refinement>')
"""Control symbols that open a turn; ids 4 to 8 in tokenizers of this module."""

MODEL_TYPES = ('bpe', 'unigram', 'char')
_SPACE = '\u2581'  # SentencePiece's symbol for a space inside a piece
_Piece = model_pb2.ModelProto.SentencePiece


class Tokenizer(Protocol):
    """Interface of tokenizers; instances are hashable and picklable."""

    vocab_size: int
    newline_ids: frozenset[int]  # ids whose text contains a line break
    special_ids: frozenset[int]
    fingerprint: str  # short hash of the file
    file_name: str  # name of its file in a checkpoint folder

    def save(self, path: str | os.PathLike) -> None:
        """Writes the tokenizer's file atomically."""

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of plain text; names of special tokens are plain text, too."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids; special tokens have no text."""

    def special(self, name: str) -> int:
        """Returns the id of a special token such as '<attempt>'. Raises ValueError if unknown."""


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """A SentencePiece model; equal and hashable by its bytes, and picklable.

    Special tokens are the control symbols, the unknown token and those that a chat template names.
    Raises ValueError if the bytes are not a SentencePiece model, or if it has no end token.
    """

    model: bytes = dataclasses.field(repr=False)
    file_name = 'tokenizer.model'

    def __post_init__(self):
        if self.eos_id < 0:
            raise ValueError(f'the tokenizer {self.fingerprint} has no end token (eos_id=-1)')

    @classmethod
    def from_bytes(cls, model: bytes) -> 'SentencePieceTokenizer':
        """Returns the tokenizer of a serialised model."""
        return cls(bytes(model))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> 'SentencePieceTokenizer':
        """Reads a tokenizer.model, also from a bucket."""
        return cls(epath.Path(path).read_bytes())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model atomically."""
        atomic.write_bytes(path, self.model)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of plain text; see Tokenizer."""
        try:
            return self._processor.encode(text, out_type=int, add_bos=False, add_eos=False)
        except (RuntimeError, UnicodeEncodeError):
            text_files.check_whole(text)
            raise

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids, without special tokens."""
        return self._processor.decode([int(i) for i in ids])

    @functools.cached_property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._processor.get_piece_size()

    @functools.cached_property
    def model_type(self) -> str:
        """How texts are divided: 'bpe', 'unigram', 'char' or 'word'."""
        spec = model_pb2.ModelProto.FromString(self.model).trainer_spec
        return spec.ModelType.Name(spec.model_type).lower()

    @functools.cached_property
    def pad_id(self) -> int:
        """The padding id; without one the unknown token's, never the end token's.

        Padding with the end token would make real end tokens look like padding.
        """
        pad = self._processor.pad_id()
        return pad if pad >= 0 else self._processor.unk_id()

    @functools.cached_property
    def eos_id(self) -> int:
        """Id of the end token."""
        return self._processor.eos_id()

    @functools.cached_property
    def newline_id(self) -> int:
        """Id of a line break. Raises ValueError if the model has no token for it."""
        for piece in ('\n', '<0x0A>'):
            if self._processor.id_to_piece(self._processor.piece_to_id(piece)) == piece:
                return self._processor.piece_to_id(piece)
        raise ValueError(
            f'the tokenizer {self.fingerprint} has no token for a line break, which separates '
            "steps: train it with user_defined_symbols=['\\n'] or with byte fallback"
        )

    @functools.cached_property
    def newline_ids(self) -> frozenset[int]:
        """Ids whose text contains a line break."""
        pieces = ((i, self._processor.id_to_piece(i)) for i in range(self.vocab_size))
        return frozenset(i for i, p in pieces if '\n' in p or p == '<0x0A>') | {self.newline_id}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Short hash of the model."""
        return hashlib.sha256(self.model).hexdigest()[:12]

    def special(self, name: str) -> int:
        """Returns the id of a special token. Raises ValueError if there is none of this name."""
        if name not in self._specials:
            near = difflib.get_close_matches(name, self._specials, n=1, cutoff=0.0)
            raise ValueError(
                f'no special token {name!r} in this tokenizer; did you mean {near[0]!r}?'
            )
        return self._specials[name]

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
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
            processor.load_from_serialized_proto(_protect_specials(self.model))
        except (RuntimeError, message.DecodeError) as error:
            raise ValueError(f'not a SentencePiece model: {len(self.model)} bytes') from error
        return processor

    def __getstate__(self) -> dict:
        # The cached processor cannot be pickled; it is rebuilt from the bytes.
        return {'model': self.model}


def _protect_specials(model: bytes) -> bytes:
    """Turns the special tokens of chat templates into control symbols.

    Published models list some of them as user-defined symbols, which plain text is encoded as: a
    question that contains '<end_of_turn>' could end its own turn.
    """
    proto = model_pb2.ModelProto.FromString(model)
    exposed = [
        piece
        for piece in proto.pieces
        if piece.type == _Piece.USER_DEFINED and piece.piece in chat_templates.SPECIAL_NAMES
    ]
    for piece in exposed:
        piece.type = _Piece.CONTROL
    return proto.SerializeToString() if exposed else model


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, model_type: str) -> bytes:
    """Trains a SentencePiece model; the same texts give the same bytes.

    Ids 0 to 3 are padding, end, unknown and start; then follow HEADERS and the line break.
    Whitespace is kept, digits are single tokens, and characters that the texts lack are encoded as
    bytes ('bpe' and 'unigram'). `vocab_size` is an upper bound: few texts give fewer pieces. Raises
    ValueError if `vocab_size` is too small or `model_type` is not one of MODEL_TYPES.
    """
    if model_type not in MODEL_TYPES:
        near = difflib.get_close_matches(model_type, MODEL_TYPES, n=1, cutoff=0.0)
        raise ValueError(
            f'unknown model_type={model_type!r}; valid: {MODEL_TYPES}; did you mean {near[0]!r}?'
        )
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
            max_sentence_length=1 << 20,  # SentencePiece drops longer texts silently
            num_threads=1,  # more threads would make the result depend on timing
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:  # ValueError: more than 32 bits
        raise ValueError(f'cannot train a tokenizer of vocab_size={vocab_size}: {error}') from error
    return model.getvalue()


def word_tokenizer(words: Sequence[str]) -> SentencePieceTokenizer:
    """Builds a tokenizer with one token per word, in the order of `words`.

    It is built, not trained: ids depend only on `words`. Text that joins known words by spaces and
    line breaks (the line break before the space) is decoded exactly; anything else is <unk>. Raises
    ValueError on an empty or repeated word, or one that contains a space.
    """
    for word in words:
        if not word or any(c.isspace() or c == _SPACE for c in word):
            raise ValueError(f'{word!r} is not a single word')
    if len(set(words)) != len(words):
        repeated = next(word for i, word in enumerate(words) if word in words[:i])
        raise ValueError(f'the word {repeated!r} is twice in the word list')
    model = model_pb2.ModelProto()
    for name in (PAD, EOS, UNK, BOS, *HEADERS):
        kind = _Piece.UNKNOWN if name == UNK else _Piece.CONTROL
        model.pieces.add(piece=name, score=0.0, type=kind)
    model.pieces.add(piece='\n', score=0.0, type=_Piece.USER_DEFINED)
    for piece in (_SPACE, *(_SPACE + word for word in words)):
        model.pieces.add(piece=piece, score=-1.0, type=_Piece.NORMAL)
    _set_specs(model)
    return SentencePieceTokenizer(model.SerializeToString(deterministic=True))


def _set_specs(model: model_pb2.ModelProto) -> None:
    """Sets the fields that SentencePiece needs to load a model that was not trained."""
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
    """Returns the word-level tokenizer of the lab, whose vocabulary is closed."""
    from elenchus.data.lab import task

    return word_tokenizer(task.WORDS)


def encode_continuation(tokenizer: Tokenizer, text: str, *, after: str = 'a') -> list[int]:
    """Encodes text as a continuation of other text.

    Many tokenizers put a space before the first word of a text; a continuation must not have it.
    Raises ValueError if the tokenizer merges the end of `after` with the beginning of `text`.
    """
    before, both = tokenizer.encode(after), tokenizer.encode(after + text)
    if both[: len(before)] != before:
        raise ValueError(
            f'the tokenizer {tokenizer.fingerprint} merges {after!r} and {text!r} into one token'
        )
    return both[len(before) :]


TOKENIZERS = {
    tokenizer.file_name: tokenizer
    for tokenizer in (SentencePieceTokenizer, tokenizer_json.JsonTokenizer)
}
"""Tokenizer classes by file name."""


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads a tokenizer; the suffix selects the class. Raises ValueError on an unknown suffix."""
    path = epath.Path(path)
    for name, tokenizer in TOKENIZERS.items():
        if path.suffix == pathlib.Path(name).suffix:
            return jsonl.at_place(str(path), tokenizer.from_file, path)
    raise ValueError(f'{path}: expected a tokenizer.model or tokenizer.json file')


def find_tokenizer_file(folder: str | os.PathLike) -> epath.Path | None:
    """Returns the path of the tokenizer file in a folder, None if there is none."""
    paths = (epath.Path(folder) / name for name in TOKENIZERS)
    return next((path for path in paths if path.is_file()), None)
