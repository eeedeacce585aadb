"""HEART: another emotion in each round, behind the critique."""

import dataclasses

from elenchus.configs.methods import heart
from elenchus.data import records
from elenchus.sampling.test_time import feedback
from elenchus.sampling.writing import Notes
from tests.support import fake_engine
from tests.support.fake_engine import CHAT

REFERENCE = 'elenchus.configs.methods.heart:phrase'
(PROBLEM,) = fake_engine.problems(1)


def test_six_emotions_rotate():
    problem = dataclasses.replace(PROBLEM, source='gsm8k')
    phrases = [heart.phrase(problem, Notes(number)) for number in range(12)]
    assert phrases[:6] == phrases[6:] == [f'\n {text}' for text in heart.EMOTIONS.values()]
    assert len(set(phrases)) == 6
    assert set(heart.EMOTIONS) == {'joy', 'sadness', 'fear', 'anger', 'surprise', 'disgust'}


def test_on_the_lab_each_round_has_words_that_the_model_knows():
    turns = (CHAT.text_turn('attempt', '#### 1'), CHAT.text_turn('critique', 'answer : wrong'))
    episode = records.Episode('p', 1, (*CHAT.question_turns(PROBLEM.question), *turns))
    texts = []
    for number in range(6):
        (longer,) = feedback.add_feedback(
            fake_engine.players(None).sampler,
            [episode],
            [PROBLEM],
            reference=REFERENCE,
            number=number,
            attribute=None,
        )
        assert longer.turns[:-1] == episode.turns[:-1]
        texts.append(CHAT.text(longer.critique))
    assert len(set(texts)) == 6 and all(text.startswith('answer : wrong\n ') for text in texts)


def test_rounds_end_where_the_critic_is_content():
    assert heart.CHANGES['evaluate.refine'] == 'wrong'
    assert heart.CHANGES['evaluate.num_rounds'] == len(heart.EMOTIONS)
