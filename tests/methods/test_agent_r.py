"""Agent-R: the path up to its first error, a thought, and the right path; the error is masked."""

import types

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import agent_r
from elenchus.data import records
from elenchus.data.critiques.grammars import LAB
from elenchus.data.critiques.self_talk import RemarkedLine
from elenchus.sampling.critique_data import splices
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages import self_talk_data
from tests.support.fake_engine import CHAT, TOKENIZER
from tests.support.method_cases import PROBLEM
from tests.support.rollout_cases import PROBLEMS

PARTS = [
    RemarkedLine('eve : ben 2 + 5 = 7 ; eve 7', 'eve : ben + 5 ; 7 - 7 = 0 ; correct'),
    RemarkedLine('ben : eve 7 - 4 = 4 ; ben 4', 'ben : eve - 4 ; 4 - 3 = 1 ; wrong'),
    RemarkedLine('ben : eve 7 - 4 = 3 ; ben 3', 'ben : eve - 4 ; 3 - 3 = 0 ; correct'),
    RemarkedLine('#### 3', 'answer : ben 3 ; correct'),
]


def settings():
    return build.build(RunSettings, agent_r.get_config('default')).self_talk


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_only_wrong_lines_have_a_thought(rights):
    lines = [splices.TalkLine(f'n{i}', f'r{i}', right) for i, right in enumerate(rights)]
    expected = [x for p in lines for x in ((p.line,) if p.right else (p.line, p.remark))]
    assert agent_r.revised(lines, PROBLEM).split('\n') == expected


def test_the_loss_is_on_thought_and_right_path_and_not_on_the_error():
    s = settings()
    text = splices.splice(s.splice, PARTS, PROBLEM, grammar=LAB)
    written = [line.strip() for line in text.split('\n')]
    assert written == [PARTS[0].line, *PARTS[1], PARTS[2].line, PARTS[3].line]
    turns = (*CHAT.question_turns(PROBLEMS[3].question), CHAT.text_turn('attempt', text))
    samplers = types.SimpleNamespace(inputs=types.SimpleNamespace(chat=CHAT, grammar=LAB))
    talk = records.Episode('p', 1, turns)
    example = self_talk_data.talk_example(samplers, talk, settings=s)
    masked = example.tokens[(example.loss_mask > 0) & (example.weights == 0)]
    assert TOKENIZER.decode(masked.tolist()).strip() == PARTS[1].line
