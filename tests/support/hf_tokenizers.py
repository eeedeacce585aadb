"""Small tokenizers in the file formats of published model families, built from lists of merges.

The merges are in tests/golden/chat_templates.json, where make_chat_templates.py wrote them.
"""

import functools
import json
import pathlib
import string

from sentencepiece import sentencepiece_model_pb2 as model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'chat_templates.json'
SPACE = '\u2581'
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
LLAMA3_WORDS = QWEN_WORDS.replace(r'|\p{N}|', r'|\p{N}{1,3}|')
BYTES = [f'<0x{i:02X}>' for i in range(256)]
CHARS = [SPACE, *string.ascii_letters, *string.digits, *string.punctuation]
LLAMA = ('<unk>', '<s>', '</s>')
MISTRAL = ('<unk>', '<s>', '</s>', '[INST]', '[/INST]')
GEMMA = ('<pad>', '<eos>', '<bos>', '<unk>', '<start_of_turn>', '<end_of_turn>')
NEWLINES = ('\n', '\n\n')

CONVERSATION = {
    'question': 'Zoë has 3 red pens and buys 14 more.\nSay how many pens she has.',
    'attempt': '3 + 14 = 18 pens.\n\nShe has 18.\n#### 18',
    'critique': 'Step 1: 3 + 14 is 17.\nCorrectness of the final answer: Wrong',
    'refinement': '3 + 14 = 17 pens.\n#### 17',
}


def byte_level(merges: list[str], pattern: str, specials: tuple[str, ...]) -> str:
    """Returns a byte-level tokenizer.json, as of Qwen 2.5, 3 and Llama 3."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(merge.replace(' ', '') for merge in merges)]
    tokenizer = Tokenizer(models.BPE(_ids(pieces), [tuple(merge.split(' ')) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in specials])
    return tokenizer.to_str()


def spaced(merges: list[str], specials: tuple[str, ...], *, prefix: str | None, added=()) -> str:
    """Returns the tokenizer.json of a converted SentencePiece model.

    The space before text comes from a normalizer ('normalizer', Llama 2), from the pre-tokenizer
    ('first', Mistral), or not at all (None, Gemma).
    """
    tokenizer = Tokenizer(
        models.BPE(
            _ids(_pieces(merges, specials, added)),
            [tuple(merge.split(' ')) for merge in merges],
            unk_token='<unk>',
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    strip = [decoders.Strip(' ', 1, 0)] if prefix else []
    to_text = [decoders.Replace(SPACE, ' '), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(to_text)
    if prefix == 'normalizer':
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(' ', SPACE)]
        )
    elif prefix == 'first':
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            SPACE, prepend_scheme='first', split=False
        )
    else:
        tokenizer.normalizer = normalizers.Replace(' ', SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(' ', 'merged_with_previous')
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in added])
    controls = [name for name in specials if name not in added]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in controls])
    return tokenizer.to_str()


def sentencepiece_model(merges: list[str], specials: tuple[str, ...], *, prefix, added=()) -> bytes:
    """Returns the same tokenizer as a tokenizer.model; `added` are user-defined symbols."""
    kinds = model_pb2.ModelProto.SentencePiece
    model = model_pb2.ModelProto()
    for rank, piece in enumerate(_pieces(merges, specials, added)):
        kind = kinds.NORMAL
        if piece in added:
            kind = kinds.USER_DEFINED
        elif piece in specials:
            kind = kinds.UNKNOWN if piece == '<unk>' else kinds.CONTROL
        elif piece in BYTES:
            kind = kinds.BYTE
        model.pieces.add(piece=piece, score=-float(rank), type=kind)
    spec = model.trainer_spec
    spec.model_type, spec.byte_fallback = model_pb2.TrainerSpec.BPE, True
    spec.vocab_size = len(model.pieces)
    names = {'unk': '<unk>', 'bos': '<s>', 'eos': '</s>'}
    if '<bos>' in specials:
        names |= {'bos': '<bos>', 'eos': '<eos>', 'pad': '<pad>'}
    spec.pad_id = -1
    for kind, name in names.items():
        setattr(spec, f'{kind}_id', specials.index(name))
        setattr(spec, f'{kind}_piece', name)
    model.normalizer_spec.name = 'identity'
    model.normalizer_spec.add_dummy_prefix = bool(prefix)
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString(deterministic=True)


@functools.cache
def golden() -> dict:
    """Reads the golden conversations and merges."""
    return json.loads(GOLDEN.read_text())


def files(merges: dict[str, list[str]]) -> dict[str, str | bytes]:
    """Returns a tokenizer file for each template: text of a .json or bytes of a .model."""
    chatml = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
    llama3 = ('begin_of_text', 'end_of_text', 'start_header_id', 'end_header_id', 'eot_id')
    heads = tuple(f'<|{name}|>' for name in llama3)
    byte, word = merges['byte'], merges['word']
    turns = (*GEMMA[4:], *NEWLINES)
    gemma = {'specials': (*GEMMA, *NEWLINES), 'prefix': None, 'added': turns}
    return {
        'chatml': byte_level(byte, QWEN_WORDS, chatml),
        'qwen2.5': byte_level(byte, QWEN_WORDS, chatml),
        'qwen2.5-math': byte_level(byte, QWEN_WORDS, chatml),
        'llama3': byte_level(byte, LLAMA3_WORDS, heads),
        'llama3.1': byte_level(byte, LLAMA3_WORDS, heads),
        'llama2': spaced(word, LLAMA, prefix='normalizer'),
        'llama2.model': sentencepiece_model(word, LLAMA, prefix=True),
        'mistral': spaced(word, MISTRAL, prefix='first'),
        'mistral.model': sentencepiece_model(word, MISTRAL, prefix=True),
        'gemma': spaced(word, **gemma),
        'gemma.model': sentencepiece_model(word, **gemma),
    }


def qwen3_file() -> str:
    """Returns a tokenizer.json of the Qwen 3 format, where <think> is no special token."""
    specials = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
    tokenizer = Tokenizer.from_str(byte_level(golden()['merges']['byte'], QWEN_WORDS, specials))
    tokenizer.add_tokens(
        [AddedToken(f'<{name}>', normalized=False) for name in ('think', '/think')]
    )
    return tokenizer.to_str()


def _pieces(merges: list[str], specials: tuple[str, ...], added: tuple[str, ...]) -> list[str]:
    merged = [merge.replace(' ', '') for merge in merges]
    chars = [char for char in CHARS if char not in added]
    return [*specials, *BYTES, *chars, *merged]


def _ids(pieces: list[str]) -> dict[str, int]:
    assert len(set(pieces)) == len(pieces), 'duplicate piece'
    return {piece: i for i, piece in enumerate(pieces)}
