import collections
import functools

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import grammars, record_files
from elenchus.data.text import tokenizer as tokenizers

WORDS = ('eve', 'ben', 'hal', *'0123456789:+-;?', 'is', '####', 'correct', 'wrong', 'answer')
TOKENIZER = tokenizers.word_tokenizer(WORDS)
GRAMMARS = (grammars.RELEASED, grammars.WORKED, grammars.LAB)

PASS = (
    'ben : eve - 4 ; 7 - 4 is 3 ; correct\n hal : ben + 7 ; 3 + 7 is 0 ; correct\n'
    ' answer : hal is 0 ; correct'
)
STOP = 'ben : eve - 4 ; 7 - 4 is 3 ; wrong\n answer : wrong'
FULL = """Step sentence: Half of it is 10/2 = 5 miles  \nCorrectness of the step: Correct  \n
Explanation: Halving is right.

It really is.

Step sentence: The gym is 12 miles away
Correctness of the step: Wrong
Explanation: It is 5 + 2.

Correctness of the final answer: Wrong
Explanation: It is 7 miles.
"""

verdicts = st.sampled_from([True, False, None])
phrases = st.lists(
    st.sampled_from(('ben', 'is', '3', '+', '-', ':', '5.5', '(so)', '*x*', 'so')),
    min_size=1,
    max_size=6,
).map(' '.join)
steps = st.builds(grammars.StepVerdict, phrases, verdicts, phrases | st.just(''))
written = st.builds(
    grammars.Critique,
    st.lists(steps, max_size=5).map(tuple),
    verdicts,
    phrases | st.just(''),
)


@functools.cache
def bpe():
    texts = [FULL, *(grammars.RELEASED.write(grammars.LAB.parse(text)) for text in (PASS, STOP))]
    return tokenizers.SentencePieceTokenizer(
        tokenizers.train_tokenizer(texts, vocab_size=600, model_type='bpe')
    )


def released(shared_data, name):
    return record_files.read(shared_data / 'mathcritique' / f'{name}.json')


def every_verdict(critique):
    return [step.correct for step in critique.steps] + [critique.final_correct]


@pytest.mark.parametrize('grammar', GRAMMARS)
@hypothesis.given(critique=written)
def test_parsing_what_was_written_gives_it_back(grammar, critique):
    assert grammar.parse(grammar.write(critique)) == critique


@pytest.mark.parametrize('text', [PASS, STOP])
def test_lab_text_is_written_back_exactly(text):
    assert grammars.LAB.write(grammars.LAB.parse(text)) == text


def test_a_worked_critique_judges_a_step_behind_its_explanation():
    text = grammars.as_worked(FULL, grammars.WORKED)
    assert grammars.as_worked(FULL, grammars.RELEASED) is FULL
    reading = grammars.WORKED.read(text)
    assert reading.critique == grammars.RELEASED.parse(FULL)
    said = [text.index(words) for words in ('It really is.', 'It is 5 + 2.', 'It is 7 miles.')]
    assert said[0] < reading.step_offsets[0] < said[1] < reading.step_offsets[1]
    assert reading.step_offsets[1] < reading.final_offset < said[2]


def test_what_stands_before_the_labels_is_kept():
    thought = '<think>\nStep sentence: no\n</think>\nLet me see.\n'
    assert grammars.as_worked('It is fine.', grammars.WORKED) == 'It is fine.'
    worked = grammars.as_worked(thought + FULL, grammars.WORKED)
    assert worked == thought + grammars.as_worked(FULL, grammars.WORKED)
    assert grammars.WORKED.parse(worked) == grammars.RELEASED.parse(FULL)


def test_a_lab_critique_reads_as_steps_and_an_answer():
    assert grammars.LAB.parse(PASS) == grammars.Critique(
        (
            grammars.StepVerdict('ben : eve - 4', True, '7 - 4 is 3'),
            grammars.StepVerdict('hal : ben + 7', True, '3 + 7 is 0'),
        ),
        True,
        'hal is 0',
    )


def test_a_released_critique_reads_across_blank_lines_and_trailing_spaces():
    assert grammars.RELEASED.parse(FULL) == grammars.Critique(
        (
            grammars.StepVerdict(
                'Half of it is 10/2 = 5 miles', True, 'Halving is right.\n\nIt really is.'
            ),
            grammars.StepVerdict('The gym is 12 miles away', False, 'It is 5 + 2.'),
        ),
        False,
        'It is 7 miles.',
    )


def test_missing_fields_leave_the_rest_readable():
    text = (
        'Step sentence: a\nExplanation: why\nCorrectness of the step: Wrong\nStep sentence: b\n'
        'Explanation: how\nCorrectness of the final answer: Wrong'
    )
    parsed = grammars.RELEASED.parse(text)
    assert [(s.sentence, s.correct) for s in parsed.steps] == [('a', False), ('b', None)]
    assert parsed.final_correct is False and parsed.final_explanation == ''


def test_a_bare_sentence_above_the_final_verdict_is_quoted_for_it():
    text = (
        'Step sentence: a\nCorrectness of the step: Correct\nExplanation: why\n\n'
        'Step sentence: The answer is 630.\nCorrectness of the final answer: Wrong\nExplanation: no'
    )
    parsed = grammars.RELEASED.parse(text)
    assert [(s.sentence, s.correct) for s in parsed.steps] == [('a', True)]
    assert parsed.final_correct is False
    assert parsed.final_explanation == 'The answer is 630.\nno'
    assert grammars.RELEASED.parse(grammars.RELEASED.write(parsed)) == parsed


def test_a_critique_tells_its_grammar():
    assert grammars.grammar_of(FULL) is grammars.RELEASED
    assert grammars.grammar_of(PASS) is grammars.grammar_of('') is grammars.LAB


def test_a_verdict_without_its_sentence_is_a_step():
    text = 'Correctness of the step: Correct\nCorrectness of the step: Wrong\nExplanation: no'
    assert [step.correct for step in grammars.RELEASED.parse(text).steps] == [True, False]


@pytest.mark.parametrize('value', ['Correct', '**Correct**', 'correct.', '  CORRECT  '])
def test_verdicts_may_be_decorated(value):
    text = f'Correctness of the final answer: {value}\nExplanation: fine'
    assert grammars.RELEASED.parse(text).final_correct is True


@pytest.mark.parametrize(
    'value',
    ['', 'Not correct', 'Correct for the equation but wrong in context', 'Correct?', 'Partially'],
)
def test_an_unclear_verdict_is_none(value):
    text = f'Step sentence: a\nCorrectness of the step: {value}\nExplanation: fine'
    assert grammars.RELEASED.parse(text).steps[0].correct is None
    assert grammars.RELEASED.parse(f'{grammars._FINAL}: {value}').final_correct is None


@pytest.mark.parametrize(
    'text',
    [
        'correct',
        'ben : eve - 4 correct',
        'answer : hal is 0 correct',
        'answer correct',
        '; correct ?',
    ],
)
def test_a_lab_verdict_out_of_place_is_none(text):
    assert set(every_verdict(grammars.LAB.parse(text))) == {None}


@pytest.mark.parametrize('other', ['wrong', 'hal is 0', ''])
def test_final_verdicts_that_contradict_each_other_are_none(other):
    assert grammars.LAB.parse(f'answer : correct\n answer : {other}').final_correct is None
    assert grammars.LAB.parse(f'answer : {other}\n answer : correct').final_correct is None


@pytest.mark.parametrize('grammar', GRAMMARS)
@hypothesis.given(text=st.text(max_size=200))
def test_text_without_a_verdict_word_is_never_correct(grammar, text):
    hypothesis.assume('correct' not in text.lower())
    assert True not in every_verdict(grammar.parse(text))


@pytest.mark.parametrize('grammar', GRAMMARS)
@hypothesis.given(critique=written, cut=st.integers(0, 400))
def test_a_critique_cut_off_never_gains_a_correct_verdict(grammar, critique, cut):
    whole, part = critique, grammar.parse(grammar.write(critique)[:cut])
    assert part.final_correct is not True or whole.final_correct is True
    for before, after in zip(part.steps, whole.steps, strict=False):
        assert before.correct is not True or after.correct is True


def test_the_first_error_is_the_first_step_judged_wrong():
    assert grammars.first_error(grammars.LAB.parse(PASS)) is None
    assert grammars.first_error(grammars.LAB.parse(STOP)) == 0
    assert grammars.first_error(grammars.RELEASED.parse(FULL)) == 1


def test_a_full_pass_judges_every_step_and_the_answer():
    parsed = grammars.LAB.parse(PASS)
    assert grammars.is_full_pass(parsed, 2) and not grammars.is_full_pass(parsed, 3)
    assert not grammars.is_full_pass(grammars.LAB.parse(STOP), 2)
    assert not grammars.is_full_pass(grammars.LAB.parse(PASS.partition('\n answer')[0]), 2)


def test_grammars_have_their_names_as_keys():
    assert {grammar.name: grammar for grammar in GRAMMARS} == grammars.GRAMMARS


def verdict_positions(tokens, grammar, tokenizer):
    """Indices of the tokens at which the verdicts on the steps and on the answer begin."""
    offsets = grammar.read(tokenizer.decode(tokens)).offsets
    return grammars.token_positions(tokens, offsets, tokenizer=tokenizer)


def test_lab_verdicts_stand_last_in_their_lines():
    tokens = [*TOKENIZER.encode(PASS), TOKENIZER.eos_id]
    positions = verdict_positions(tokens, grammars.LAB, TOKENIZER)
    ends = [i for i, token in enumerate(tokens) if token in (TOKENIZER.newline_id, 1)]
    assert positions == [ends[0] - 1, ends[1] - 1, ends[2] - 1]


def test_a_line_without_a_verdict_has_no_position():
    tokens = TOKENIZER.encode('ben : 7 - 4 is 3\n hal ; 3 ; wrong\n answer : hal')
    positions = verdict_positions(tokens, grammars.LAB, TOKENIZER)
    second = len(TOKENIZER.encode('ben : 7 - 4 is 3\n hal ; 3 ;'))
    assert positions == [None, second, None]


@pytest.mark.parametrize('grammar', GRAMMARS)
@hypothesis.given(critique=written, accents=st.sampled_from(['', 'é日 ', '\u2014 ']))
def test_positions_hold_the_first_token_of_each_verdict(grammar, critique, accents):
    first = grammars.StepVerdict(f'{accents}so', True, '')
    critique = grammars.Critique(
        (first, *critique.steps), *(critique.final_correct, critique.final_explanation)
    )
    tokens = [*bpe().encode(grammar.write(critique)), bpe().eos_id]
    positions = verdict_positions(tokens, grammar, bpe())
    assert [i is None for i in positions] == [v is None for v in every_verdict(critique)]
    for i, correct in zip(positions, every_verdict(critique), strict=True):
        if i is not None:
            word = bpe().decode(tokens[i : i + 8]).strip().lower()
            assert word.startswith('correct' if correct else 'wrong')
            assert not bpe().decode(tokens[:i]).endswith(('c', 'w', 'C', 'W'))


@pytest.mark.parametrize(
    'name, num_steps, verdict_counts, finals, unclear',
    [
        ('gsm8k', 262, {True: 85, False: 177}, {True: 1, False: 49}, []),
        ('math', 249, {True: 45, False: 203, None: 1}, {False: 50}, [43]),
    ],
)
def test_released_critiques_parse_as_measured(
    shared_data, name, num_steps, verdict_counts, finals, unclear
):
    parsed = [grammars.RELEASED.parse(record.critique) for record in released(shared_data, name)]
    counts = collections.Counter(step.correct for c in parsed for step in c.steps)
    assert len(parsed) == 50 and sum(len(c.steps) for c in parsed) == num_steps
    assert counts == verdict_counts
    assert collections.Counter(c.final_correct for c in parsed) == finals
    assert [i for i, c in enumerate(parsed) if None in every_verdict(c)] == unclear


@pytest.mark.parametrize('name', ['gsm8k', 'math'])
def test_released_critiques_survive_being_written_again(shared_data, name):
    for record in released(shared_data, name):
        parsed = grammars.RELEASED.parse(record.critique)
        assert grammars.RELEASED.parse(grammars.RELEASED.write(parsed)) == parsed


LINE_ENDS = ('\r\n', '\r', '\u2028', '\u2029', '\x85')


@pytest.mark.parametrize('end', LINE_ENDS)
@pytest.mark.parametrize('text', [FULL, PASS, STOP, FULL.replace(': Correct  ', ': **Correct.**')])
def test_other_line_ends_are_read_like_those_of_unix(end, text):
    grammar = grammars.grammar_of(text)
    assert grammars.grammar_of(text.replace('\n', end)) is grammar
    unix, other = grammar.read(text), grammar.read(text.replace('\n', end))
    assert other.critique == unix.critique
    assert None not in every_verdict(unix.critique)
    for ours, theirs in zip(unix.offsets, other.offsets, strict=True):
        assert text[ours : ours + 5] == text.replace('\n', end)[theirs : theirs + 5]


@hypothesis.settings(max_examples=100)
@hypothesis.given(critique=written, data=st.data())
@pytest.mark.parametrize('grammar', GRAMMARS)
def test_any_mixture_of_line_ends_gives_the_same_critique(grammar, critique, data):
    text = grammar.write(critique)
    ends = iter(
        data.draw(
            st.lists(
                st.sampled_from(('\n', *LINE_ENDS)),
                min_size=text.count('\n'),
                max_size=text.count('\n'),
            )
        )
    )
    mixed = ''.join(next(ends) if c == '\n' else c for c in text)
    unix, other = grammar.read(text), grammar.read(mixed)
    assert other.critique == unix.critique
    for ours, theirs in zip(unix.offsets, other.offsets, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or text[ours:].split()[0] == mixed[theirs:].split()[0]


@pytest.mark.parametrize('around', ['\0', '\u00a0', '\ufeff', '\u200b', ' \0\0'])
def test_characters_that_nobody_sees_do_not_hide_a_verdict(around):
    text = FULL.replace('Wrong', f'{around}Wrong{around}')
    assert grammars.RELEASED.parse(text) == grammars.RELEASED.parse(FULL)
    offsets = grammars.RELEASED.read(text).offsets
    assert [text[at : at + 5] for at in offsets] == ['Corre', 'Wrong', 'Wrong']


@pytest.mark.parametrize('end', LINE_ENDS[:2])
def test_token_positions_after_other_line_ends_are_those_of_the_verdicts(end):
    text = FULL.replace('\n', end)
    tokens = bpe().encode(text)
    positions = grammars.token_positions(
        tokens, grammars.RELEASED.read(text).offsets, tokenizer=bpe()
    )
    words = [bpe().decode(tokens[p:]).strip()[:5] for p in positions]
    assert words == ['Corre', 'Wrong', 'Wrong']
