"""The texts of all errors and warnings that the code can print, read from its source.

python docs/site/all_messages.py        prints the page
"""

import ast
import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ('configs', 'data', 'model', 'sampling', 'train', 'scripts')
EXIT_CODES = {'ValueError': 2, 'UsageError': 2, 'Refused': 2}
"""Of our own errors; all others are failures from outside, exit code 1."""
HEAD = """# All messages

Every text of an error that the code raises, with its place; words in braces are filled in. The
site makes this page from the source. [Errors](errors.md) explains the frequent ones.
"""


class Message(NamedTuple):
    """The text of a raised error, with its computed parts in braces."""

    text: str
    kind: str
    place: str  # path of the file
    function: str


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Returns the syntax tree of every file of the code, by its path."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob('*.py'))]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding='utf-8'))
        for path in paths
    }


@functools.cache
def messages() -> tuple[Message, ...]:
    """Returns the messages of all files, in the order of the files and their lines."""
    return tuple(
        Message(text, kind, place, function)
        for place, tree in trees().items()
        for text, kind, function in _raised(tree, '')
    )


def _raised(tree: ast.AST, function: str) -> Iterator[tuple[str, str, str]]:
    """Yields text, kind of error and function of each error that is raised with a text."""
    for node in ast.iter_child_nodes(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(call, ast.Call) and call.args:
            name = ast.unparse(call.func).rpartition('.')[2]
            if isinstance(node, ast.Raise) or name == '_fail':
                text = text_of(call.args[0])
                if text:
                    yield text, 'ValueError' if name == '_fail' else name, function
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _raised(node, node.name if is_function else function)


def text_of(node: ast.expr) -> str:
    """Returns the text of a string with its computed parts in braces, '' of anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ''
    if isinstance(node, ast.JoinedStr):
        return ''.join(
            part.value if isinstance(part, ast.Constant) else f'{{{_name(part.value)}}}'
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return ''


def _name(node: ast.expr) -> str:
    """Returns the name in an expression that says what is filled in."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Call):
        name = _name(node.args[0]) if node.args else _name(node.func)
        return f'number of {name}' if ast.unparse(node.func) == 'len' else name
    return '...'


def page() -> str:
    """Returns the page in Markdown: a table for each folder of the code."""
    parts, known = [HEAD], messages()
    for folder in FOLDERS:
        rows = [m for m in known if m.place.startswith(f'{folder}/')]
        if rows:
            parts.append(f'\n## {folder}\n\n| message | exit code | raised in |\n|---|---|---|\n')
            parts += [_row(message) for message in rows]
    return ''.join(parts)


def _row(message: Message) -> str:
    text = ' '.join(message.text.split()).replace('`', "'").replace('|', '\\|')
    code = EXIT_CODES.get(message.kind, 1)
    return f'| `{text}` | {code} | `{message.place}`, `{message.function}` |\n'


if __name__ == '__main__':
    print(page())
