"""Prints a config as a tree, each field with its comment in configs/defaults.py or sections.py."""

import ast
import functools
import re
from collections.abc import Iterator

import ml_collections

from elenchus.train.config.build import ROOT

SOURCES = (ROOT / 'configs' / 'sections.py', ROOT / 'configs' / 'defaults.py')


def describe(config: ml_collections.ConfigDict) -> str:
    """Returns one line a field: its name, its value in `config`, and its comment.

    The comments are those of the files in SOURCES, where every field stands once.
    """
    lines = list(_tree(config, section='get_config', indent=''))
    width = min(60, max(len(text) for text, _ in lines))
    return '\n'.join(f'{text:{width}}  # {comment}' if comment else text for text, comment in lines)


def _tree(
    config: ml_collections.ConfigDict, *, section: str, indent: str
) -> Iterator[tuple[str, str]]:
    order = list(comments())  # that of the source: a comment may continue the one before it
    position = {name: order.index((section, name)) for name in config if (section, name) in order}
    for name in sorted(config, key=lambda name: position.get(name, len(order))):
        value = config[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield f'{indent}{name}', comments().get((section, name), '')
            yield from _tree(value, section=name, indent=indent + '    ')
        else:
            yield f'{indent}{name} = {value!r}', comments().get((section, name), '')


@functools.cache
def comments() -> dict[tuple[str, str], str]:
    """Returns (section, field) -> comment.

    The section is the key of the enclosing dict, or the name of the constant or function that
    holds it, in lower case.
    """
    result = {}
    for path in SOURCES:
        text = path.read_text(encoding='utf-8')
        result |= _comments_of(text)
        for section, function in _named_calls(text):
            own = [(name, text) for (holder, name), text in result.items() if holder == function]
            result |= {(section, name): text for name, text in own}
    return result


def _named_calls(source: str) -> list[tuple[str, str]]:
    """(section, function) of every section whose fields a function with another name returns."""
    return [
        (key.value, value.func.id)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
        and isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id != key.value
    ]


def _comments_of(source: str) -> dict[tuple[str, str], str]:
    lines, result = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            name = node.targets[0].id.lower()
            head = re.search(r'{  # (.*)', lines[node.lineno - 1])
            if head:  # a section of the tree
                result['get_config', name] = head[1]
        elif isinstance(node, ast.FunctionDef):
            name = node.name
        else:
            continue
        for section, key in _keys(node, name):
            comment = re.search(r'  # (.*)', lines[key.lineno - 1])
            if comment:
                result[section, key.value] = comment[1]
    return result


def _keys(node: ast.AST, section: str) -> Iterator[tuple[str, ast.Constant]]:
    """Yields every string key of the dicts below a node, with the section it belongs to."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Dict):
            for key, value in zip(child.keys, child.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield section, key
                    yield from _keys(ast.Expr(value), key.value)
        else:
            yield from _keys(child, section)
