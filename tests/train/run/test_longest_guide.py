"""The longest guide that a model reads, by the stages and teachers of a run."""

import pytest

from elenchus.configs import lab
from elenchus.data.critiques import grammars
from elenchus.sampling.critique_data import annotators
from elenchus.train.config import build, run_settings
from elenchus.train.run import inputs
from tests.support import fake_engine
from tests.support.fake_engine import CHAT

PROBLEMS = fake_engine.problems(10)


@pytest.mark.parametrize(
    ('stage', 'teacher', 'grammar', 'has_guide'),
    [
        ('interactive', 'reference', grammars.RELEASED, True),
        ('interactive', 'reference', grammars.LAB, False),  # the oracle needs none
        ('interactive', 'critic', grammars.RELEASED, False),
        ('vanilla', 'reference', grammars.RELEASED, False),
    ],
)
def test_a_teacher_with_the_reference_reads_it_in_a_guide(
    monkeypatch, stage, teacher, grammar, has_guide
):
    """The lab's tokenizer has no words for the guide of text: the solution stands for it."""
    monkeypatch.setattr(annotators, 'guidance', lambda item, grammar: item.problem.solution)
    config = lab.get_config('smoke')
    config.stages = ('base', 'actor', 'critique', 'critic', stage)
    config.improve.explore.teacher = teacher
    settings = build.build(run_settings.RunSettings, config)
    explored = PROBLEMS[: settings.improve.num_problems]
    longest = max(len(CHAT.tokenizer.encode(p.solution)) for p in explored)
    expected = CHAT.overhead + longest if has_guide else 0
    assert inputs.longest_guide(settings, CHAT, PROBLEMS, grammar=grammar) == expected
