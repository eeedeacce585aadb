"""Published prompts, and our templates as jinja texts, with the same ids in `transformers`."""

import dataclasses

import pytest

from elenchus.data import records
from elenchus.data.text import chat as chats
from elenchus.data.text import chat_templates, jinja_templates, tokenizer_json
from elenchus.data.text import tokenizer as tokenizers
from tests.support import hf_tokenizers

TEXTS = hf_tokenizers.CONVERSATION
FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
FILES |= {'qwen3': hf_tokenizers.qwen3_file()}
NAMES = [name for name in FILES if not name.endswith('.model')]
WITH_SYSTEM = [n for n in NAMES if chat_templates.TEMPLATES[n].system_frame is not None]
MATH = 'Please reason step by step, and put your final answer within \\boxed{}.'
QWEN3 = (
    '{%- set ns = namespace(last=messages|length - 1, found=false) -%}'
    '{%- for message in messages[::-1] -%}'
    '{%- if not ns.found and message.role == "user" -%}{%- set ns.found = true -%}'
    '{%- set ns.last = messages|length - 1 - loop.index0 -%}{%- endif -%}{%- endfor -%}'
    '{%- for message in messages -%}{%- if message.role == "assistant" -%}'
    "{%- if loop.index0 > ns.last -%}{{- '<|im_start|>assistant\n<think>\n' + '\n</think>\n\n' "
    "+ message.content.lstrip('\n') -}}{%- else -%}{{- '<|im_start|>assistant\n' + message.content "
    "-}}{%- endif -%}{{- '<|im_end|>\n' -}}{%- else -%}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' -}}"
    "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}"
    '{%- if enable_thinking is defined and enable_thinking is false -%}'
    "{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{%- endif -%}"
)
"""The published template of Qwen 3 without its parts for tools and for thoughts in the text."""


def chat_of(name, system=chat_templates.PUBLISHED):
    template = chat_templates.with_system(chat_templates.TEMPLATES[name], system)
    return chats.Chat(tokenizer_json.JsonTokenizer(FILES[name].encode()), template)


def decoded(chat, ids):
    return chat.tokenizer._tokenizer.decode(ids, skip_special_tokens=False)


def test_qwen_2_5_math_asks_for_steps_and_a_box():
    chat = chat_of('qwen2.5-math')
    assert decoded(chat, chat.context(chat.question_turns('1 + 1?'), 'attempt')) == (
        f'<|im_start|>system\n{MATH}<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n'
        '<|im_start|>assistant\n'
    )


def test_qwen_3_without_thinking_opens_with_an_empty_block():
    chat = chat_of('qwen3')
    question = chat.question_turns('1 + 1?')
    user = '<|im_start|>user\n1 + 1?<|im_end|>\n'
    empty, start = '<think>\n\n</think>\n\n', '<|im_start|>assistant\n'
    assert decoded(chat, chat.context(question, 'attempt')) == user + start + empty
    turns = (*question, chat.text_turn('attempt', '2'))
    example = chat.example(turns, trained=('attempt',), weights=None, last_only=True)
    assert decoded(chat, example.tokens.tolist()) == user + start + empty + '2<|im_end|>'
    assert example.loss_mask.sum() == len(turns[-1].tokens)
    later = chat.context((*turns, chat.text_turn('critique', 'Wrong')), 'refinement')
    assert decoded(chat, later) == (
        f'{user}{start}2<|im_end|>\n<|im_start|>user\nWrong<|im_end|>\n{start}{empty}'
    )
    assert len(chat.piece_ids(chat.template.prefix)) <= chat.overhead


def test_qwen_3_trains_only_the_last_turn_of_a_conversation():
    chat = chat_of('qwen3')
    turns = (*chat.question_turns('?'), *(chat.text_turn(r, 'x') for r in ('attempt', 'critique')))
    turns = (*turns, chat.text_turn('refinement', 'y'))
    for trained, last_only in ((('attempt', 'refinement'), False), (('attempt',), True)):
        with pytest.raises(ValueError, match="'qwen3' can train only the last turn"):
            chat.example(turns, trained=trained, weights=None, last_only=last_only)
    chat.example(turns, trained=('attempt', 'refinement'), weights=None, last_only=True)


@pytest.mark.parametrize('name', NAMES)
def test_a_system_message_is_set_removed_or_refused(name):
    published = chat_of(name)
    assert published.template is chat_templates.TEMPLATES[name]
    if name not in WITH_SYSTEM:
        with pytest.raises(ValueError, match=f"'{name}' has no system message; nearest: 'publish"):
            chat_of(name, 'Be brief.')
        assert chat_of(name, '').template is published.template
        return
    question = published.question_turns('Why?')
    texts = {s: decoded(c := chat_of(name, s), c.context(question, 'attempt')) for s in
             ('Be brief.', '')}  # fmt: skip
    assert texts['Be brief.'].count('Be brief.') == 1 and 'system' not in texts['']
    assert texts['Be brief.'].index('Be brief.') < texts['Be brief.'].index('Why?')


def test_a_system_message_and_its_frame_are_encoded_together():
    """As the published text is: a tokenizer may merge across their border."""
    template = chat_templates.with_system(chat_templates.CHATML, 'A b')
    assert template.opening[1] == 'system\nA b' and len(template.opening) == 4


# Against `transformers`


def fast(name, text):
    """A tokenizer of `transformers` with a chat template."""
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    from tokenizers import Tokenizer

    from tests.golden import make_chat_templates

    bos, eos, _ = make_chat_templates.BOS_EOS_END.get(name, (None, '<|endoftext|>', None))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(FILES[name]),
        bos_token=bos, eos_token=eos, chat_template=text,
    )  # fmt: skip


SIDES = {'question': 'user', 'attempt': 'assistant', 'critique': 'user', 'refinement': 'assistant'}


def messages(turns):
    return [{'role': SIDES[role], 'content': TEXTS[role]} for role in list(SIDES)[:turns]]


def prompt_ids(tokenizer, turns, **options):
    return tokenizer.apply_chat_template(
        turns, tokenize=True, add_generation_prompt=True, return_dict=False, **options
    )


def conversation(chat, turns):
    played = [chat.text_turn(role, TEXTS[role]) for role in list(SIDES)[1:turns]]
    return (*chat.question_turns(TEXTS['question']), *played)


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('system', [chat_templates.PUBLISHED, 'Be "brief",\n{{ really }} \\x.', ''])
@pytest.mark.parametrize('name', NAMES)
def test_the_written_template_gives_the_prompts_and_texts_of_training(name, system):
    if name not in WITH_SYSTEM and system != chat_templates.PUBLISHED:
        pytest.skip('no system message')
    chat = chat_of(name, system)
    theirs = fast(name, jinja_templates.chat_template(chat.template))
    for turns, role in ((1, 'attempt'), (3, 'refinement')):
        assert prompt_ids(theirs, messages(turns)) == chat.context(conversation(chat, turns), role)
    for turns, role in ((2, 'attempt'), (4, 'refinement')):
        example = chat.example(
            conversation(chat, turns), trained=(role,), weights=None, last_only=True
        )
        whole = theirs.apply_chat_template(messages(turns), tokenize=True, return_dict=False)
        ours = example.tokens.tolist()
        assert whole[: len(ours)] == ours


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('name', NAMES)
def test_the_written_template_takes_a_system_message_or_refuses_it(name):
    theirs = fast(name, jinja_templates.chat_template(chat_templates.TEMPLATES[name]))
    turns = [{'role': 'system', 'content': 'Be brief.'}, *messages(1)]
    if name in WITH_SYSTEM:
        chat = chat_of(name, 'Be brief.')
        assert prompt_ids(theirs, turns) == chat.context(conversation(chat, 1), 'attempt')
        return
    with pytest.raises(Exception, match='has no system message'):
        prompt_ids(theirs, turns)


@pytest.mark.filterwarnings('default')
def test_qwen_3_without_thinking_is_the_published_form():
    chat, theirs = chat_of('qwen3'), fast('qwen3', QWEN3)
    for turns, role in ((1, 'attempt'), (3, 'refinement')):
        expected = prompt_ids(theirs, messages(turns), enable_thinking=False)
        assert chat.context(conversation(chat, turns), role) == expected
    whole = theirs.apply_chat_template(messages(4), tokenize=True, return_dict=False)
    example = chat.example(
        conversation(chat, 4), trained=('refinement',), weights=None, last_only=True
    )
    assert whole[: len(example.tokens)] == example.tokens.tolist()
    thinking = prompt_ids(theirs, messages(1), enable_thinking=True)
    chatml = dataclasses.replace(chat, template=chat_templates.CHATML)
    assert chatml.context(conversation(chatml, 1), 'attempt') == thinking


def test_role_headers_are_written_for_every_role():
    jinja2 = pytest.importorskip('jinja2')
    chat = chats.Chat(tokenizers.lab_tokenizer())
    text = jinja_templates.chat_template(chat.template)
    render = jinja2.Environment().from_string(text).render
    turns = [{'role': role, 'content': 'ben'} for role in records.TURN_ROLES]
    assert render(messages=turns) == (
        '<question> ben<guide> ben<attempt> ben</s><critique> ben</s><refinement> ben</s>'
    )
    sides = [{'role': 'user', 'content': 'ben'}, {'role': 'assistant', 'content': 'eve'}]
    assert render(messages=sides) == '<question> ben<attempt> eve</s>'
    assert render(messages=sides[:1], add_generation_prompt=True) == '<question> ben<attempt>'


@pytest.mark.parametrize(
    'message', ['Think \U0001f600', '\u03c0 \u2264 4', 'a\u2028b "c" \\x \x01']
)
@pytest.mark.parametrize('name', WITH_SYSTEM)
def test_any_character_of_a_system_message_stays_as_it_is(name, message):
    jinja2 = pytest.importorskip('jinja2')
    template = chat_templates.with_system(chat_templates.TEMPLATES[name], message)
    text = jinja_templates.chat_template(template)
    question = [{'role': 'user', 'content': 'Why?'}]
    rendered = jinja2.Environment().from_string(text).render(messages=question)
    assert message in rendered and rendered.encode()
