"""Token listings: every token appears once, and trained tokens have lines of their own."""

import pytest

from elenchus.data.critiques import record_files
from elenchus.data.records import Problem
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.data.text.tokenizer_json import JsonTokenizer
from elenchus.train.report import token_listing
from tests.support import hf_tokenizers

FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
TEXTS = hf_tokenizers.CONVERSATION
PROBLEM = Problem('p', TEXTS['question'], '18', TEXTS['attempt'], 1, 'gsm8k')
RECORD = record_files.from_fields(
    {'response' if role == 'attempt' else role: text for role, text in TEXTS.items()}
)


def chat_of(name):
    if name == 'elenchus':
        return Chat(tokenizers.lab_tokenizer())
    content = FILES[name]
    make = tokenizers.SentencePieceTokenizer if isinstance(content, bytes) else JsonTokenizer
    return Chat(
        make(content if isinstance(content, bytes) else content.encode()),
        chat_templates.TEMPLATES[name.removesuffix('.model')],
    )


@pytest.mark.parametrize('name', sorted(FILES))
@pytest.mark.parametrize('role', token_listing.SAMPLED_ROLES)
def test_the_lines_of_trained_tokens_are_the_turn_and_its_ending(name, role):
    chat = chat_of(name)
    turns = token_listing.turns_until(chat, RECORD, role)
    example = chat.example(turns, trained=(role,), weights=None, last_only=True)
    lines = list(token_listing.mask_lines(chat, example))
    trained = ''.join(line[2:].replace('|', '') for line in lines if line.startswith('+ '))
    ending = ''.join(p if isinstance(p, str) else p.name for p in chat.template.ending)
    assert trained.lstrip() == (TEXTS[role] + ending).replace('\n', '\\n').replace('|', '')
    assert sum(len(token_listing.token_texts(chat, [i])) for i in example.tokens) == len(
        example.tokens
    )
    assert {line[:2] for line in lines} == {'- ', '+ '}


def test_a_problems_solution_is_listed_as_its_attempt_and_its_tokens_are_counted():
    lines = token_listing.list_tokens(chat_of('qwen2.5'), PROBLEM, 'attempt').splitlines()
    assert lines[0].startswith('attempt under qwen2.5: ') and lines[0].endswith(
        'tokens are trained'
    )
    assert lines[1] == '- <|im_start|>|system|\\n'
    assert [line[0] for line in lines[1:]] == sorted((line[0] for line in lines[1:]), reverse=True)
    assert lines[-1].endswith('<|im_end|>')


def test_roles_have_headers_of_their_own_under_elenchus():
    lab = Problem('p', 'a = 1', '1', '#### 1', 1, 'lab')
    lines = token_listing.list_tokens(chat_of('elenchus'), lab, 'attempt').splitlines()
    assert lines[1].startswith('- <question>|') and lines[1].endswith('<attempt>')
    assert lines[-1].startswith('+ #') and lines[-1].endswith('</s>')


def test_a_missing_turn_is_refused_by_name():
    with pytest.raises(ValueError, match=r"role='critique': .* has only attempt"):
        token_listing.turns_until(chat_of('chatml'), PROBLEM, 'critique')
