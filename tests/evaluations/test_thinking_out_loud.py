"""Stated confidence: parsing, calibration of a stream of known error, abstentions apart."""

import math

import pytest

from elenchus.configs.evaluations import thinking_out_loud
from tests.support import method_cases


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('Confidence: 80', 0.8), ('confidence 0.25', 0.25), ('Confidence: 7/10', 0.7),
        ('confidence = 95%', 0.95), ('confidence: 50. Later: confidence: 60', 0.6),
        ('My confidence is 80%', 0.8), ('**Confidence:** 80%', 0.8),
        ('confidence: 8 out of 10', 0.8), ('I am confident', None),
        ('confidence: 140', None), ('', None),
    ],
)  # fmt: skip
def test_a_stated_confidence(text, value):
    assert thinking_out_loud.stated_confidence(text) == value


def test_calibration_of_a_stream_with_a_known_error():
    rights = [True] * 8 + [False] * 2
    group = [{'correct': right} for right in rights]
    for stated, error in ((80, 0.0), (50, 0.3), (100, 0.2)):
        read = method_cases.reader([f'confidence: {stated}'] * 10)
        figures = thinking_out_loud.stated(method_cases.groups(group), read)
        assert figures == {
            'ece': pytest.approx(error), 'states a confidence': 1.0, 'abstains': 0.0,
        }  # fmt: skip


def test_an_abstention_is_no_confidence():
    read = method_cases.reader(["I don't know.", 'The answer is 3.'])
    figures = thinking_out_loud.stated(
        method_cases.groups([{'correct': False}, {'correct': True}]), read
    )
    assert math.isnan(figures['ece'])
    assert (figures['states a confidence'], figures['abstains']) == (0.0, 0.5)
