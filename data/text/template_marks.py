"""Messages with which derived_templates.py renders a published chat template and cuts it."""

USERS = tuple(f'Qu{i}ser' for i in range(3))
ASSISTANTS = tuple(f'An{i}swer' for i in range(2))
SYSTEM = 'Sy0stem'
TOOL, QUOTED = 'To0ol', 'an "answer"\nof two lines'
TOOL_NAME, TOOL_ARGUMENTS = 'na0me', {'ar0gument': 'va0lue'}
# Texts of a user that templates have been seen to change or to react to.
PROBES = (
    'one line\n\nand "another" <b>&amp;</b>',
    '<think>thoughts</think> then text',
    'text </think> more',
    '/no_think 1 + 1?',
    '{{ 7 * 7 }} {% raw %} {# x #} \\n \\boxed{1}',
    '[INST] <|im_end|> </s> [/INST]',
    'Zoë 中文 😀',
    'x' * 5000,
)


def turns(count: int) -> list[tuple[str, str]]:
    """Returns messages of users and assistants in turn."""
    pairs = [('user', 'assistant')[i % 2] for i in range(count)]
    texts = [(USERS, ASSISTANTS)[i % 2][i // 2] for i in range(count)]
    return list(zip(pairs, texts, strict=True))


def tool_turns(content: str) -> list[dict]:
    """Returns messages of a user, of an assistant that calls a tool, and of the tool."""
    function = {'name': TOOL_NAME, 'arguments': TOOL_ARGUMENTS}
    call = {'id': 'call00000', 'type': 'function', 'function': function}
    return [
        {'role': 'user', 'content': USERS[0]},
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'name': TOOL_NAME, 'tool_call_id': 'call00000', 'content': content},
    ]


def padded(content: str) -> str:
    """Returns a text with white space around it."""
    return f'\n \t{content} \n\n'
