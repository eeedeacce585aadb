"""Metacognitive Reuse: the handbook is filled by right solutions and read by its names."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import behaviours
from elenchus.data import records
from elenchus.sampling.exploration import guides
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.writing import Notes
from tests.support import fake_engine
from tests.support.rollout_cases import METHOD

LAB = records.Problem('p', 'fay 7 ; ben : fay - gold ; ben ?', '1', '', 1, 'lab')
TEXT = records.Problem('t', 'A train and a fraction of a cake', '1', '', 1, 'jsonl')
LINE = 'ben : fay 7 - gold 6 = 1 ; ben 1'


def test_on_the_lab_a_right_line_is_kept_under_its_thing():
    notes = Notes(responses=('ben : fay 7 - gold 5 = 2 ; ben 2\n #### 2', f'{LINE}\n #### 1'))
    assert behaviours.learn(LAB, notes._replace(accepted=(False, True))) == {'gold': LINE}
    assert behaviours.learn(LAB, notes._replace(accepted=(False, False))) == {}
    memory = {'gold': LINE, 'oak': 'ben : fay 7 - oak 1 = 6 ; ben 6'}
    assert behaviours.handbook(LAB, Notes(memory=memory)) == LINE
    assert behaviours.handbook(LAB, Notes(memory={'oak': 'x'})) is None


def test_elsewhere_the_model_names_what_it_did():
    notes = Notes(responses=('wrong', 'first', 'second'), accepted=(False, True, True))
    (request,) = behaviours.learn(TEXT, notes)
    assert TEXT.question in request and 'first' in request and 'second' not in request
    said = 'Behaviours\n- common fraction: Use one denominator.\n2. Check units: Compare both.\nbye'
    assert behaviours.learn(TEXT, notes._replace(written=(said,))) == {
        'common fraction': 'Use one denominator.',
        'Check units': 'Compare both.',
    }
    assert behaviours.learn(TEXT, Notes(responses=('wrong',), accepted=(False,))) == {}


@given(
    st.dictionaries(st.sampled_from(['train', 'cake fraction', 'fraction', 'unit', 'a']), st.text())
)
def test_entries_share_words_with_the_question_and_the_best_come_first(memory):
    guide = behaviours.handbook(TEXT, Notes(memory=memory))
    found = [n for n in ('cake fraction', 'fraction', 'train') if n in memory]
    expected = '\n '.join(f'{name}: {memory[name]}' for name in found)
    assert guide == (expected or None)


def test_no_more_than_five_are_shown():
    memory = {f'train {letter}': letter for letter in 'gfedcba'}
    guide = behaviours.handbook(TEXT, Notes(memory=memory))
    assert guide.split('\n ') == [f'train {letter}: {letter}' for letter in 'abcde']


def test_the_slot_keeps_the_handbook_over_problems():
    models = fake_engine.players(fake_engine.AnsweringEngine(lambda request: 'ben ?'))
    items = [
        (LAB, Notes(responses=(f'{LINE}\n #### 1',), accepted=(True,))),
        (dataclasses.replace(LAB, id='q'), Notes(responses=('ben ?',), accepted=(True,))),
    ]
    kept = guides.learn(
        models,
        items,
        reference='elenchus.configs.methods.behaviours:handbook',
        memory={'oak': 'x'},
        spec=SampleSpec(1, METHOD, 0, 0),
        room=None,
    )
    assert kept == {'gold': LINE, 'oak': 'x'}
