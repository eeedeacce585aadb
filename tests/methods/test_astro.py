"""ASTRO: the text of a search, with its failures and the way back."""

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import astro
from elenchus.data.critiques.grammars import LAB
from elenchus.data.critiques.self_talk import RemarkedLine
from elenchus.sampling.critique_data import splices
from elenchus.train.config import build, checks, players
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import PROBLEM


def line(name, right):
    return splices.TalkLine(name, f'{name} ? ; {"correct" if right else "wrong"}', right)


def test_a_failed_node_is_followed_by_the_way_back_to_its_parent():
    lines = [line('a', True), line('b', False), line('c', True), line('d', False), line('e', True)]
    text = astro.backtracked(lines, PROBLEM)
    assert text == 'a\nb\nb ? ; wrong\na\nc\nd\nd ? ; wrong\nc\ne'
    assert astro.backtracked([line('b', False), line('a', True)], PROBLEM) == 'b\nb ? ; wrong\na'


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_the_text_replays_all_edges_in_order_and_nothing_else_where_nothing_fails(rights):
    lines = [line(f'n{i}', right) for i, right in enumerate(rights)]
    written = astro.backtracked(lines, PROBLEM).split('\n')
    first = [written.index(part.line) for part in lines]
    assert first == sorted(first)
    backs = sum(w.endswith('wrong') for w in written)
    assert backs == rights.count(False)
    if all(rights):
        assert written == [part.line for part in lines]


def test_the_talk_ends_with_the_right_answer_and_is_reinforced():
    settings = build.build(RunSettings, astro.get_config('default'))
    parts = [
        RemarkedLine('ben : eve 7 - 4 = 4 ; ben 4', 'ben : eve - 4 ; 4 - 3 = 1 ; wrong'),
        RemarkedLine('ben : eve 7 - 4 = 3 ; ben 3', 'ben : eve - 4 ; 3 - 3 = 0 ; correct'),
        RemarkedLine('#### 3', 'answer : ben 3 ; correct'),
    ]
    text = splices.splice(settings.self_talk.splice, parts, PROBLEM, grammar=LAB)
    assert text.split('\n')[-1].strip() == '#### 3' and text.count('wrong') == 1
    checks.check_lengths(settings, 63)
    assert players.start_of(settings, 'reinforce', 'actor') == 'self_talk'
    assert settings.critique.annotator == 'monte_carlo'
