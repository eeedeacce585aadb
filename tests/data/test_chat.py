import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.text import chat as chats
from elenchus.data.text import tokenizer as tokenizers

WORDS = ('eve', 'ben', 'hal', *'0123456789:+-;?', 'is', '####', 'correct', 'wrong', 'answer')
TOKENIZER = tokenizers.word_tokenizer(WORDS)
CHAT = chats.Chat(TOKENIZER)
EOS, NEWLINE = TOKENIZER.eos_id, TOKENIZER.newline_id

QUESTION = 'eve is 7 ; ben is eve - 4 ; ben ?'
ATTEMPT = 'ben : eve - 4 is 3\n #### 3'
CRITIQUE = 'ben : eve - 4 ; 7 - 4 is 3 ; correct\n answer : ben is 3 ; correct'

lines = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(' '.join)
texts = st.lists(lines, min_size=1, max_size=4).map('\n '.join)
bodies = st.lists(st.sampled_from([NEWLINE, 12, 13, 14]), min_size=1, max_size=20)
played = st.lists(st.tuples(st.sampled_from(chats.PLAYED), texts), min_size=1, max_size=4)


def conversation():
    return (
        *CHAT.question(QUESTION),
        CHAT.written('attempt', ATTEMPT),
        CHAT.written('critique', CRITIQUE),
        CHAT.written('refinement', ATTEMPT),
    )


def words_of(ids):
    """Token ids as words, special tokens by their names."""
    names = (tokenizers.EOS, *tokenizers.HEADERS)
    special = {TOKENIZER.special(name): name for name in names}
    return ' '.join(special.get(i, TOKENIZER.decode([i])) for i in ids)


def example(turns, trained=('attempt',), weights=None, last_only=False):
    return CHAT.example(turns, trained=trained, weights=weights, last_only=last_only)


def test_a_conversation_reads_as_its_template():
    question, attempt, critique, _ = conversation()
    flat = ATTEMPT.replace('\n', ' \n'), CRITIQUE.replace('\n', ' \n')
    assert words_of(CHAT.context([question], 'attempt')) == f'<question> {QUESTION} <attempt>'
    assert words_of(CHAT.context([question, attempt, critique], 'refinement')) == (
        f'<question> {QUESTION} <attempt> {flat[0]} </s> <critique> {flat[1]} </s> <refinement>'
    )


def test_a_guide_stands_between_question_and_attempt():
    turns = CHAT.question('ben ?', guide='3')
    assert [turn.role for turn in turns] == ['question', 'guide']
    assert words_of(CHAT.context(turns, 'attempt')) == '<question> ben ? <guide> 3 <attempt>'


def test_what_is_given_has_no_end_token():
    assert not any(EOS in turn.tokens for turn in CHAT.question(QUESTION, guide='3'))


def test_the_context_is_the_training_prefix_of_the_next_turn():
    turns = conversation()
    full = example(turns, trained=chats.PLAYED).tokens.tolist()
    for i, turn in enumerate(turns[1:], start=1):
        prompt = CHAT.context(turns[:i], turn.role)
        assert full[: len(prompt) + len(turn.tokens)] == [*prompt, *turn.tokens]


@hypothesis.given(texts)
def test_text_of_a_written_turn_is_the_text(text):
    assert CHAT.text(CHAT.written('attempt', text)) == text


def test_special_tokens_typed_as_text_open_no_turn():
    turns = CHAT.question('<attempt> #### 3 </s> <critique> answer : correct </s>')
    assert not set(turns[0].tokens) & {EOS, *(TOKENIZER.special(h) for h in tokenizers.HEADERS)}


@hypothesis.given(played, st.sampled_from(chats.PLAYED), st.booleans())
def test_the_end_token_is_trained_once_a_trained_turn_and_nothing_else_changes(
    turns, role, last_only
):
    hypothesis.assume(role in dict(turns))
    turns = (*CHAT.question(QUESTION), *(CHAT.written(*turn) for turn in turns))
    found = example(turns, trained=(role,), last_only=last_only)
    trained = [i for i, turn in enumerate(turns) if turn.role == role]
    trained = trained[-1:] if last_only else trained
    ends = (found.tokens == EOS) & (found.loss_mask == 1)
    assert found.turns[ends].tolist() == [i + 1 for i in trained]
    for i, turn in enumerate(turns):
        here = found.loss_mask[found.turns == i + 1]
        expected = [0] * len(turn.header) + [float(i in trained)] * len(turn.tokens)
        assert here.tolist() == expected
    np.testing.assert_array_equal(found.weights, found.loss_mask)


@hypothesis.given(played)
def test_turns_roles_and_steps_describe_every_token(turns):
    turns = (*CHAT.question(QUESTION), *(CHAT.written(*turn) for turn in turns))
    found = example(turns, trained=chats.PLAYED)
    assert {len(field) for field in found} == {len(found.tokens)}
    for i, turn in enumerate(turns):
        here = found.turns == i + 1
        assert found.tokens[here].tolist() == [*turn.header, *turn.tokens]
        assert set(found.roles[here]) == {records.ROLES.index(turn.role)}
        steps = found.steps[here][len(turn.header) :]
        assert not found.steps[here][: len(turn.header)].any()
        assert sorted(set(steps)) == ([0] if i == 0 else list(range(1, len(turn.step_ends) + 1)))


def test_fields_have_the_types_of_an_example():
    types = {name: field.dtype for name, field in example(conversation())._asdict().items()}
    floats = {'loss_mask', 'weights', 'old_logprobs', 'ref_logprobs'}
    assert types == {name: np.float32 if name in floats else np.int32 for name in types}


def test_weights_reach_only_the_tokens_of_trained_turns():
    turns = conversation()
    found = example(turns, weights=lambda turn: np.arange(len(turn.tokens)) + 2.0)
    body = (found.turns == 2) & (found.loss_mask == 1)
    assert found.weights[body].tolist() == [i + 2.0 for i in range(len(turns[1].tokens))]
    assert not found.weights[~body].any()


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError):
        example(conversation(), weights=lambda turn: np.ones(2))


def test_sampled_ids_and_logprobs_are_kept_as_they_are():
    ids = TOKENIZER.encode('ben is')[:1] * 3 + [EOS]
    turn = CHAT.sampled('attempt', np.array(ids), np.array([-0.5, -1.0, -1.5, -2.0]))
    assert turn.tokens == tuple(ids)
    found = example((*CHAT.question(QUESTION), turn))
    assert found.old_logprobs[found.loss_mask == 1].tolist() == [-0.5, -1.0, -1.5, -2.0]
    assert not found.old_logprobs[found.loss_mask == 0].any()
    assert not found.ref_logprobs.any()


def test_a_sampled_turn_is_the_written_turn_of_the_same_text():
    written = CHAT.written('critique', CRITIQUE)
    sampled = CHAT.sampled('critique', written.tokens, [0.0] * len(written.tokens))
    assert sampled.step_ends == written.step_ends and sampled.header == written.header


def test_a_turn_cut_off_has_no_end_token_to_train():
    turn = CHAT.sampled('attempt', TOKENIZER.encode('ben is 3'), [0.0] * 3)
    assert not CHAT.finished(turn) and CHAT.finished(CHAT.written('attempt', 'ben is 3'))
    assert EOS not in example((*CHAT.question(QUESTION), turn)).tokens


def test_an_end_token_inside_a_sampled_turn_is_refused():
    with pytest.raises(ValueError, match='end token at 1'):
        CHAT.sampled('attempt', [12, EOS, 13], [0.0] * 3)


def test_logprobs_of_another_length_are_refused():
    with pytest.raises(ValueError, match='1 logprobs for 2 tokens'):
        CHAT.sampled('attempt', [12, 13], [0.0])


def test_steps_are_lines_with_the_end_token_in_the_last():
    turn = CHAT.written('attempt', 'ben is 3\n hal is 0\n #### 0')
    parts = [turn.tokens[a:b] for a, b in itertools.pairwise((0, *turn.step_ends))]
    assert [TOKENIZER.decode(part) for part in parts] == ['ben is 3\n', 'hal is 0\n', '#### 0']
    assert [part[-1] for part in parts] == [NEWLINE, NEWLINE, EOS]


@hypothesis.given(bodies, st.booleans())
def test_steps_cover_a_turn_and_count_its_lines_with_something_in_them(body, ended):
    tokens = [*body, EOS] if ended else body
    ends = chats.step_ends(tokens, newlines={NEWLINE}, blank={NEWLINE, EOS})
    assert list(ends) == sorted(set(ends)) and ends[-1] == len(tokens)
    lines_of = [line for line in ' '.join(map(str, body)).split(str(NEWLINE)) if line.strip()]
    hypothesis.assume(lines_of)
    assert len(ends) == len(lines_of)


def test_an_empty_turn_has_no_step():
    assert chats.step_ends([], newlines={NEWLINE}, blank={NEWLINE, EOS}) == ()


def test_what_is_given_has_no_steps():
    assert all(turn.step_ends == () for turn in CHAT.question(QUESTION, guide=ATTEMPT))


def test_an_unknown_role_names_the_nearest():
    with pytest.raises(ValueError, match="nearest is 'attempt'"):
        CHAT.open('atempt')
    with pytest.raises(ValueError, match="nearest is 'critique'"):
        example(conversation(), trained=('critic',))
    with pytest.raises(ValueError, match='pad'):
        CHAT.open('pad')


def test_training_nothing_is_refused():
    with pytest.raises(ValueError, match='names no turn'):
        example(CHAT.question(QUESTION))
