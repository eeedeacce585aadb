"""Masks as they are printed: every token once, trained ones on lines of their own."""

import pytest

from elenchus.data.critiques import record_files
from elenchus.data.records import Problem
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.data.text.tokenizer_json import JsonTokenizer
from elenchus.scripts.tools import show_tokens
from tests.support import hf_tokenizers

FILES = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
TOLD = hf_tokenizers.CONVERSATION
PROBLEM = Problem('p', TOLD['question'], '18', TOLD['attempt'], 1, 'gsm8k')
RECORD = record_files.from_fields(
    {'response' if role == 'attempt' else role: text for role, text in TOLD.items()}
)


def chat_of(name):
    if name == 'elenchus':
        return Chat(tokenizers.lab_tokenizer())
    given = FILES[name]
    make = tokenizers.SentencePieceTokenizer if isinstance(given, bytes) else JsonTokenizer
    return Chat(
        make(given if isinstance(given, bytes) else given.encode()),
        chat_templates.TEMPLATES[name.removesuffix('.model')],
    )


@pytest.mark.parametrize('name', sorted(FILES))
@pytest.mark.parametrize('role', show_tokens.PLAYED)
def test_what_is_printed_as_trained_is_the_turn_and_its_ending(name, role):
    chat = chat_of(name)
    turns = show_tokens.turns_of(chat, RECORD, role)
    example = chat.example(turns, trained=(role,), weights=None, last_only=True)
    lines = list(show_tokens.shown(chat, example))
    trained = ''.join(line[2:].replace('|', '') for line in lines if line.startswith('+ '))
    ending = ''.join(p if isinstance(p, str) else p.name for p in chat.template.ending)
    assert trained.lstrip() == (TOLD[role] + ending).replace('\n', '\\n').replace('|', '')
    assert sum(len(show_tokens.pieces(chat, [i])) for i in example.tokens) == len(example.tokens)
    assert {line[:2] for line in lines} == {'- ', '+ '}


def test_a_problems_solution_is_its_attempt_and_is_counted():
    told = show_tokens.told(chat_of('qwen2.5'), PROBLEM, 'attempt').splitlines()
    assert told[0].startswith('attempt under qwen2.5: ') and told[0].endswith('tokens are trained')
    assert told[1] == '- <|im_start|>|system|\\n'
    assert [line[0] for line in told[1:]] == sorted((line[0] for line in told[1:]), reverse=True)
    assert told[-1].endswith('<|im_end|>')


def test_roles_have_headers_of_their_own_under_elenchus():
    lab = Problem('p', 'a = 1', '1', '#### 1', 1, 'lab')
    told = show_tokens.told(chat_of('elenchus'), lab, 'attempt').splitlines()
    assert told[1].startswith('- <question>|') and told[1].endswith('<attempt>')
    assert told[-1].startswith('+ #') and told[-1].endswith('</s>')


def test_a_turn_that_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match=r"role='critique': .* has only attempt"):
        show_tokens.turns_of(chat_of('chatml'), PROBLEM, 'critique')
