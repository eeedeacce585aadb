"""Regular expressions of a stranger's tokenizer.json end, whatever they are."""

import subprocess
import sys
import threading
import time

import pytest
import tokenizers

from elenchus.data.text import time_limits, tokenizer_json
from tests.support import multi_process
from tests.support.slow_patterns import SLOW, USUAL, tokenizer_with


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
        tokenizer.decode(tokenizer.encode(SLOW[pattern]) * 200)
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
from tests.support import slow_patterns as case
tokenizer_json.LIMIT_S, tokenizer_json.LIMIT_S_A_CHARACTER = 0.2, 0.0
pattern = next(iter(case.SLOW))
case.tokenizer_with(pattern).encode(case.SLOW[pattern] * 100)
"""


@pytest.mark.slow
def test_a_process_ends_although_a_pattern_goes_on():
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=multi_process.ROOT,
        env=multi_process.environment(1), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1 and 'ValueError: the tokenizer' in done.stderr


def test_a_call_is_limited_and_its_errors_arrive():
    assert time_limits.within(5.0, sorted, [2, 1]) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        time_limits.within(5.0, lambda: 1 / 0)
    with pytest.raises(time_limits.TimeLimitError):
        time_limits.within(0.05, time.sleep, 1.0)
    assert time_limits.within(5.0, lambda: 'after') == 'after'
