"""Forms of calls and of answers: in samples, demonstrations, templates and settings."""

import dataclasses
import json
import re

import pytest

from elenchus.data.text import auto_chat, derived_templates, tokenizer_json
from elenchus.data.text.chat_templates import CHATML, LLAMA31, TEMPLATES
from elenchus.data.text.derived_templates import Source
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.call_forms import Calls
from elenchus.sampling import tools
from tests.sampling.test_tools import CALCULATOR, FENCED, PYTHON, QWEN, texts_of
from tests.support import published_templates
from tests.support.tool_cases import FILES, PLAIN, chat_of, sample

FORMS = {
    ('fenced', 'x\n```python\n1\n```'): '1',
    ('fenced', '```Python\n1\n2\n```\n'): '1\n2',
    ('fenced', '```python\n1'): None,
    ('fenced', '```python\n1\n```\nthen'): None,
    ('fenced', '```\n1\n```'): None,
    ('fenced', '```\n1\n```\n```python\n2\n```'): '2',
    ('fenced', 'a ```python x``` b'): None,
    ('fenced', '```python\ns = "```"\n```'): 's = "```"',
    ('fenced', '```other\n1\n```'): None,
    ('tags', '<python>1</python>'): '1',
    ('tags', 'a <python>\n1 < 2\n</python> \n'): '1 < 2',
    ('tags', '<python>1</python> so'): None,
    ('tags', '<python>a<python>1</python>'): '1',
    ('tags', '</python>'): None,
    ('annotation', '<<1+1='): '1+1',
    ('annotation', '<<1+1>>'): '1+1',
    ('annotation', '<<1+1=2>>'): None,
    ('annotation', '<< 1 + 1 = '): ' 1 + 1 ',
    ('annotation', '1+1='): None,
    ('annotation', '<<\n='): None,
    ('equation', '1 + 1 ='): '1+1',
    ('equation', 'x ='): None,
    ('equation', '3 ='): None,
    ('equation', '1 + 1 = 2 ='): None,
}


@pytest.mark.parametrize('form, text', FORMS)
def test_a_call_is_where_it_ends(form, text):
    call = Calls(form, ('python',)).find(text)
    assert (call and call.text) == FORMS[form, text]


@pytest.mark.parametrize(
    ('settings', 'template', 'words'),
    [
        (dataclasses.replace(PYTHON, form='message'), 'gemma', 'has no messages of tools; nearest'),
        (CALCULATOR, 'elenchus', "the vocabulary has no words for '<<1+1=1>>'"),
        (PYTHON, 'elenchus', 'the vocabulary has no words for'),
    ],
)
def test_a_form_that_does_not_fit_is_named(settings, template, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        tools.calls_of(settings, chat_of(template))
    assert 'sampling.tools.form' in str(error.value) and '\n' not in str(error.value)


def test_settings_name_what_is_wrong():
    with pytest.raises(ValueError, match='names no tool, so it is for one'):
        dataclasses.replace(PLAIN, use=('python', 'calculator'), form='annotation')
    with pytest.raises(ValueError, match="names the tool 'python' twice"):
        dataclasses.replace(PLAIN, use=('python', 'python'))
    with pytest.raises(ValueError, match=r'sampling\.tools\.max_calls=0'):
        dataclasses.replace(PLAIN, max_calls=0)
    with pytest.raises(ValueError, match="has 'critique', whose verdicts are found by their place"):
        dataclasses.replace(PLAIN, form='message', roles=('critique',))


def test_frozen_templates_have_the_forms_that_families_publish():
    named = {name for name, template in TEMPLATES.items() if template.tool}
    assert named == {'chatml', 'qwen2.5', 'qwen2.5-math', 'qwen3', 'llama3.1'}
    assert CHATML.tool.opening == '<tool_call>\n' and LLAMA31.tool.quotes


SOLUTIONS = {
    ('annotation', 'a <<1+1=2>>2 and <<2*3=6>>6\n#### 6'): ['2>>', '6>>'],
    ('annotation', 'none << here = 2'): [],
    ('fenced', 'x\n```python\n1\n```\n```output\n1\n```\nso\n#### 1'): ['\n```output\n1\n```\n'],
    ('fenced', '```python\n1\n```\nno output'): [],
    ('fenced', '```output\n1\n```\n'): [],
    ('tags', '<python>1</python><result>\n1\n</result> so'): ['<result>\n1\n</result>'],
    ('equation', '3 + 4 = 7 ; 7 - 4 = 3\nx = 5'): [' 7', ' 3'],
    ('message', '<tool_call>1</tool_call>'): [],
}


@pytest.mark.parametrize('form, text', SOLUTIONS)
def test_answers_in_the_text_of_a_demonstration_are_not_trained(form, text):
    name = 'python' if form in ('fenced', 'tags') else 'calculator'
    settings = dataclasses.replace(PLAIN, use=(name,), form=form)
    chat = dataclasses.replace(QWEN, calls=tools.calls_of(settings, QWEN))
    turn = chat.text_turn('attempt', text)
    question = chat.question_turns('What is it?')
    answers, trained, whole = texts_of(chat, turn, question)
    assert answers == SOLUTIONS[form, text] and whole == text
    rest = text
    for answer in answers:
        rest = rest.replace(answer, '', 1)
    assert trained == rest and chat.is_finished(turn)
    # Another role's text, and that of a chat without tools, is trained whole.
    assert chat.text_turn('critique', text) == QWEN.text_turn('critique', text)
    assert QWEN.text_turn('attempt', text).forced == ()


def test_a_demonstration_has_the_ids_of_the_turn_that_is_sampled():
    turn, _, _ = sample(QWEN, FENCED, settings=PYTHON)
    chat = dataclasses.replace(QWEN, calls=tools.calls_of(PYTHON, QWEN))
    written = chat.text_turn('attempt', QWEN.text(turn))
    assert written.tokens == turn.tokens
    assert written.forced == turn.forced and written.tools == turn.tools


# Templates that a model publishes

HERMES = (
    "{%- for m in messages %}{%- if m.role == 'tool' %}{%- if loop.first or "
    "messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}"
    "{%- endif %}{%- elif m.tool_calls %}{{- '<|im_start|>assistant' }}"
    '{%- for call in m.tool_calls %}{{- \'\\n<tool_call>\\n{"name": "\' + call.function.name + '
    "'\", \"arguments\": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Writes tools' messages as Qwen 2.5's does."""

IPYTHON = (
    "{%- for m in messages %}{%- if m.role == 'tool' %}"
    "{{- '<|im_start|>ipython\\n' + (m.content | tojson) + '<|im_end|>\\n' }}"
    '{%- elif m.tool_calls %}{%- set call = m.tool_calls[0].function %}'
    '{{- \'<|im_start|>assistant\\n{"name": "\' + call.name + \'", "parameters": \' + '
    "(call.arguments | tojson) + '}<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Writes an answer as a JSON string, as Llama 3.1's does."""


def derived(text):
    tokenizer = tokenizer_json.JsonTokenizer(FILES['chatml'].encode())
    source = Source(text, (), tuple(derived_templates.VARIABLES['auto'].items()))
    return auto_chat.load_chat(tokenizer, None, template='auto', system='published', source=source)


def test_a_derived_form_is_the_frozen_one():
    assert derived(HERMES).template.tool == CHATML.tool


@pytest.mark.parametrize('text', [HERMES, IPYTHON], ids=['tags', 'json'])
@pytest.mark.parametrize('answer', ['2', 'two\nlines', ' "quoted" ', '', '</tool_response>'])
def test_a_turn_has_the_ids_of_the_published_conversation(text, answer):
    chat = derived(text)
    settings = dataclasses.replace(CALCULATOR, form='message')
    name, arguments = 'calculator', {'e': '1+1'}
    form = chat.template.tool
    body = json.dumps({'name': name, form.arguments: arguments})
    call = f'{form.opening}{body}{form.closing}'
    turn, _, question = sample(
        chat,
        [call + '</s>', 'So 2.</s>'],
        settings=settings,
        answer=lambda calls: [Answer(answer)],
    )
    function = {'name': name, 'arguments': arguments}
    rendered = chat.template.source.render_all(
        [
            {'role': 'user', 'content': 'What is it?'},
            {'role': 'assistant', 'content': '', 'tool_calls': [{'function': function}]},
            {'role': 'tool', 'content': answer},
            {'role': 'assistant', 'content': 'So 2.'},
        ],
        prompt=False,
    )
    ids = [*chat.context(question, 'attempt'), *turn.tokens]
    assert ids == chat.tokenizer.encode_rendered(rendered)[: len(ids)]
    # Its steps are the lines that a critic reads.
    lines = [line for line in chat.text(turn).split('\n') if line.strip()]
    assert len(turn.steps) == len(lines) and turn.step_ends[-1] == len(turn.tokens)
    assert list(turn.step_ends) == sorted(set(turn.step_ends))


def test_templates_without_tools_have_no_form():
    for name, text in published_templates.TEMPLATES.items():
        try:
            assert derived(text).template.tool is None, name
        except ValueError as error:
            assert 'special token' in str(error) or 'template' in str(error), name
