import pytest

from elenchus.configs import defaults
from elenchus.data.grading import extraction, judge, verify
from elenchus.data.records import Problem
from elenchus.train.config import build


def problem(answer):
    return Problem(id='0', question='?', answer=answer, solution='', level=0, source='jsonl')


def test_only_the_configured_markers_count():
    pairs = [(problem('7'), 'The answer is 7.'), (problem('7'), '#### 7'), (problem('7'), None)]
    with verify.Verifier(comparator='no_such_module:compare') as verifier:
        every = judge.make_judge('jsonl', verifier)(pairs)
        hashes = judge.make_judge('jsonl', verifier, ['hashes'])(pairs)
    assert [fact.correct for fact in every] == [True, True, False]
    assert [fact.answer for fact in hashes] == [None, '7', None]
    assert [fact.outcome for fact in hashes] == ['no_answer', 'right', 'no_answer']


def test_a_doubt_is_not_correct():
    with verify.Verifier(comparator='no_such_module:compare') as verifier:
        (fact,) = judge.make_judge('jsonl', verifier)([(problem('1234'), '#### (1,234)')])
    assert fact.outcome == 'unsure' and fact.correct is False


def test_the_default_config_enables_every_marker_in_the_documented_order():
    answer = defaults.get_config().data.answer
    assert tuple(answer.markers) == extraction.MARKERS
    settings = build.build(judge.AnswerSettings, answer, 'config.data.answer')
    assert settings.workers == 0 and settings.timeout_s == 5.0


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'markers': ('boxd',)}, r"data.answer.markers\[0\]='boxd' .* did you mean 'boxed'"),
        ({'markers': ()}, 'data.answer.markers'),
        ({'markers': 'boxed'}, 'data.answer.markers'),
        ({'workers': -1}, 'data.answer.workers=-1'),
        ({'workers': 1.5}, 'data.answer.workers=1.5'),
        ({'timeout_s': 0.0}, 'data.answer.timeout_s=0.0'),
        ({'timeout_s': float('nan')}, 'data.answer.timeout_s=nan'),
        ({'timeout_s': float('inf')}, 'data.answer.timeout_s=inf'),
    ],
)
def test_answer_settings_out_of_range_are_refused_by_name(changes, message):
    section = defaults.get_config().data.answer
    with section.unlocked(), section.ignore_type():
        section.update(changes)
    with pytest.raises(ValueError, match=message):
        build.build(judge.AnswerSettings, section, 'config.data.answer')
