"""Flags of the launchers: the fields of a dataclass, read strictly from the command line.

A field is a flag `--NAME=VALUE` of the field's type: text, int, float, or `yes`/`no` for bool.
`describe` makes a field with its line in --help and, if limited, its valid values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing

Options = typing.TypeVar('Options')


class UsageError(Exception):
    """An invalid command line; the message is one line that ends with what would be valid."""


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """The parts of a command line besides the flags.

    Attributes:
        actions: Words without dashes, in order.
        run: Words after `--`, for scripts.run.
        dry_run: Whether commands are only printed.
        help: Whether --help or -h was given.
    """

    actions: tuple[str, ...]
    run: tuple[str, ...]
    dry_run: bool
    help: bool


MOST = 1_000_000
"""Default of the largest value of a number."""


def describe(
    default: typing.Any, text: str, *, choices: typing.Sequence[str] = (), most: int = MOST
) -> typing.Any:
    """Returns a field of a dataclass of flags; `most` is the largest value of a number."""
    metadata = {'text': text, 'choices': tuple(choices), 'most': most}
    return dataclasses.field(default=default, metadata=metadata)


def nearest(word: str, words: typing.Iterable[str]) -> str:
    """Returns the most similar of the words, however different it is."""
    words = list(words)
    return (difflib.get_close_matches(word, words, n=1, cutoff=0.0) or words)[0]


def parse(kind: type[Options], arguments: typing.Sequence[str]) -> tuple[Options, CommandLine]:
    """Reads a command line.

    Raises:
        UsageError: An unknown flag, a value of another type, or a flag without a value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    check_text(arguments)
    values, actions, run, dry_run, wants_help = {}, [], (), False, False
    for i, word in enumerate(arguments):
        if word == '--':
            run = tuple(arguments[i + 1 :])
            break
        if word in ('--help', '-h'):
            wants_help = True
        elif word == '--dry_run':
            dry_run = True
        elif not word.startswith('-'):
            actions.append(word)
        else:
            name, equals, value = word.lstrip('-').partition('=')
            if name not in fields:
                close = nearest(name, fields)
                raise UsageError(
                    f'unknown flag --{name}; did you mean --{close}? Flags: {" ".join(fields)}'
                )
            if not equals:
                raise UsageError(f'--{name} needs a value: --{name}=...')
            values[name] = _value(fields[name], value)
    return kind(**values), CommandLine(tuple(actions), run, dry_run, wants_help)


def check_text(words: typing.Sequence[str]) -> None:
    """Checks that words are valid UTF-8, as hosts, Kubernetes and JSON files require.

    Raises:
        UsageError: One is not.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            close = word.encode(errors='ignore').decode()
            raise UsageError(f'{word} must be UTF-8; nearest: {close}') from None


def _value(field: dataclasses.Field, text: str) -> typing.Any:
    name, kind = field.name, type(field.default)
    choices = field.metadata['choices'] or (('yes', 'no') if kind is bool else ())
    if choices and text not in choices:
        truths = {'true': 'yes', '1': 'yes', 'on': 'yes', 'false': 'no', '0': 'no', 'off': 'no'}
        close = truths.get(text.lower()) if kind is bool else None
        raise UsageError(
            f'--{name}={text} must be one of {", ".join(choices)}; '
            f'nearest: {close or nearest(text, choices)}'
        )
    if kind is bool:
        return text == 'yes'
    if kind is str:
        return text
    try:
        number = kind(text)
    except ValueError:
        raise UsageError(f'--{name}={text} must be a number; default: {field.default}') from None
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f'--{name}={text} must be a number of at least 0; nearest: 0')
    if number > field.metadata['most']:
        most = field.metadata['most']
        raise UsageError(f'--{name}={text} must be at most {most}; nearest: {most}')
    return number


def check_actions(actions: typing.Sequence[str], known: typing.Sequence[str]) -> None:
    """Checks all actions before the first one runs.

    Raises:
        UsageError: There is no action, or an unknown one.
    """
    if not actions:
        raise UsageError(f'no action given; use one of: {" ".join(known)}')
    for action in actions:
        if action not in known:
            raise UsageError(
                f'unknown action {action}; did you mean {nearest(action, known)}? '
                f'Actions: {" ".join(known)}'
            )


def require(options: typing.Any, *names: str) -> None:
    """Checks that flags have a value.

    Raises:
        UsageError: One has none.
    """
    for name in names:
        if not getattr(options, name):
            raise UsageError(f'--{name} is required')


def print_help(kind: type, usage: str) -> str:
    """Returns the usage and a line for every flag."""
    lines = [usage.rstrip(), '', 'Flags, with their defaults:']
    for field in dataclasses.fields(kind):
        default = {True: 'yes', False: 'no'}.get(field.default, field.default)
        default = default if isinstance(field.default, (bool, str)) else f'{field.default:g}'
        choices = ', '.join(field.metadata['choices'])
        text = field.metadata['text'] + (f' ({choices})' if choices else '')
        lines.append(f'  --{field.name}={default}'.ljust(30) + f'  {text}')
    lines.append('  --dry_run'.ljust(30) + '  prints the commands without running them')
    return '\n'.join(lines)
