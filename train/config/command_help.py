"""Help of a command from its source alone: importing a command imports JAX, which takes seconds.

Only the standard library is imported here. Flags are read where a script defines them, and in the
two functions that define flags for several scripts.
"""

import ast
import pathlib
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
SHARED = {
    ('cli', 'define_flags'): ROOT / 'train/config/cli.py',
    ('flags', 'define'): ROOT / 'train/benchmarks/flags.py',
}
"""(module, function) that a script calls -> the file of that function."""
CACHE_FLAG = 'compilation_cache'
"""Flag of the file of `cli` that the shared functions show as well."""
PLACES = {'DEFINE_config_file': ('name', 'default', 'help_string')}
PLACES['DEFINE_enum'] = ('name', 'default', 'enum_values', 'help')
ORDINARY = ('name', 'default', 'help')
WIDTH = 96


class Flag(NamedTuple):
    """A flag, its help, and its default if the source has it as a literal that says something."""

    name: str
    help: str
    default: str = ''
    choices: tuple[str, ...] = ()


class NotStaticError(Exception):
    """The source computes a name or a help; only the running command knows it."""


def summary(path: pathlib.Path) -> str:
    """Returns the first sentence of the docstring of a file, without its full stop."""
    text = ast.get_docstring(_parse(path)) or ''
    first = ' '.join(text.partition('\n\n')[0].split())
    return first.partition(': ')[0].removesuffix('.')


def help_of(path: pathlib.Path, *, program: str) -> str:
    """Returns docstring and flags as text; raises NotStaticError where the source does not say.

    The commands in the docstring are written as those of `program`.
    """
    tree = _parse(path)
    flags = list(_flags(tree))
    if 'argparse' in path.read_text(encoding='utf-8'):
        raise NotStaticError(f'{path} has a parser of its own')
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__')
    text = (ast.get_docstring(tree) or '').replace(f'python -m {module}', program)
    lines = [text, '', f'Flags of {program}:']
    for flag in flags:
        lines += ['', *_lines(flag)]
    return '\n'.join(lines)


def flags_of(path: pathlib.Path) -> list[Flag]:
    """Returns the flags that a script defines, as `help_of` shows them."""
    return list(_flags(_parse(path)))


def _parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


def _lines(flag: Flag) -> list[str]:
    choices = f' one of {", ".join(flag.choices)};' if flag.choices else ''
    default = f' (default: {flag.default})' if flag.default else ''
    words = f'{choices} {flag.help}{default}'.strip()
    return [f'  --{flag.name}', *textwrap.wrap(words, WIDTH, initial_indent=' ' * 6,
                                               subsequent_indent=' ' * 6)]  # fmt: skip


def _flags(tree: ast.Module) -> Iterator[Flag]:
    names = dict(_constants(tree))
    for node in _calls(tree):
        module, _, function = ast.unparse(node.func).rpartition('.')
        if _is_definition(node):
            yield _flag(function, node, names)
        elif (module, function) in SHARED:
            yield from _shared(SHARED[module, function], function, node)


def _shared(path: pathlib.Path, name: str, call: ast.Call) -> Iterator[Flag]:
    """Yields the flags that one of the shared functions defines when it is called like this."""
    tree = _parse(path)
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    values: dict[str, Any] = dict(_constants(tree))
    keywords, defaults = function.args.kwonlyargs, function.args.kw_defaults
    values |= {word.arg: value for word, value in zip(keywords, defaults, strict=True)}
    values |= {k.arg: _literal(k.value, {}, missing=k.value) for k in call.keywords}
    gated = {id(n) for n in ast.walk(function) if isinstance(n, ast.If) for n in ast.walk(n)}
    for node in _calls(function):
        # `if stages is not None`
        if _is_definition(node) and (id(node) not in gated or call.keywords):
            yield _flag(node.func.attr, node, values)
    for node in _calls(_parse(SHARED['cli', 'define_flags'])):
        if _is_definition(node) and getattr(node.args[0], 'value', None) == CACHE_FLAG:
            yield _flag(node.func.attr, node, {})


def _is_definition(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr.startswith('DEFINE_')


def _calls(tree: ast.AST) -> list[ast.Call]:
    """All calls of a piece of source, in the order of its lines."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(calls, key=lambda node: (node.lineno, node.col_offset))


def _flag(kind: str, call: ast.Call, names: Mapping[str, Any]) -> Flag:
    words = PLACES.get(kind, ORDINARY)
    values = dict(zip(words, call.args, strict=False)) | {k.arg: k.value for k in call.keywords}
    help_node = values.get('help', values.get('help_string'))
    if help_node is None or 'name' not in values:
        raise NotStaticError(f'line {call.lineno} has a flag without name or help')
    default = _literal(values['default'], names, missing=None) if 'default' in values else None
    choices = _literal(values['enum_values'], names, missing=()) if 'enum_values' in values else ()
    shown = ','.join(default) if isinstance(default, list | tuple) else default
    return Flag(
        name=_literal(values['name'], names),
        help=_literal(help_node, names),
        default='' if shown in (None, '') else str(shown),
        choices=tuple(choices),
    )


def _constants(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _literal(node.value, {}, missing=NotStaticError)
            if value is not NotStaticError:
                yield node.targets[0].id, value


_REQUIRED = object()


def _literal(node: Any, names: Mapping[str, Any], *, missing: Any = _REQUIRED) -> Any:
    """Returns the value of a literal or of a name with one; else `missing`, or raises."""
    try:
        if isinstance(node, ast.Name) and node.id in names:
            return _literal(names[node.id], names, missing=missing)
        if isinstance(node, ast.AST):
            return ast.literal_eval(node)
        return node
    except ValueError:
        if missing is _REQUIRED:
            raise NotStaticError(f'line {node.lineno} is no literal') from None
        return missing
