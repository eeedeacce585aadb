"""The two extractions of lm-evaluation-harness against its own regular expressions."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.data.grading import harness

# lm_eval/tasks/gsm8k/gsm8k.yaml, version 3, and lm_eval/filters/extraction.py.
YAML = {
    'strict-match': (r'#### (\-?[0-9\.\,]+)', 0),
    'flexible-extract': (r'(-?[$0-9.,]{2,})|(-?[0-9]+)', -1),
}
UNTIL = ['Question:', '</s>', '<|im_end|>']
IGNORED = [',', r'\$', '(?s).*#### ', r'\.$']


def by_the_harness(text, name):
    """What its RegexFilter returns for a response that its stop texts end."""
    for stop in UNTIL:
        text = text.split(stop)[0]
    pattern, select = YAML[name]
    matches = re.findall(pattern, text)
    if not matches:
        return '[invalid]'
    match = matches[select]
    return (
        next((m for m in match if m), '[invalid]') if isinstance(match, tuple) else match
    ).strip()


def matches(answer, reference):
    for pattern in IGNORED:
        answer, reference = re.sub(pattern, '', answer), re.sub(pattern, '', reference)
    return answer.lower() == reference.lower()


@pytest.mark.parametrize(
    ('text', 'reference', 'strict', 'flexible'),
    [
        ('She has 18.\n#### 18', '18', True, True),
        ('#### 1,800', '1800', True, True),
        ('#### $18', '18', False, True),
        ('#### -3', '-3', True, True),
        ('#### 18.', '18', True, True),
        ('#### 18.00', '18', False, False),
        ('####18', '18', False, True),
        ('The answer is 18.', '18', False, True),
        ('The answer is $1,234.50.', '1234.50', False, True),
        ('#### 5 and #### 6', '5', True, False),
        ('#### 5 and #### 6', '6', False, True),
        (r'\boxed{18}', '18', False, True),
        ('18 apples, that is 3 a day', '18', False, False),
        ('#### 18\n\nQuestion: 3 + 4?\nAnswer: #### 7', '18', True, True),
        ('#### 18<|im_end|>#### 7', '18', True, True),
        ('18</s>7', '18', False, True),
        ('no number', '18', False, False),
        ('', '18', False, False),
        ('18 .', '18', False, True),
        ('eighteen, so: 18 ...', '18', False, False),
        ('<think>#### 3</think>#### 18', '18', True, True),
        ('Question: 18', '18', False, False),
    ],
)
def test_a_response_is_right_as_the_harness_says(text, reference, strict, flexible):
    assert harness.figures(text, reference) == {
        'strict-match': strict,
        'flexible-extract': flexible,
    }
    answer = text.rpartition('</think>')[2]
    assert strict == matches(by_the_harness(answer, 'strict-match'), reference)
    assert flexible == matches(by_the_harness(answer, 'flexible-extract'), reference)


WORDS = st.sampled_from(
    ['#### ', '18', '-', '$', '.', ',', ' ', '\n', 'a', 'Question:', '</s>', '<|im_end|>', '####']
)


@given(st.lists(WORDS, max_size=12).map(''.join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_as_the_harness_reads_it(text):
    assert harness.strict_match(text) == by_the_harness(text, 'strict-match')
    assert harness.flexible_extract(text) == by_the_harness(text, 'flexible-extract')
    assert harness.is_exact_match(text, '18') == matches(text, '18')
