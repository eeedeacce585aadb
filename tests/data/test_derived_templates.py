"""Templates derived from published ones, against the frozen ones and against refusals."""

import dataclasses
import importlib.util
import json

import pytest

from elenchus.data.text import auto_chat, derived_templates, tokenizer_json
from elenchus.data.text.derived_templates import Source
from elenchus.data.text.prompts import Prompt, Prompts
from elenchus.scripts.bench import compare_templates
from tests.golden import make_derived_templates
from tests.support import hf_tokenizers

CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
DEFAULT = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nHelp.<|im_end|>\\n' }}"
    '{%- endif %}' + CHATML
)
TEMPLATES = make_derived_templates.templates()
SPACED = ('llama2', 'mistral')  # their tokenizers put a space before a text
FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])


def chat_of(text, system='published', name='auto'):
    tokenizer = tokenizer_json.JsonTokenizer(FILES['chatml'].encode())
    variables = tuple(derived_templates.VARIABLES[name].items())
    source = Source(text, (), variables)
    return auto_chat.load_chat(tokenizer, None, template=name, system=system, source=source)


@pytest.mark.parametrize('text', [CHATML, DEFAULT])
@pytest.mark.parametrize('system', ['published', 'Be brief.'])
def test_prompts_are_those_of_the_published_template(text, system):
    chat = chat_of(text, system)
    start = [] if system == 'published' else [('system', system)]
    rendered = chat.template.source.render([*start, ('user', 'How many?')], prompt=True)
    expected = chat.tokenizer.encode_rendered(rendered)
    assert chat.context(chat.question_turns('How many?'), 'attempt') == expected


def test_special_tokens_in_a_question_stay_text():
    chat = chat_of(CHATML)
    ids = chat.context(chat.question_turns('<|im_end|>'), 'attempt')
    assert ids.count(chat.end_id) == 1


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (
            CHATML.replace('m.content', "(m.content | replace('<think>', ''))"),
            'depends on the text of a user',
        ),
        (CHATML.replace('m.content', 'm.content.lstrip()'), 'white space at one end'),
        ("{{- strftime_now('%d %b') }}" + CHATML, "today's date"),
        (CHATML.replace('m.content', 'loop.index ~ m.content'), 'depends on its place'),
        (CHATML.replace('<|im_end|>', ''), 'no special token ends'),
        ('{% for %}', 'no jinja text'),
        ('{% break %}', "no jinja text: 'break' outside loop"),
        ('{% for x in y %}' * 21 + '{% endfor %}' * 21, 'no jinja text: too many'),
        ("{{ raise_exception('no\\nway') }}", 'no way'),
        ("{{ ''.__class__.__mro__ }}" + CHATML, 'unsafe'),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        chat_of(text)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('chat_template.jinja', b'{{ "\xe9" }}', r'chat_template\.jinja:1: byte 0xE9 is not UTF-8'),
        ('tokenizer_config.json', b'{"x": "\xe9"}', r'config\.json:1: byte 0xE9 is not UTF-8'),
        ('tokenizer_config.json', b'{"chat_template": [{"name": []}]}', 'has no chat_template'),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        derived_templates.read_source(tmp_path)


@pytest.mark.parametrize('text', ['{}', '{"text": "x", "tokens": 3, "variables": []}'])
def test_a_saved_template_that_is_damaged_is_an_error_of_one_line(text):
    with pytest.raises(ValueError, match='the saved chat template is damaged'):
        derived_templates.from_json(text)


def test_no_thinking_needs_a_template_that_knows_it():
    with pytest.raises(ValueError, match="does not know enable_thinking=False; nearest: .*'auto'"):
        chat_of(CHATML, name='auto:no_thinking')


UNSPACED = (
    *('empty question', 'empty answer', 'empty critique', 'all empty'),
    *('white space alone', 'spaces at the ends'),
)
"""Contents before which such a tokenizer puts no space, or merges it."""


def derived(name, system='published'):
    text = TEMPLATES[name]
    if name in SPACED:
        tokenizer = tokenizer_json.JsonTokenizer(FILES[name].encode())
    else:
        tokenizer = compare_templates.small_tokenizer(text)
    source = make_derived_templates.source_of(text)
    return auto_chat.load_chat(tokenizer, None, template='auto', system=system, source=source)


def whole(chat, messages):
    return chat.tokenizer.encode_rendered(chat.template.source.render(messages, prompt=True))


@pytest.mark.parametrize('prompts', [Prompts(), Prompts(attempt=Prompt(instruction='{question}'))])
@pytest.mark.parametrize('name', ['chatml', 'joins user', 'trims'])
def test_white_space_before_a_question_is_merged_as_in_the_whole_text(name, prompts):
    chat = dataclasses.replace(derived(name), prompts=prompts)
    for text in ('\n\n1 + 1?', ' \n1?', '\n', '  1', '\u00a0x', '1\n', ''):
        expected = whole(chat, [('user', text)])
        assert chat.context(chat.question_turns(text), 'attempt') == expected, text


def test_white_space_before_a_critique_is_merged_unless_it_was_sampled_otherwise():
    chat = derived('chatml')
    turns = [*chat.question_turns('1?'), chat.text_turn('attempt', '2')]
    text = '\n\nno'
    expected = whole(chat, [('user', '1?'), ('assistant', '2'), ('user', text)])
    written = chat.text_turn('critique', text)
    assert chat.context([*turns, written], 'refinement') == expected
    newline = chat.tokenizer.encode('\n')
    tokens = (*newline, *newline, *chat.tokenizer.encode('no'), chat.end_id)
    sampled = chat.sampled_turn('critique', tokens, [0.0] * len(tokens))
    assert tokens != written.tokens
    ids = chat.context([*turns, sampled], 'refinement')
    assert any(tuple(ids[i : i + 3]) == tokens[:3] for i in range(len(ids)))


@pytest.mark.parametrize('name', list(TEMPLATES))
def test_prompts_are_those_that_transformers_rendered(name):
    chats, golden = {}, json.loads(make_derived_templates.GOLDEN.read_text())[name]
    for label, messages in compare_templates.conversations():
        if ', 4, ' not in label:  # two attempts and a critique; the slow test has all
            continue
        if name in SPACED and label.partition(',')[0] in UNSPACED:
            continue
        system = messages[0][1] if messages[0][0] == 'system' else 'published'
        if system not in chats:
            try:
                chats[system] = derived(name, system)
            except ValueError as error:
                assert 'no system message' in str(error)
                chats[system] = None
        if (chat := chats[system]) is None:
            continue
        text = chat.template.source.render(messages[:-1], prompt=True)
        assert make_derived_templates.hash_of(text) == golden[label], label
        ours = compare_templates.ids_of(chat, messages, prompt=True)
        begins_blank = 'white space alone' in label or 'line breaks' in label
        if begins_blank and 'assistant' not in chat.template.trims:  # an answer keeps its tokens
            assert chat.tokenizer.decode_rendered(ours) == text, label
        else:
            assert ours == chat.tokenizer.encode_rendered(text), label


@pytest.mark.parametrize('name', ['chatml', 'default system', 'joins user', 'trims'])
@pytest.mark.parametrize(
    'prompt',
    [
        Prompt(system=' Be brief.\n'),
        Prompt(instruction='\n\nSolve it: {question}\n'),
        Prompt(system='Be brief.', examples=((' 1?\n', '2'), ('2?', '3'))),
        Prompt(instruction='{question} Box it.', examples=(('1?', '2'),)),
    ],
)
def test_prompts_of_roles_are_messages_of_the_published_template(name, prompt):
    chat = dataclasses.replace(derived(name), prompts=Prompts(attempt=prompt))
    question = '1 + 1?'
    messages = [('system', prompt.system)] if prompt.system else []
    for text, answer in prompt.examples:
        messages += [('user', text), ('assistant', answer)]
    messages.append(('user', (prompt.instruction or '{question}').replace('{question}', question)))
    assert chat.context(chat.question_turns(question), 'attempt') == whole(chat, messages)


def test_a_system_message_of_the_run_opens_the_first_message_once():
    chat = derived('joins user', 'Be brief.')
    chat = dataclasses.replace(chat, prompts=Prompts(attempt=Prompt(prefix='So: ')))
    ids = chat.context(chat.question_turns('1?'), 'attempt')
    expected = whole(chat, [('system', 'Be brief.'), ('user', '1?')])
    assert ids == [*expected, *chat.tokenizer.encode('So: ')]


def test_thoughts_that_the_template_opens_are_no_text_of_an_answer():
    chat = derived('opens thoughts')
    chat = dataclasses.replace(chat, prompts=Prompts(thinking='strip'))
    question = chat.question_turns('1?')
    for answer, kept in (('hm\n</think>2', '2'), ('never closed', '')):
        tokens = chat.text_turn('attempt', answer).tokens
        sampled = chat.sampled_turn('attempt', tokens, [0.0] * len(tokens))
        turns = [*question, sampled, chat.text_turn('critique', 'no')]
        expected = whole(chat, [('user', '1?'), ('assistant', kept), ('user', 'no')])
        assert chat.context(turns, 'refinement') == expected


def test_a_prefix_with_a_special_token_and_that_of_a_role_are_both_written():
    text = TEMPLATES['opens thoughts']
    tokenizer = compare_templates.small_tokenizer(text)
    tokenizer = dataclasses.replace(tokenizer, protected=frozenset({'<think>'}))
    chat = auto_chat.derive_chat(tokenizer, make_derived_templates.source_of(text), name='auto')
    assert chat.template.prefix[0].name == '<think>'
    chat = dataclasses.replace(chat, prompts=Prompts(attempt=Prompt(prefix='So')))
    ids = chat.context(chat.question_turns('1?'), 'attempt')
    expected = [chat.tokenizer.special('<think>'), *chat.tokenizer.encode('\nSo')]
    assert ids[-len(expected) :] == expected


def test_white_space_at_the_end_of_answers_alone():
    chat = derived('empty thoughts')
    assert chat.template.trims == ('assistant:end',)
    assert chat.text(chat.text_turn('attempt', ' 2 \n')) == ' 2'
    assert chat.text(chat.text_turn('critique', ' no ')) == ' no '  # the actor's user says it


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ("m.content.lstrip() if m.role == 'assistant' else m.content", 'white space in an answer'),
        ("m.content[0].text if m.content is not string else ''", 'lists of parts'),
    ],
)
def test_what_is_refused_says_why(content, reason):
    text = CHATML.replace('m.content', f'({content})')
    with pytest.raises(ValueError, match=reason):
        chat_of(text)


@pytest.mark.slow
@pytest.mark.parametrize('source', ['tests', 'package:trl'])
def test_every_template_is_equal_to_transformers_or_refused(source, tmp_path):
    pytest.importorskip('transformers', exc_type=ImportError)
    if source == 'tests':
        for name, text in TEMPLATES.items():
            (tmp_path / f'{name}.jinja').write_text(text)
        source = str(tmp_path)
    elif importlib.util.find_spec('trl') is None:
        pytest.skip('trl is not installed')
    outcomes = []
    for name, tokenizer, published in compare_templates.read_sources([source]):
        for template in derived_templates.NAMES:
            variables = tuple(derived_templates.VARIABLES[template].items())
            varied = dataclasses.replace(published, variables=variables)
            outcomes.append(compare_templates.compare(name, tokenizer, varied, template=template))
    assert not [outcome for outcome in outcomes if outcome.differences]
    compared = [outcome for outcome in outcomes if not outcome.refusal]
    assert len(compared) >= len(TEMPLATES) - 3
    assert all(sum(outcome.prompts) for outcome in compared)
