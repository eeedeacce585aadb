"""Tokenizers whose file has a regular expression of a stranger, usual or slow."""

import json

import tokenizers
from tokenizers import models, pre_tokenizers

from elenchus.data.text.tokenizer_json import JsonTokenizer

USUAL = r' ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
SLOW = {  # pattern -> a text for it
    '(a|b|a){12,20}x': ('a' * 20 + '!') * 400,
    '(a+)+$': ('a' * 40 + '!') * 50,
    '(?:a|aa)+!x': ('a' * 40 + '!') * 50,
    'a*a*a*a*a*a*[bx]{3}': 'a' * 4000 + 'b',
}


def tokenizer_with(pattern: str, place: str = 'pre_tokenizer') -> JsonTokenizer:
    """Returns a tokenizer with the pattern in a section of its file."""
    vocabulary = {c: i for i, c in enumerate('abx! \n')}
    plain = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex('x'), 'isolated')
    fields = json.loads(plain.to_str())
    fields['pre_tokenizer'] = None
    pattern = {'Regex': pattern}
    split = {'type': 'Split', 'pattern': pattern, 'behavior': 'Isolated', 'invert': False}
    replace = {'type': 'Replace', 'pattern': pattern, 'content': ''}
    part = split if place == 'pre_tokenizer' else replace
    nested = {'type': 'Sequence', 'pretokenizers': [part]}
    nested |= {'normalizers': [part], 'decoders': [part]}
    kept = {'pre_tokenizer': 'pretokenizers', 'normalizer': 'normalizers', 'decoder': 'decoders'}
    fields[place] = {'type': 'Sequence', kept[place]: nested[kept[place]]}
    return JsonTokenizer(json.dumps(fields).encode())
