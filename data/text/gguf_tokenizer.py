"""Rebuilds the tokenizer of a GGUF file: tokenizer.json and its config, from the file's metadata.

Two kinds are supported. `gpt2`: byte-level BPE with the file's merges and the pre-tokenizer that
`tokenizer.ggml.pre` names. `llama`: a SentencePiece model with scores; unless the file has merges,
they are all ways to divide a piece into two others, in the order of the scores, as in
`transformers`.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

SPACE = '\u2581'
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens, `tokenizer.ggml.token_type`."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
LLAMA3_SPLIT = f'{_CONTRACTIONS}|\\p{{N}}{{1,3}}{_REST}'
QWEN2_SPLIT = f'{_CONTRACTIONS}|\\p{{N}}{_REST}'
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
_TEKKEN = (
    rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*'
    r'|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)

_SPLITS = {
    **dict.fromkeys(
        ('llama3', 'llama-v3', 'llama-bpe', 'falcon3', 'smaug-bpe', 'dbrx'), LLAMA3_SPLIT
    ),
    **dict.fromkeys(('qwen2', 'deepseek-r1-qwen', 'megrez'), QWEN2_SPLIT),
    'tekken': _TEKKEN,
}
_DIGITS_FIRST = ('smollm', 'starcoder', 'refact', 'command-r', 'codeshell')
_PLAIN = ('gpt-2', 'gpt2', 'olmo', 'mpt', 'jais')
PRE_TOKENIZERS = (*_SPLITS, *_DIGITS_FIRST, *_PLAIN)
"""Values of `tokenizer.ggml.pre` that are known."""

_IGNORE_MERGES = {
    LLAMA3_SPLIT,
    _TEKKEN,
}  # a word in the vocabulary is one token, even if no merges lead to it
_NORMALIZED = {QWEN2_SPLIT}  # Qwen's texts are in the form NFC
_PADDING = re.compile(r'\[PAD\d+\]')
_NAMES = {'bos': 'bos', 'eos': 'eos', 'unknown': 'unk', 'padding': 'pad'}


def read_tokenizer(metadata: Mapping[str, Any], *, place: str) -> dict[str, str]:
    """Returns the contents of the tokenizer's files by name, as in a folder of `transformers`.

    tokenizer.json, tokenizer_config.json, generation_config.json and, if the file has a chat
    template, chat_template.jinja. {} if the file has no tokenizer.

    Args:
        metadata: keys and values of the file.
        place: name of the file, for errors.

    Raises ValueError, naming the key, if the kind of tokenizer is not known or keys are missing.
    """
    kind = metadata.get('tokenizer.ggml.model')
    if kind is None:
        return {}
    builders = {'gpt2': _byte_level, 'llama': _sentencepiece}
    if kind not in builders:
        near = difflib.get_close_matches(str(kind), builders, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'{place}: tokenizer.ggml.model={kind!r} is not supported; known: {list(builders)}; '
            f'nearest: {near!r}'
        )
    values = {
        key.removeprefix('tokenizer.ggml.'): value
        for key, value in metadata.items()
        if key.startswith('tokenizer.ggml.')
    }
    values['architecture'] = metadata.get('general.architecture', '')
    tokens, kinds = values.get('tokens'), values.get('token_type')
    if not tokens or kinds is None or len(kinds) != len(tokens):
        raise ValueError(
            f'{place}: tokenizer.ggml.tokens and token_type must be lists of the same length, not '
            f'{len(tokens or ())} and {len(kinds or ())} values'
        )
    if other := [token for token in tokens if not isinstance(token, str)]:
        raise ValueError(f'{place}: tokenizer.ggml.tokens has {other[0]!r}, which is no text')
    special = _special_tokens(values, place)
    tokenizer = builders[kind](values, place)
    if values.get('add_bos_token', kind == 'llama') and 'bos_token' in special:
        bos = special['bos_token']
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f'{bos}:0 $A:0',
            pair=f'{bos}:0 $A:0 {bos}:1 $B:1',
            special_tokens=[(bos, values['bos_token_id'])],
        )
    return _files(tokenizer, special, metadata)


def _special_tokens(values: Mapping[str, Any], place: str) -> dict[str, str]:
    """Returns names such as bos_token with their texts. Raises ValueError for other ids."""
    tokens, special = values['tokens'], {}
    for name, ours in _NAMES.items():
        index = values.get(f'{name}_token_id')
        if index is None:
            continue
        if type(index) is not int or not 0 <= index < len(tokens):
            raise ValueError(
                f'{place}: tokenizer.ggml.{name}_token_id={index!r} is no id of the vocabulary; '
                f'nearest: {len(tokens) - 1}'
            )
        special[f'{ours}_token'] = tokens[index]
    return special


def _files(
    tokenizer: Tokenizer, special: Mapping[str, str], metadata: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the texts of the files of a tokenizer."""
    template = metadata.get('tokenizer.chat_template')
    config = {'tokenizer_class': 'PreTrainedTokenizerFast', **special}
    config['clean_up_tokenization_spaces'] = False
    ids = {
        f'{_NAMES[name]}_token_id': metadata[f'tokenizer.ggml.{name}_token_id']
        for name in ('bos', 'eos', 'padding')
        if f'tokenizer.ggml.{name}_token_id' in metadata
    }
    ends = [metadata.get(f'tokenizer.ggml.{name}_token_id') for name in ('eos', 'eot', 'eom')]
    ends = list(dict.fromkeys(end for end in ends if end is not None))
    if ends:
        ids['eos_token_id'] = ends if len(ends) > 1 else ends[0]
    files = {'tokenizer.json': tokenizer.to_str(), 'generation_config.json': _json(ids)}
    if template is not None:
        config['chat_template'] = template
        files['chat_template.jinja'] = template
    return files | {'tokenizer_config.json': _json(config)}


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + '\n'


def _byte_level(values: Mapping[str, Any], place: str) -> Tokenizer:
    """Builds a byte-level BPE tokenizer."""
    pre = values.get('pre')
    if pre not in PRE_TOKENIZERS:
        near = difflib.get_close_matches(str(pre), PRE_TOKENIZERS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'{place}: tokenizer.ggml.pre={pre!r} does not say how text is split; known: '
            f'{", ".join(PRE_TOKENIZERS)}; nearest: {near!r}'
        )
    if 'merges' not in values:
        raise ValueError(f'{place}: missing key tokenizer.ggml.merges')
    split = _SPLITS.get(pre)
    vocab = _vocabulary(values)
    merges = _read_merges(values, vocab, place)
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=split in _IGNORE_MERGES))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is not None:
        first = [pre_tokenizers.Split(Regex(split), behavior='isolated')]
    else:
        is_split = pre in _DIGITS_FIRST
        first = [pre_tokenizers.Digits(individual_digits=True)] if is_split else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
    if split in _NORMALIZED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return _with_added(tokenizer, values)


def _sentencepiece(values: Mapping[str, Any], place: str) -> Tokenizer:
    """Builds the BPE tokenizer of a SentencePiece model."""
    if 'scores' not in values or len(values['scores']) != len(values['tokens']):
        raise ValueError(f'{place}: tokenizer.ggml.scores must have one value a token')
    gemma = str(values['architecture']).startswith('gemma')
    values = {**values, 'tokens': _respelled(values['tokens'])}
    vocab = _vocabulary(values)
    unknown = values['tokens'][values.get('unknown_token_id', 0)]
    if 'merges' in values:
        merges = _read_merges(values, vocab, place)
    else:
        merges = _derived_merges(values, vocab)
    bpe = models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    to_text = [decoders.Replace(SPACE, ' '), decoders.ByteFallback(), decoders.Fuse()]
    prefix = values.get('add_space_prefix', not gemma)
    if gemma:
        tokenizer.normalizer = normalizers.Replace(' ', SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(' ', behavior='merged_with_previous')
    else:
        scheme = 'first' if prefix else 'never'
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            SPACE, prepend_scheme=scheme, split=False
        )
    strip = [decoders.Strip(' ', 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([*to_text, *strip])
    return _with_added(tokenizer, values)


def _respelled(tokens: Sequence[str]) -> list[str]:
    """Replaces spaces by SentencePiece's symbol in tokens that consist of spaces only."""
    return [SPACE * len(t) if t and not t.strip(' ') else t for t in tokens]


def _vocabulary(values: Mapping[str, Any]) -> dict[str, int]:
    """Returns token -> id, without the tokens that only pad the vocabulary."""
    pairs = zip(values['tokens'], values['token_type'], strict=True)
    return {
        token: i
        for i, (token, kind) in enumerate(pairs)
        if not (kind == UNUSED and _PADDING.fullmatch(token))
    }


def _read_merges(
    values: Mapping[str, Any], vocab: Mapping[str, int], place: str
) -> list[tuple[str, str]]:
    """Returns the file's merges. Raises ValueError for one that joins no tokens to a token."""
    merges = []
    for merge in values['merges']:
        first, _, second = str(merge).partition(' ')
        if not {first, second, first + second} <= vocab.keys():
            raise ValueError(
                f'{place}: tokenizer.ggml.merges has {merge!r}, which does not join two tokens of '
                'the vocabulary to a third'
            )
        merges.append((first, second))
    return merges


def _derived_merges(values: Mapping[str, Any], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Returns every division of a piece into two pieces, those of the best-scored piece first.

    Control tokens are left out, so that no text is encoded as one.
    """
    tokens = zip(values['tokens'], values['token_type'], strict=True)
    usable = {token: kind for token, kind in tokens if kind in (NORMAL, USER_DEFINED)}

    def rank(token: str) -> tuple[bool, float, int]:
        """Sort key; user-defined pieces come first, because they are never divided in a text."""
        is_whole = usable[token] == USER_DEFINED
        score = 0.0 if is_whole else -values['scores'][vocab[token]]
        return not is_whole, score, vocab[token]

    ranked = sorted(usable, key=rank)
    merges = []
    for token in ranked:
        parts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [pair for pair in parts if pair[0] in usable and pair[1] in usable]
        pairs.sort(key=lambda pair: (-len(pair[0]), -len(pair[1]), vocab[pair[0]], vocab[pair[1]]))
        merges += pairs
    return merges


def _with_added(tokenizer: Tokenizer, values: Mapping[str, Any]) -> Tokenizer:
    """Marks control tokens as special, and user-defined ones as whole pieces of text."""
    kinds = list(zip(values['tokens'], values['token_type'], strict=True))
    special = {token for token, kind in kinds if kind in (CONTROL, UNKNOWN)}
    added = [
        AddedToken(token, normalized=False, special=token in special)
        for token, kind in kinds
        if kind in (CONTROL, UNKNOWN) or kind == USER_DEFINED and token.strip(SPACE)
    ]
    tokenizer.add_tokens(added)
    return tokenizer
