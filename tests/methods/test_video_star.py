"""Video-STaR: an answer is kept if the label stands in it, and a label may be shown."""

import dataclasses

import pytest

from elenchus.configs.methods import video_star
from elenchus.sampling.exploration import explorers, selection
from elenchus.sampling.exploration.acceptance import Response
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import fake_engine
from tests.support.method_cases import PROBLEM, written
from tests.support.rollout_cases import METHOD

EXPLORE = build.build(RunSettings, video_star.get_config('default')).improve.explore


@pytest.mark.parametrize(
    ('label', 'text', 'contains'),
    [
        ('42', 'So there are 42 of them.', True),
        ('42', 'So there are 142 of them.', False),
        ('42', '', False),
        ('playing  guitar', 'He is Playing\nguitar on a stage', True),
        ('playing guitar', 'He is playing the guitar', False),
        ('a+b', 'the sum a+b is right', True),
        ('aab', 'a+b', False),
        ('-3', 'it is -3', True),
    ],
)
def test_containment(label, text, contains):
    problem = dataclasses.replace(PROBLEM, answer=label)
    turn = written('attempt', (1,), correct=not contains)  # the judge is not asked
    assert video_star.contains_label([Response(problem, turn, text, None)]) == [contains]


def test_exactly_what_lacks_the_label_is_sampled_again_with_it():
    problems = fake_engine.problems(4)

    def play(role, request, seed):
        """The label in a sentence, at every second problem or where it is shown."""
        question = fake_engine.last_text(request, 'question')
        answer = next(p.answer for p in problems if p.question == question)
        is_shown = f'#### {answer}' in fake_engine.TOKENIZER.decode(list(request.prompt))
        knows = request.id % 2 == 0 or is_shown
        return fake_engine.ids_of(f'ben {answer} ?' if knows else 'ben ?')

    models = fake_engine.players(fake_engine.RuleEngine(play))
    explored, _ = explorers.explore(
        EXPLORE, models, problems, explorer='answer_driven', method=METHOD, seed=0, first_id=0
    )
    origins = [(e.problem_id, e.response.facts.origin) for e in explored]
    assert origins == [
        *((p.id, 'attempt') for p in problems),
        *((p.id, 'answer_driven') for p in problems[1::2]),
    ]
    kept = selection.curate(explored, EXPLORE, wrong=False, deduplicate=True)
    assert sorted(e.problem_id for e in kept) == sorted(p.id for p in problems)
    assert not any(e.response.facts.correct for e in kept)  # the judge wants another form
