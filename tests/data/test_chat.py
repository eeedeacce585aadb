import doctest
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
model_turns = st.lists(
    st.tuples(st.sampled_from(tuple(records.PLAYER_OF_ROLE)), texts), min_size=1, max_size=4
)


def conversation():
    return (
        *CHAT.question_turns(QUESTION),
        CHAT.text_turn('attempt', ATTEMPT),
        CHAT.text_turn('critique', CRITIQUE),
        CHAT.text_turn('refinement', ATTEMPT),
    )


def words_of(ids):
    """Returns token ids as words, special tokens as their names."""
    names = (tokenizers.EOS, *tokenizers.HEADERS)
    special = {TOKENIZER.special(name): name for name in names}
    return ' '.join(special.get(i, TOKENIZER.decode([i])) for i in ids)


def example(turns, trained=('attempt',), weights=None, last_only=False):
    return CHAT.example(turns, trained=trained, weights=weights, last_only=last_only)


def test_the_examples_of_the_docstrings_run():
    results = doctest.testmod(chats)
    assert results.attempted and not results.failed


def test_a_conversation_reads_as_its_template():
    question, attempt, critique, _ = conversation()
    flat = ATTEMPT.replace('\n', ' \n'), CRITIQUE.replace('\n', ' \n')
    assert words_of(CHAT.context([question], 'attempt')) == f'<question> {QUESTION} <attempt>'
    assert words_of(CHAT.context([question, attempt, critique], 'refinement')) == (
        f'<question> {QUESTION} <attempt> {flat[0]} </s> <critique> {flat[1]} </s> <refinement>'
    )


def test_a_guide_is_between_question_and_attempt():
    turns = CHAT.question_turns('ben ?', guide='3')
    assert [turn.role for turn in turns] == ['question', 'guide']
    assert words_of(CHAT.context(turns, 'attempt')) == '<question> ben ? <guide> 3 <attempt>'


def test_questions_and_guides_have_no_end_token():
    assert not any(EOS in turn.tokens for turn in CHAT.question_turns(QUESTION, guide='3'))


def test_the_context_is_the_training_prefix_of_the_next_turn():
    turns = conversation()
    full = example(turns, trained=records.PLAYER_OF_ROLE).tokens.tolist()
    for i, turn in enumerate(turns[1:], start=1):
        prompt = CHAT.context(turns[:i], turn.role)
        assert full[: len(prompt) + len(turn.tokens)] == [*prompt, *turn.tokens]


@hypothesis.given(texts)
def test_the_text_of_a_text_turn_is_the_text(text):
    assert CHAT.text(CHAT.text_turn('attempt', text)) == text


def test_special_tokens_typed_as_text_open_no_turn():
    turns = CHAT.question_turns('<attempt> #### 3 </s> <critique> answer : correct </s>')
    assert not set(turns[0].tokens) & {EOS, *(TOKENIZER.special(h) for h in tokenizers.HEADERS)}


@hypothesis.given(model_turns, st.sampled_from(tuple(records.PLAYER_OF_ROLE)), st.booleans())
def test_the_end_token_is_trained_once_a_trained_turn_and_nothing_else_changes(
    turns, role, last_only
):
    hypothesis.assume(role in dict(turns))
    turns = (*CHAT.question_turns(QUESTION), *(CHAT.text_turn(*turn) for turn in turns))
    result = example(turns, trained=(role,), last_only=last_only)
    trained = [i for i, turn in enumerate(turns) if turn.role == role]
    trained = trained[-1:] if last_only else trained
    ends = (result.tokens == EOS) & (result.loss_mask == 1)
    assert result.turns[ends].tolist() == [i + 1 for i in trained]
    for i, turn in enumerate(turns):
        here = result.loss_mask[result.turns == i + 1]
        expected = [0] * len(turn.header) + [float(i in trained)] * len(turn.tokens)
        assert here.tolist() == expected
    np.testing.assert_array_equal(result.weights, result.loss_mask)


@hypothesis.given(model_turns)
def test_turns_roles_and_steps_describe_every_token(turns):
    turns = (*CHAT.question_turns(QUESTION), *(CHAT.text_turn(*turn) for turn in turns))
    result = example(turns, trained=records.PLAYER_OF_ROLE)
    assert {len(field) for field in result} == {len(result.tokens)}
    for i, turn in enumerate(turns):
        here = result.turns == i + 1
        assert result.tokens[here].tolist() == [*turn.header, *turn.tokens]
        assert set(result.roles[here]) == {records.ROLES.index(turn.role)}
        steps = result.steps[here][len(turn.header) :]
        assert not result.steps[here][: len(turn.header)].any()
        assert sorted(set(steps)) == ([0] if i == 0 else list(range(1, len(turn.step_ends) + 1)))


def test_fields_have_the_types_of_an_example():
    types = {name: field.dtype for name, field in example(conversation())._asdict().items()}
    floats = {'loss_mask', 'weights', 'old_logprobs', 'ref_logprobs'}
    assert types == {name: np.float32 if name in floats else np.int32 for name in types}


def test_weights_reach_only_the_tokens_of_trained_turns():
    turns = conversation()
    result = example(turns, weights=lambda turn: np.arange(len(turn.tokens)) + 2.0)
    body = (result.turns == 2) & (result.loss_mask == 1)
    assert result.weights[body].tolist() == [i + 2.0 for i in range(len(turns[1].tokens))]
    assert not result.weights[~body].any()


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError):
        example(conversation(), weights=lambda turn: np.ones(2))


def test_sampled_ids_and_logprobs_are_kept_as_they_are():
    ids = TOKENIZER.encode('ben is')[:1] * 3 + [EOS]
    turn = CHAT.sampled_turn('attempt', np.array(ids), np.array([-0.5, -1.0, -1.5, -2.0]))
    assert turn.tokens == tuple(ids)
    result = example((*CHAT.question_turns(QUESTION), turn))
    assert result.old_logprobs[result.loss_mask == 1].tolist() == [-0.5, -1.0, -1.5, -2.0]
    assert not result.old_logprobs[result.loss_mask == 0].any()
    assert not result.ref_logprobs.any()


def test_a_sampled_turn_equals_the_text_turn_of_the_same_text():
    expected = CHAT.text_turn('critique', CRITIQUE)
    sampled = CHAT.sampled_turn('critique', expected.tokens, [0.0] * len(expected.tokens))
    assert sampled.step_ends == expected.step_ends and sampled.header == expected.header


def test_a_turn_cut_off_has_no_end_token_to_train():
    turn = CHAT.sampled_turn('attempt', TOKENIZER.encode('ben is 3'), [0.0] * 3)
    assert not CHAT.is_finished(turn) and CHAT.is_finished(CHAT.text_turn('attempt', 'ben is 3'))
    assert EOS not in example((*CHAT.question_turns(QUESTION), turn)).tokens


def test_an_end_token_inside_a_sampled_turn_is_refused():
    with pytest.raises(ValueError, match='end token at index 1'):
        CHAT.sampled_turn('attempt', [12, EOS, 13], [0.0] * 3)


def test_logprobs_of_another_length_are_refused():
    with pytest.raises(ValueError, match='1 logprobs for 2 tokens'):
        CHAT.sampled_turn('attempt', [12, 13], [0.0])


def test_steps_are_lines_with_the_end_token_in_the_last():
    turn = CHAT.text_turn('attempt', 'ben is 3\n hal is 0\n #### 0')
    parts = [turn.tokens[a:b] for a, b in itertools.pairwise((0, *turn.step_ends))]
    assert [TOKENIZER.decode(part) for part in parts] == ['ben is 3\n', 'hal is 0\n', '#### 0']
    assert [part[-1] for part in parts] == [NEWLINE, NEWLINE, EOS]


@hypothesis.given(bodies, st.booleans())
def test_steps_cover_a_turn_and_count_its_lines_with_something_in_them(body, ended):
    tokens = [*body, EOS] if ended else body
    ends = chats.step_ends(tokens, newlines={NEWLINE}, blank={NEWLINE, EOS})
    assert list(ends) == sorted(set(ends)) and ends[-1] == len(tokens)
    nonempty = [line for line in ' '.join(map(str, body)).split(str(NEWLINE)) if line.strip()]
    hypothesis.assume(nonempty)
    assert len(ends) == len(nonempty)


def test_an_empty_turn_has_no_step():
    assert chats.step_ends([], newlines={NEWLINE}, blank={NEWLINE, EOS}) == ()


def test_questions_and_guides_have_no_steps():
    assert all(turn.step_ends == () for turn in CHAT.question_turns(QUESTION, guide=ATTEMPT))


def test_an_unknown_role_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'attempt'"):
        CHAT.header('atempt')
    with pytest.raises(ValueError, match="did you mean 'critique'"):
        example(conversation(), trained=('critic',))
    with pytest.raises(ValueError, match='pad'):
        CHAT.header('pad')


def test_training_nothing_is_refused():
    with pytest.raises(ValueError, match='matches no turn'):
        example(CHAT.question_turns(QUESTION))
