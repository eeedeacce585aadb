"""Writes a chat template as the `chat_template` of `transformers`, a jinja text.

`apply_chat_template` with it gives the prompts that the model was trained with, token by token
(tests/data/test_jinja_templates.py). It knows the roles system, user and assistant; under the
template `elenchus` also those of conversations, such as critique.
"""

import json
from typing import Any

from elenchus.data import records
from elenchus.data.text import chat_templates
from elenchus.data.text.chat_templates import Pieces, Template


def chat_template(template: Template) -> str:
    """Returns the jinja text of a template."""
    if template.user is None:
        return _role_headers(template)
    if template.source is not None and (template.system or not template.default_system):
        return _published(template)
    user, assistant = template.user, template.assistant
    written = f' ~ ({_text(template.prefix)} if loop.last else "")' if template.prefix else ''
    space = f'{_text((template.space,))} ~ ' if template.space else ''
    user_turn = f'{_text(user.header)} ~ {space}message.content ~ {_text(user.footer)}'
    answer = (
        f'{_text(assistant.header)}{written} ~ {space}message.content ~ '
        f'{_text((*template.ending, *assistant.footer[1:]))}'
    )
    return ''.join(
        (
            _system(template),
            '{%- for message in messages -%}',
            f'{{%- if message.role == "user" -%}}{{{{- {user_turn} -}}}}',
            f'{{%- elif message.role == "assistant" -%}}{{{{- {answer} -}}}}',
            '{%- else -%}{{- raise_exception("unknown role " ~ message.role) -}}{%- endif -%}',
            '{%- endfor -%}',
            '{%- if add_generation_prompt -%}',
            f'{{{{- {_text((*assistant.header, *template.prefix))} -}}}}',
            '{%- endif -%}',
        )
    )


def _published(template: Template) -> str:
    """Returns the published text of a derived template, with its variables and system message."""
    settings = ''.join(
        f'{{%- set {name} = {_literal(value)} -%}}' for name, value in template.source.variables
    )
    if template.system == template.default_system:
        return settings + template.source.text
    message = f'{{"role": "system", "content": {_literal(template.system)}}}'
    return (
        settings
        + '{%- if not (messages and messages[0].role == "system") -%}'
        + f'{{%- set messages = [{message}] + messages -%}}{{%- endif -%}}'
        + template.source.text
    )


def _system(template: Template) -> str:
    """Returns the beginning; a system message of the conversation replaces that of the template."""
    frame = template.system_frame
    has_system = 'messages and messages[0].role == "system"'
    if frame is None:
        refusal = f'{template.name} has no system message'
        own = f'{{{{- raise_exception({_literal(refusal)}) -}}}}'
    else:
        start = template.start if template.system_start is None else template.system_start
        message = f'{_text((*start, *frame.header))} ~ messages[0].content'
        own = f'{{{{- {message} ~ {_text(frame.footer)} -}}}}'
    return (
        f'{{%- if {has_system} -%}}{own}{{%- set messages = messages[1:] -%}}'
        f'{{%- else -%}}{{{{- {_text(template.opening)} -}}}}{{%- endif -%}}'
    )


def _role_headers(template: Template) -> str:
    """Returns the text of a template in which each role has a header token of its own."""
    names = {'user': 'question', 'assistant': 'attempt'}
    names |= {role: role for role in records.TURN_ROLES}
    written = [role for role, name in names.items() if name in records.PLAYER_OF_ROLE]
    return (
        f'{{%- set names = {_literal(names)} -%}}'
        '{%- for message in messages -%}'
        '{{- "<" ~ names[message.role] ~ "> " ~ message.content -}}'
        f'{{%- if message.role in {_literal(written)} -%}}{{{{- {_text(template.ending)} -}}}}'
        '{%- endif -%}{%- endfor -%}'
        '{%- if add_generation_prompt -%}{{- "<attempt>" -}}{%- endif -%}'
    )


def _literal(value: Any) -> str:
    """Returns a value as jinja writes it; jinja does not join escaped halves of a character."""
    return json.dumps(value, ensure_ascii=False)


def _text(pieces: Pieces) -> str:
    """Returns pieces as a jinja string, special tokens by their names."""
    return _literal(chat_templates.text_of(pieces))
