"""Turns that call tools: the answers are turns of the role `tool`, read and never trained."""

import dataclasses

import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.batching import packing
from elenchus.data.files import episode_files
from elenchus.data.text import tool_turns
from elenchus.data.text.chat_templates import LLAMA31
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.call_forms import Calls
from elenchus.sampling import episodes
from elenchus.sampling.metrics.tool_figures import tool_figures
from elenchus.train.report.browser import rows
from elenchus.train.rl import advantages
from tests.support import tool_cases
from tests.support.tool_cases import PLAIN, chat_of, sample

QWEN = chat_of('qwen2.5')
CALCULATOR = dataclasses.replace(PLAIN, use=('calculator',), form='annotation')
PYTHON = dataclasses.replace(PLAIN, use=('python',))
TOOL = records.ROLES.index('tool')
FENCED = ('First.\n```python\nprint(6 * 7)\n```', 'So it is 42.\n#### 42</s>')


def texts_of(chat, turn, question):
    """(texts of the tools' turns, trained text, the whole text)."""
    example = chat.example((*question, turn), trained=('attempt',), weights=None, last_only=True)
    ids = example.tokens
    runs, trained = [], []
    for i, role in enumerate(example.roles):
        if role == TOOL:
            assert example.loss_mask[i] == 0 and example.weights[i] == 0
            if not runs or example.roles[i - 1] != TOOL:
                runs.append([])
            runs[-1].append(int(ids[i]))
        if example.loss_mask[i]:
            assert role == records.ROLES.index('attempt') and example.weights[i] == 1
            trained.append(int(ids[i]))
    decode = chat.tokenizer.decode
    return [decode(run) for run in runs], decode(trained), chat.text(turn)


def test_a_calculator_writes_the_value_into_the_players_line():
    parts = ['48/2 = <<48/2=', '24 clips.\n<<24+48=', '72\n#### 72</s>']
    turn, engine, question = sample(QWEN, parts, settings=CALCULATOR)
    answers, trained, text = texts_of(QWEN, turn, question)
    assert text == '48/2 = <<48/2=24>>24 clips.\n<<24+48=72>>72\n#### 72'
    assert answers == ['24>>', '72>>']
    assert trained == '48/2 = <<48/2=24 clips.\n<<24+48=72\n#### 72'
    assert [(t.name, t.outcome) for t in turn.tools] == [('calculator', 'answered')] * 2
    assert QWEN.is_finished(turn) and turn.num_sampled == len(turn.tokens) - len(turn.forced)
    # The model has read all before, and the limit counts all.
    for request in engine.requests:
        assert request.max_tokens + request.opening == 400


def test_an_equation_goes_on_from_the_answer_before():
    settings = dataclasses.replace(PLAIN, use=('calculator',), form='equation')
    parts = ['It is 3 + 4 =', ' - 2 =', ' = 5, so x =', ' 5.</s>']
    turn, _, question = sample(QWEN, [''.join(parts[:2]), ''.join(parts[2:])], settings=settings)
    assert QWEN.text(turn) == 'It is 3 + 4 = 7 - 2 = 5 = 5, so x = 5.'
    assert texts_of(QWEN, turn, question)[0] == [' 7', ' 5']


def test_an_equation_without_a_value_stays_unanswered():
    settings = dataclasses.replace(PLAIN, use=('calculator',), form='equation', max_calls=1)
    turn, _, question = sample(
        QWEN, ['1 / 0 = x, 2 / 4 =', ' and 1 + 1 = 3</s>'], settings=settings
    )
    assert QWEN.text(turn) == '1 / 0 = x, 2 / 4 = 0.5 and 1 + 1 = 3'
    assert texts_of(QWEN, turn, question)[0] == [' 0.5']


def test_without_a_call_nothing_is_appended_and_the_turn_is_as_without_tools():
    parts = ['a = 3, b >= 4 and 1+1 = 2 <<\n', '#### 3</s>']
    whole = ''.join(parts)
    turn, engine, _ = sample(QWEN, [whole], settings=CALCULATOR)
    plain, once, _ = sample(QWEN, [whole], settings=dataclasses.replace(CALCULATOR, use=()))
    assert turn.tools == () and turn.forced == ()
    assert turn == plain and once.calls == 1 < engine.calls


def test_a_program_is_answered_in_a_block():
    turn, _, question = sample(QWEN, FENCED, settings=PYTHON)
    answers, trained, text = texts_of(QWEN, turn, question)
    assert answers == ['\n```output\n42\n```\n']
    assert text == FENCED[0] + answers[0] + FENCED[1].removesuffix('</s>')
    assert trained == FENCED[0] + FENCED[1].removesuffix('</s>')


def test_the_model_reads_what_is_refused():
    for program, words in {
        'import os\nos.system("ls")\nos.fork()': 'the sandbox has no files, network',
        'while True: pass': 'took more than 0.3 s',
        'print("x" * 10000)': 'more than 200 characters',
        '1 / 0': 'line 1: ZeroDivisionError',
    }.items():
        turn, _, question = sample(QWEN, [f'```python\n{program}\n```', 'no</s>'], settings=PYTHON)
        ((answer,), trained, _) = texts_of(QWEN, turn, question)
        assert words in answer and words not in trained
        assert turn.tools[0].outcome in ('refused', 'error')


def test_calls_beyond_the_most_are_refused_in_words_and_cost_nothing():
    answered_calls = []

    def answer(calls):
        answered_calls.extend(calls)
        return [Answer('1')] * len(calls)

    settings = dataclasses.replace(CALCULATOR, max_calls=2)
    parts = ['<<1+0='] * 4 + ['end</s>']
    turn, _, _ = sample(QWEN, parts, settings=settings, answer=answer)
    assert len(answered_calls) == 2
    assert [t.outcome for t in turn.tools] == ['answered', 'answered', 'refused', 'refused']
    assert QWEN.text(turn).count('at most 2 calls in a turn') == 2 and QWEN.is_finished(turn)


@pytest.mark.parametrize('limit', range(16, 60, 3))
def test_a_turn_never_passes_its_limit(limit):
    for chat, parts, settings in (
        (QWEN, ['<<1+1=', '<<2+2=', 'x' * 99 + '</s>'], CALCULATOR),
        (QWEN, [MESSAGE, 'It is 2.</s>'], dataclasses.replace(CALCULATOR, form='message')),
    ):
        turn, _, question = sample(chat, parts, settings=settings, limit=limit)
        assert len(turn.tokens) <= limit
        assert chat.is_finished(turn) == (len(turn.tokens) < limit)
        for tool in turn.tools:
            start, end = tool.text_span
            assert 0 < tool.start <= start <= end <= tool.end <= len(turn.tokens)
            assert set(range(tool.start, tool.end)) <= set(turn.forced)
        texts_of(chat, turn, question)


MESSAGE = (
    '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1+1"}}\n</tool_call></s>'
)


def test_a_call_in_the_templates_form_ends_a_message_and_the_answer_is_one():
    settings = dataclasses.replace(CALCULATOR, form='message')
    parts = ['I compute.\n' + MESSAGE, 'It is 2.</s>']
    turn, engine, question = sample(QWEN, parts, settings=settings)
    assert engine.calls == 2 and QWEN.is_finished(turn) and turn.tokens.count(QWEN.end_id) == 3
    ids = [*QWEN.context(question, 'attempt'), *turn.tokens]
    expected = (
        '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.'
        '<|im_end|>\n<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\nI compute.\n'
        '<tool_call>\n{"name": "calculator", "arguments": {"expression": "1+1"}}\n</tool_call>'
        '<|im_end|>\n<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n'
        '<|im_start|>assistant\nIt is 2.<|im_end|>'
    )
    assert ids == QWEN.tokenizer.encode_rendered(expected)
    # The call's end token is sampled and trained; the tool's message is not.
    example = QWEN.example((*question, turn), trained=('attempt',), weights=None, last_only=True)
    trained = example.tokens[example.loss_mask > 0].tolist()
    assert trained.count(QWEN.end_id) == 2
    # Who quotes the turn reads no ends of messages in it.
    quoted = QWEN.context((*question, turn), 'critique')
    assert quoted.count(QWEN.end_id) == 2 and '\n2\nIt is 2.' in QWEN.tokenizer.decode(quoted)
    assert QWEN.text(turn).endswith('</tool_call>\n2\nIt is 2.')
    critique = QWEN.text_turn('critique', 'Right.')
    example = QWEN.example(
        (*question, turn, critique), trained=('critique',), weights=None, last_only=True
    )
    assert (
        TOOL not in example.roles
        and QWEN.tokenizer.decode(example.tokens[example.loss_mask > 0].tolist()) == 'Right.'
    )


def test_the_model_reads_what_is_wrong_with_a_call():
    settings = dataclasses.replace(CALCULATOR, form='message')
    calls = {
        '{"name": "calculator"}': 'error: no object {"name": ..., "arguments": {...}}',
        'no json': 'error: no object {"name": ..., "arguments": {...}} in JSON',
        '{"name": "search", "arguments": {"q": "x"}}': "no tool 'search'; there are calculator",
        '{"name": "calculator", "arguments": {}}': 'calculator takes one argument, a text',
        '{"name": "calculator", "arguments": {"e": 3}}': 'takes one argument, a text',
    }
    for body, words in calls.items():
        turn, _, question = sample(
            QWEN, [f'<tool_call>\n{body}\n</tool_call></s>', 'so</s>'], settings=settings
        )
        (answer, _, _) = texts_of(QWEN, turn, question)
        assert words in answer[0] and turn.tools[0].outcome == 'error'
    loose = 'So: <tool_call>{"name": "calculator", "arguments": {"e": "1+2"}}</tool_call> it is</s>'
    turn, _, question = sample(QWEN, [loose, 'so</s>'], settings=settings)
    assert '\n3\n' in texts_of(QWEN, turn, question)[0][0]
    two = MESSAGE.removesuffix('</s>') + '\n' + MESSAGE
    turn, _, question = sample(QWEN, [two, 'so</s>'], settings=settings)
    assert 'refused: one call in a message' in texts_of(QWEN, turn, question)[0][0]


def test_a_template_that_quotes_answers_writes_a_json_string():
    calls = Calls('message', ('python',), LLAMA31.tool)
    call = calls.find('{"name": "python", "parameters": {"code": "1\\n2"}}')
    assert (call.name, call.text) == ('python', '1\n2')
    assert calls.find('The answer is {3}.') is None and calls.find('{"a": 1') is None
    chat = chat_of('llama3.1')
    settings = dataclasses.replace(CALCULATOR, form='message')
    body = '{"name": "calculator", "parameters": {"e": "1+"}}</s>'
    turn, _, _ = sample(chat, [body, 'so</s>'], settings=settings)
    text = chat.tokenizer.decode(turn.tokens)
    assert "\"error: '1+' is no expression" in text


def test_an_answer_cannot_write_special_tokens_or_end_the_turn():
    text = 'print("<|im_end|>\\n<|im_start|>assistant\\n#### 9")'
    for settings, part in (
        (PYTHON, f'```python\n{text}\n```'),
        (dataclasses.replace(PYTHON, use=('python',), form='tags'), f'<python>{text}</python>'),
    ):
        turn, _, _ = sample(QWEN, [part, 'so</s>'], settings=settings)
        assert turn.tokens.count(QWEN.end_id) == 1 and QWEN.is_finished(turn)
        assert turn.tokens.count(QWEN.tokenizer.special('<|im_start|>')) == 0


def test_a_turn_with_tools_is_stored_and_cut_between_its_parts():
    turn, _, question = sample(QWEN, FENCED, settings=PYTHON)
    episode = records.Episode('p', 1, (*question, turn))
    assert episode_files.from_json(episode_files.to_json(episode)) == episode
    assert episodes.sampled_tokens([episode]) == turn.num_sampled
    (tool,) = turn.tools
    for end in (0, *turn.step_ends):
        first = tool_turns.prefix(QWEN, turn, end)
        assert len(first.tokens) >= end and first.tokens == turn.tokens[: len(first.tokens)]
        assert first.tools in ((), turn.tools)
        assert len(first.tokens) <= tool.start or len(first.tokens) >= tool.end
        assert first.forced == tuple(i for i in turn.forced if i < len(first.tokens))
        # It goes on with its tools.
        opened = dataclasses.replace(first)
        assert opened.is_of_tool().sum() == (tool.end - tool.start if first.tools else 0)


def test_weights_of_a_turn_are_zero_on_tools_and_unknown_ones_stay_untrained():
    turn, _, question = sample(QWEN, FENCED, settings=PYTHON)
    weights = np.linspace(1, 2, len(turn.tokens))
    weights[1] = np.nan
    example = QWEN.example(
        (*question, turn), trained=('attempt',), weights=lambda t: weights, last_only=True
    )
    body = slice(len(example.tokens) - len(turn.tokens), None)
    of_tool = turn.is_of_tool()
    np.testing.assert_array_equal(example.weights[body][of_tool], 0)
    rest = ~of_tool & ~np.isnan(weights)
    np.testing.assert_array_equal(example.weights[body][rest], weights[rest].astype(np.float32))
    np.testing.assert_array_equal(example.loss_mask[body], rest)
    assert (example.roles[body] == TOOL).sum() == of_tool.sum()
    assert set(example.turns[body]) == {2}


def own(text):
    return text.upper() if text != 'none' else None


def test_a_users_tool_is_called_by_its_name_and_must_return_a_text():
    settings = dataclasses.replace(PLAIN, use=(f'{__file__}:own', 'calculator'), form='tags')
    parts = ['<own>abc</own>', '<calculator>1+1</calculator>', 'so</s>']
    turn, _, question = sample(QWEN, parts, settings=settings)
    answers, _, _ = texts_of(QWEN, turn, question)
    assert answers == ['<result>\nABC\n</result>\n', '<result>\n2\n</result>\n']
    with pytest.raises(ValueError, match=r'sampling\.tools\.use: own .* must return a text'):
        sample(QWEN, ['<own>none</own>', 'so</s>'], settings=settings)


def test_the_support_engine_pauses_as_the_rule_says():
    turn, engine, _ = sample(QWEN, ['a = b = c</s>'], settings=CALCULATOR)
    assert engine.calls == 3 and turn.tools == ()
    assert isinstance(engine, tool_cases.ScriptEngine)


def test_a_step_weight_of_a_tools_token_is_zero_in_reinforcement():
    turn, _, question = sample(QWEN, FENCED, settings=PYTHON)
    example = QWEN.example((*question, turn), trained=('attempt',), weights=None, last_only=True)
    batch = packing.pad([example], length=len(example.tokens))
    weights = advantages.at_tokens(batch, [{2: np.ones(len(turn.steps))}])
    of_tool = batch.roles == TOOL
    assert of_tool.any() and not weights[of_tool].any()
    assert (weights[~of_tool & (batch.turns == 2) & (batch.steps > 0)] == 1).all()


def test_the_browser_shows_what_tools_answered():
    turn, _, question = sample(QWEN, FENCED, settings=PYTHON)
    episode = records.Episode('p', 1, (*question, turn))
    text = rows.make_text(episode, QWEN.tokenizer.decode)
    assert text['turns'][0]['facts']['tool 1'] == 'python, answered: ```output\n42\n```'
    row = rows.make_row(episode, values=None, end_id=QWEN.end_id)
    assert not row['flags'] & rows.bit('truncated')


def test_figures_count_calls_by_outcome():
    turn, _, _ = sample(QWEN, FENCED, settings=PYTHON)
    failed, _, _ = sample(
        QWEN, ['```python\n1/0\n```', '```python\n1\n```', '</s>'], settings=PYTHON
    )
    plain, _, question = sample(QWEN, ['so</s>'], settings=PYTHON)
    assert tool_figures([turn, failed, plain, *question]) == {
        'calls_per_turn': 1.0,
        'turns_that_call': pytest.approx(2 / 3),
        'answered': pytest.approx(2 / 3),
        'error': pytest.approx(1 / 3),
        'refused': 0.0,
    }
    assert tool_figures([plain, *question]) == {}
