"""Templates derived from published ones, against the frozen ones and against refusals."""

import pytest

from elenchus.data.text import auto_chat, derived_templates, tokenizer_json
from elenchus.data.text.derived_templates import Source
from tests.support import hf_tokenizers

CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
DEFAULT = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nHelp.<|im_end|>\\n' }}"
    '{%- endif %}' + CHATML
)
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
        ("{{ raise_exception('no\\nway') }}", 'no way'),
        ("{{ ''.__class__.__mro__ }}" + CHATML, 'unsafe'),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        chat_of(text)
    assert '\n' not in str(error.value)


def test_no_thinking_needs_a_template_that_knows_it():
    with pytest.raises(ValueError, match="does not know enable_thinking=False; nearest: .*'auto'"):
        chat_of(CHATML, name='auto:no_thinking')
