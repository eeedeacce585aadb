"""Request ids of a sampling specification, and the examples of its and the episodes' docstrings."""

import dataclasses
import doctest

import pytest

from elenchus.sampling import episodes, sample_spec
from elenchus.sampling.engine.sampling_methods import Greedy

SPEC = sample_spec.SampleSpec(num_samples=3, method=Greedy(()), seed=0, first_id=6)


def test_ids_of_prompts_leave_room_for_their_samples():
    assert list(SPEC.first_ids(3)) == [6, 9, 12]


def test_a_part_has_the_ids_that_it_has_in_the_whole():
    part = dataclasses.replace(SPEC, first_id=6 + 2 * SPEC.num_samples)
    assert list(part.first_ids(2)) == list(SPEC.first_ids(4))[2:]


def test_listed_ids_are_taken_as_they_are():
    assert dataclasses.replace(SPEC, first_id=[7, 3]).first_ids(2) == [7, 3]


@pytest.mark.parametrize('module', [episodes, sample_spec])
def test_examples_in_docstrings_run(module):
    failures, attempted = doctest.testmod(module)
    assert attempted and not failures
