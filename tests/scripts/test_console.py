"""The command `elenchus`: its list, helps that import no JAX, and what a wrong name says."""

import re
import resource
import subprocess
import sys

import pytest

from elenchus.scripts import console
from elenchus.train.config import command_help

HEAVY = ('jax', 'flax', 'numpy', 'ml_collections', 'absl')
"""Packages that take seconds to import, or that import one which does."""
STATIC = [name for name in console.commands() if not name.startswith('tools ') and name != 'bench']


def elenchus(*words):
    """Runs the command with a tail that prints which heavy packages it imported."""
    code = (
        'import sys; from elenchus.scripts import console'
        f'\ncode = console.main()\nprint("HEAVY", [n for n in {HEAVY} if n in sys.modules])'
        '\nsys.exit(code)'
    )
    return subprocess.run(
        [sys.executable, '-c', code, *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize('words', [['--help'], *([name, '--help'] for name in STATIC)])
def test_help_is_quick_because_it_imports_no_jax(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = elenchus(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0, process.stderr
    assert 'HEAVY []' in process.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


@pytest.mark.parametrize('name', STATIC)
def test_help_has_the_flags_that_the_running_command_has(name, fork, tmp_path):
    module = f'elenchus.scripts.{name}'
    result = fork(module, tmp_path, ['--helpxml'])
    text = re.sub(r'\s+', ' ', result.output)
    key = r'<flag> <key>yes</key> <file>.*?</file> <name>(.*?)</name> <meaning>(.*?)</meaning>'
    names = dict(re.findall(key, text))
    shown = {flag.name: flag.help for flag in command_help.flags_of(console.commands()[name])}
    missing = set(names) - set(shown) - {'help', 'helpfull', 'helpshort', 'helpxml'}
    assert not missing and names
    for flag, help_text in shown.items():
        meaning = re.search(rf'<name>{flag}</name> <meaning>(.*?)</meaning>', text)
        assert meaning, f'{name} has no flag --{flag}'
        plain = meaning[1].replace('&amp;', '&').replace('&lt;', '<').replace('&gt;', '>')
        assert help_text in re.sub(r'^<.*?>: ', '', plain).strip(), flag


def test_the_list_has_a_line_for_every_command():
    text = console.usage()
    for name in console.commands():
        assert re.search(rf'^  {name.removeprefix("tools ")} +\S', text, re.MULTILINE), name


@pytest.mark.parametrize(
    ('words', 'near'), [(['rn'], 'run'), (['tools', 'roof'], 'roofline'), (['launch'], '')]
)
def test_an_unknown_command_is_one_line_with_the_nearest(words, near):
    process = elenchus(*words)
    assert process.returncode == 2
    assert process.stderr.count('\n') == 1 and near in process.stderr
    assert repr(' '.join(words)) in process.stderr


def test_without_words_the_usage_is_shown_and_the_code_is_that_of_a_mistake():
    process = elenchus()
    assert process.returncode == 2 and process.stdout.startswith('usage: elenchus COMMAND')


def test_arguments_reach_the_command(fork, tmp_path):
    words = ['stage', '--config=lab:smoke', '--workdir=x', '--bad=1']
    result = fork('elenchus.scripts.console', tmp_path, words)
    assert result.code == 2 and "'bad'" in result.errors and result.errors.count('\n') == 1


def test_what_the_source_computes_is_left_to_the_running_command(tmp_path, monkeypatch):
    monkeypatch.setattr(command_help, 'ROOT', tmp_path)
    path = tmp_path / 'scripts' / 'x.py'
    path.parent.mkdir()
    path.write_text('"""Does x."""\nflags.DEFINE_string("a", None, f"one of {x}")\n')
    with pytest.raises(command_help.NotStaticError):
        command_help.help_of(path, program='elenchus x')
    path.write_text('"""Does x."""\nH = "what"\nflags.DEFINE_string("a", "b", H)\n')
    assert command_help.help_of(path, program='elenchus x').endswith('--a\n      what (default: b)')
