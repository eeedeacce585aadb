"""The command `elenchus`: its list, helps that import no JAX, and what a wrong name says."""

import re
import resource
import subprocess
import sys

import pytest

from elenchus.scripts import console

HEAVY = ('jax', 'flax', 'orbax')
"""Packages that take seconds to import."""


def elenchus(*words):
    """Runs the command with a tail that prints which heavy packages it imported."""
    code = (
        'import sys; from elenchus.scripts import console'
        '\ntry: code = console.main()\nexcept SystemExit as end: code = end.code'
        f'\nprint("HEAVY", [n for n in {HEAVY} if n in sys.modules])\nsys.exit(code)'
    )
    return subprocess.run(
        [sys.executable, '-c', code, *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize('words', [['--help'], ['--version'], ['run', '--help']])
def test_what_needs_no_jax_imports_none_and_is_quick(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = elenchus(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 0, process.stderr
    assert 'HEAVY []' in process.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_a_reader_of_a_part_of_the_list_sees_no_traceback():
    code = 'import sys; from elenchus.scripts import console; sys.exit(console.main())'
    with subprocess.Popen(
        [sys.executable, '-c', code, '--help'], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b''


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


@pytest.mark.parametrize(
    ('words', 'module', 'rest'),
    [
        (
            ['run', '--config=lab:smoke', '--x='],
            'elenchus.scripts.run',
            ['--config=lab:smoke', '--x='],
        ),
        (['tools', 'roofline', '--rows=2'], 'elenchus.scripts.tools.roofline', ['--rows=2']),
        (['bench'], 'elenchus.scripts.bench', []),
    ],
)
def test_a_command_is_run_as_its_module_with_the_arguments(words, module, rest, monkeypatch):
    runs = []
    monkeypatch.setattr(sys, 'argv', ['elenchus', *words])
    monkeypatch.setattr(
        console.runpy, 'run_module', lambda name, **_: runs.append((name, sys.argv[1:]))
    )
    assert console.main() == 0
    assert runs == [(module, rest)]
