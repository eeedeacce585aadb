"""Chat templates in jinja with the features of published ones, for tests of what is derived.

Each is written here, with one feature that a family's published template has; those of
tests/golden/make_chat_templates.py are the families' own without tools.
"""

_TURN = (
    "{{- '<|im_start|>' + m.role + '\\n' + (CONTENT) + '<|im_end|>\\n' }}"
    '{%- endfor %}{%- if add_generation_prompt %}PROMPT{%- endif %}'
)
_OPEN = "{{- '<|im_start|>assistant\\n' }}"


def _chatml(content: str = 'm.content', *, prompt: str = _OPEN) -> str:
    turn = _TURN.replace('CONTENT', content).replace('PROMPT', prompt)
    return '{%- for m in messages %}' + turn


CHATML = _chatml()

DEFAULT_SYSTEM = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nHelp.<|im_end|>\\n' }}"
    '{%- endif %}' + CHATML
)
"""Writes a system message by itself, as SmolLM2's and Qwen 2.5's do."""

JOINS_USER = (
    "{{- bos_token }}{%- set lead = '' %}{%- set turns = messages %}"
    "{%- if messages[0].role == 'system' %}{%- set lead = messages[0].content + '\\n\\n' %}"
    '{%- set turns = messages[1:] %}{%- endif %}'
    "{%- for m in turns %}{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role)"
    "+ '\\n' + (lead if loop.first else '') + m.content | trim + '<end_of_turn>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
"""Begins the first user message with the system message, as Gemma 3's does."""

TRIMS = (
    '{{- bos_token }}{%- for m in messages %}'
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + "
    "'<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
"""Trims every message, as Llama 3's does."""

EMPTY_THOUGHTS = _chatml(
    "('<think></think>' + m.content).rstrip() if m.role == 'assistant' else m.content",
    prompt=_OPEN.replace('\\n', '\\n<think></think>'),
)
"""Writes an empty block before each answer and trims its end, as Nemotron 3's does."""

OPENS_THOUGHTS = _chatml(
    "m.content.split('</think>')[-1] if m.role == 'assistant' else m.content",
    prompt=_OPEN.replace('\\n', '\\n<think>\\n'),
)
"""Opens a block of thoughts, and drops those of earlier answers, as Qwen 3.5's does."""

NO_SYSTEM = (
    "{%- if messages[0].role == 'system' %}{{- raise_exception('no system role') }}{%- endif %}"
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{- '[INST]' + m.content + '[/INST]' }}{%- else %}{{- m.content + eos_token }}{%- endif %}"
    '{%- endfor %}'
)
"""Has no header of answers and no system message."""

TEMPLATES = {
    'chatml': CHATML,
    'default system': DEFAULT_SYSTEM,
    'joins user': JOINS_USER,
    'trims': TRIMS,
    'empty thoughts': EMPTY_THOUGHTS,
    'opens thoughts': OPENS_THOUGHTS,
    'no system': NO_SYSTEM,
}
