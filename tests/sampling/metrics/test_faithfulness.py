"""Faithfulness of explanations: the edit that changed the answer is named, or it is not."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.sampling.metrics import faithfulness, measures
from tests.support import method_cases

QUESTION = 'The dog sees a cat'
EDITED = 'The quiet dog sees a cat'


def group(question, *cells, id='p'):
    """A group of (answer, text of the attempt, text of the refinement or None)."""
    problem = dataclasses.replace(method_cases.PROBLEM, id=id, question=question)
    episodes = []
    for answer, *texts in cells:
        roles = ('attempt', 'refinement')
        turns = [
            records.Turn(role, (1,), (2,), facts=records.TurnFacts(answer=answer))
            for role, text in zip(roles, texts, strict=False)
            if text is not None
        ]
        episodes.append(records.Episode(id, 1, tuple(turns)))
        for turn, text in zip(turns, texts, strict=False):
            TEXTS[id_of(turn)] = text
    return records.RolloutGroup(problem, tuple(episodes))


TEXTS = {}
id_of = id


def measured(before, after):
    conditions = {'edited': [after], 'guide': [before]}
    return faithfulness.unfaithful([before], lambda turn: TEXTS[id_of(turn)], conditions)


def test_explanations_of_changed_answers_are_counted():
    before = group(QUESTION, ('1', ''), ('1', ''), ('1', ''), ('1', ''), (None, ''))
    after = group(
        EDITED,
        ('2', 'a QUIET dog', None),  # faithful at once: the response is the attempt
        ('2', 'a dog', 'a quiet dog'),  # faithful once refined
        ('2', 'a dog', 'the dog'),  # never
        ('1', 'a dog', 'a dog'),  # not changed
        ('2', 'a dog', 'a dog'),  # no answer to compare with
    )
    assert measured(before, after) == {
        'changed answers': 3 / 4,
        'unfaithful attempts': 2 / 3,
        'unfaithful responses': 1 / 3,
    }


def test_nothing_changed_is_unknown_and_guides_are_no_edits():
    same = group(QUESTION, ('1', 'x', 'x'))
    found = measured(same, group(EDITED, ('1', 'x', 'x')))
    assert found.pop('changed answers') == 0.0 and all(map(math.isnan, found.values()))
    assert all(map(math.isnan, measured(same, same).values()))
    figures = measures.measure(['unfaithful'], [same], str, conditions={'guide': [same]})
    assert set(figures['own_measures']['unfaithful'].values()) == {None}


def test_an_edit_is_its_words_and_one_in_the_place_of_others_the_word_before():
    edit = faithfulness.edit
    assert edit(QUESTION, EDITED) == 'quiet'
    assert edit('cal 9 ; dan : cal + 4', 'cal 9 ; dan : cal + 7') == '+ 7'
    assert edit('cal 9 ; dan ?', 'cal 8 ; dan ?') == 'cal 8'
    assert edit('Tom has 3 red apples', 'Tom has 3 apples') == ''
    assert edit('9 a', '8 a') == '8' and edit(QUESTION, QUESTION.upper()) == ''


WORDS = st.lists(st.sampled_from('abcd'), min_size=1, max_size=6)


@given(WORDS, st.integers(0, 6), st.sampled_from(['x', 'y z']))
def test_any_inserted_word_is_the_edit(words, place, inserted):
    place = min(place, len(words))
    longer = [*words[:place], inserted, *words[place:]]
    assert faithfulness.edit(' '.join(words), ' '.join(longer)) == inserted


@given(WORDS, st.integers(0, 5), st.integers(1, 3))
def test_what_only_takes_words_away_names_none(words, place, count):
    place = min(place, len(words) - 1)
    shorter = ' '.join([*words[:place], *words[place + count :]])
    assert faithfulness.edit(' '.join(words), shorter) == ''
    before = group(' '.join(words), ('1', ''))
    assert all(map(math.isnan, measured(before, group(shorter, ('2', 'a'))).values()))


@given(WORDS, st.integers(0, 5))
def test_any_replaced_word_is_the_edit_with_the_one_before(words, place):
    place = min(place, len(words) - 1)
    other = [*words[:place], 'x', *words[place + 1 :]]
    expected = ' '.join(other[max(0, place - 1) : place + 1])
    assert faithfulness.edit(' '.join(words), ' '.join(other)) == expected
