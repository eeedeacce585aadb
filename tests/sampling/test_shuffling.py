"""Every episode is paired with one of another question, of its level where there is one."""

import collections

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.shuffling import other_question


def episodes_of(pairs):
    """One episode for each (level, question)."""
    return [records.Episode(f'{level}/{question}', level, ()) for level, question in pairs]


@hypothesis.given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), min_size=2, max_size=30),
    st.integers(0, 9),
)
def test_the_other_is_of_another_question_and_of_the_level_where_it_can_be(pairs, seed):
    hypothesis.assume(len(set(pairs)) > 1)
    episodes = episodes_of(pairs)
    partners = other_question(episodes, seed=seed)
    assert len(partners) == len(episodes)
    for episode, i in zip(episodes, partners, strict=True):
        assert episodes[i].problem_id != episode.problem_id
        questions = {e.problem_id for e in episodes if e.level == episode.level}
        assert (episodes[i].level == episode.level) == (len(questions) > 1)
    for level in {level for level, _ in pairs}:
        members = [i for i, e in enumerate(episodes) if e.level == level]
        counts = collections.Counter(episodes[i].problem_id for i in members)
        if max(counts.values()) <= len(members) / 2:  # each critique is used once
            assert sorted(partners[i] for i in members) == members


def test_a_seed_gives_the_same_pairs_and_another_one_others():
    episodes = episodes_of([(1, question) for question in range(20)])
    assert other_question(episodes, seed=3) == other_question(episodes, seed=3)
    assert other_question(episodes, seed=3) != other_question(episodes, seed=4)


def test_one_question_has_no_other():
    with pytest.raises(ValueError, match='all 3 episodes are of one question'):
        other_question(episodes_of([(1, 0)] * 3), seed=0)
    assert other_question([], seed=0) == []
