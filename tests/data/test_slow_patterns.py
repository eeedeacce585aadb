"""Regular expressions of a stranger's tokenizer.json end, whatever they are."""

import json
import subprocess
import sys
import threading
import time

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from elenchus.data.text import time_limits, tokenizer_json
from elenchus.data.text.tokenizer_json import JsonTokenizer
from tests.support import multi_process

USUAL = r' ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
SLOW = {  # pattern -> a text for it
    '(a|b|a){12,20}x': ('a' * 20 + '!') * 400,
    '(a+)+$': ('a' * 40 + '!') * 50,
    '(?:a|aa)+!x': ('a' * 40 + '!') * 50,
    'a*a*a*a*a*a*[bx]{3}': 'a' * 4000 + 'b',
}


def tokenizer_with(pattern, place='pre_tokenizer'):
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


@pytest.fixture(autouse=True)
def short_limit(monkeypatch):
    """A limit of a fifth of a second."""
    monkeypatch.setattr(tokenizer_json, 'LIMIT_S', 0.2)
    monkeypatch.setattr(tokenizer_json, 'LIMIT_S_A_CHARACTER', 0.0)


@pytest.mark.parametrize('place', ['pre_tokenizer', 'normalizer'])
@pytest.mark.parametrize('pattern', SLOW)
def test_a_pattern_that_takes_too_long_is_an_error_that_names_the_tokenizer(pattern, place):
    tokenizer, start = tokenizer_with(pattern, place), time.monotonic()
    with pytest.raises(ValueError, match=f'the tokenizer {tokenizer.fingerprint}.*(take|retry)'):
        tokenizer.encode(SLOW[pattern])
    assert time.monotonic() - start < 20


def test_so_is_one_of_the_decoder_and_of_a_rendered_text():
    pattern = next(iter(SLOW))
    tokenizer = tokenizer_with(pattern, 'decoder')
    with pytest.raises(ValueError, match='take'):
        tokenizer.decode(tokenizer.encode(SLOW[pattern]) * 20)
    with pytest.raises(ValueError, match='take'):
        tokenizer_with(pattern).encode_rendered(SLOW[pattern])


def test_usual_patterns_give_the_library_s_ids():
    tokenizer = tokenizer_with(USUAL)
    library = tokenizers.Tokenizer.from_str(tokenizer.model.decode())
    for text in ('', 'a b', 'ab  x!\n\n', 'b!' * 1000):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids
    before = threading.active_count()
    for _ in range(100):
        tokenizer.encode('a b x')
    assert threading.active_count() == before


PROGRAM = """
from elenchus.data.text import tokenizer_json
from tests.data import test_slow_patterns as case
tokenizer_json.LIMIT_S, tokenizer_json.LIMIT_S_A_CHARACTER = 0.2, 0.0
pattern = next(iter(case.SLOW))
case.tokenizer_with(pattern).encode(case.SLOW[pattern] * 100)
"""


def test_a_process_ends_although_a_pattern_goes_on():
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=multi_process.ROOT,
        env=multi_process.environment(1), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1 and 'ValueError: the tokenizer' in done.stderr
    assert time.monotonic() - start < 60


def test_a_call_is_limited_and_its_errors_arrive():
    assert time_limits.within(5.0, sorted, [2, 1]) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        time_limits.within(5.0, lambda: 1 / 0)
    with pytest.raises(time_limits.TimeLimitError):
        time_limits.within(0.05, time.sleep, 1.0)
    assert time_limits.within(5.0, lambda: 'after') == 'after'
