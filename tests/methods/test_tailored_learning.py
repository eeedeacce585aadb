"""Tailored Learning: corrections are trained behind the question, and behind the mistake."""

from elenchus.configs.methods import tailored_learning
from elenchus.train import pair_rules
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages import improve
from tests.support.fake_engine import CHAT, TOKENIZER, problems
from tests.support.method_cases import group, last_tokens, talk, written

(PROBLEM,) = problems(1)
SETTINGS = build.build(RunSettings, tailored_learning.get_config('default'))


def conversation(refinement, origin='interactive'):
    turns = (
        CHAT.text_turn('attempt', '#### 9').with_facts(correct=False, origin='attempt'),
        CHAT.text_turn('critique', 'answer : wrong'),
        CHAT.text_turn('refinement', refinement).with_facts(correct=True, origin=origin),
    )
    return talk(*CHAT.question_turns(PROBLEM.question), *turns)


def attempt(text, origin):
    turn = CHAT.text_turn('attempt', text).with_facts(correct=True, origin=origin)
    return talk(*CHAT.question_turns(PROBLEM.question), turn)


def test_a_correction_is_trained_behind_its_mistake_and_the_lesson():
    explored = [conversation('#### 1'), conversation('#### 2')]
    kept = [attempt('#### 2', 'interactive'), attempt('#### 1', 'attempt')]
    (example,) = improve.refinement_examples(CHAT, kept, explored)
    read = lambda mask: TOKENIZER.decode(example.tokens[mask].tolist())  # noqa: E731
    assert read(example.loss_mask > 0).strip() == '#### 2'
    context = read(example.loss_mask == 0)
    assert '#### 9' in context and 'answer : wrong' in context


def test_reflection_prefers_the_correction_to_the_mistake():
    wrong = written('attempt', (9,), correct=False)
    rows = [
        talk(wrong, written('critique', (5,)), written('refinement', (1,), correct=True)),
        talk(wrong, written('critique', (5,)), written('refinement', (2,), correct=False)),
        talk(written('attempt', (3,), correct=True)),
    ]
    rule = pair_rules.PAIR_RULES[SETTINGS.prefer.pairs]
    assert last_tokens(rule([group(*rows)])) == [((1,), (9,))]


def test_the_pairs_are_of_the_actor_that_learnt_from_the_lessons():
    assert SETTINGS.prefer.start == 'interactive' in SETTINGS.stages
    assert SETTINGS.improve.trains == ('response', 'refinement')
    assert SETTINGS.improve.explore.teacher == 'reference'
